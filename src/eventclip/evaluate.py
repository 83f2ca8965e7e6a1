"""``eventclip evaluate checkpoint=...``: test what a checkpoint learned, on any split or variant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventclip.config.entry import entry, importing

if TYPE_CHECKING:
    from omegaconf import DictConfig


def read_config(arguments: list[str]) -> dict[str, Any]:
    """Import what reads checkpoints, and read the configuration in the one that is named."""
    with importing():
        from eventclip.training.evaluate import config_of_checkpoint

    return config_of_checkpoint(arguments)


def look(cfg: DictConfig) -> None:
    """Look for the checkpoint, the data set and CLIP's files."""
    from eventclip.config.inputs import check_clip, check_data, check_given

    check_given(cfg, "checkpoint", ": give the path of a .ckpt file that eventclip train wrote")
    check_data(cfg)
    check_clip(cfg)


@entry("evaluate", checkpoint=read_config, before=look)
def main(cfg: DictConfig) -> None:
    """Hand the composed configuration to :func:`eventclip.training.evaluate.evaluate`."""
    with importing():
        from eventclip.training.evaluate import evaluate

    evaluate(cfg)


if __name__ == "__main__":
    main()
