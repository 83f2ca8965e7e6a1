"""``eventclip import_checkpoint reference.pth ...``: take over the published implementation's checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip.config.entry import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the checkpoint, the data set and CLIP's files."""
    from eventclip.config.inputs import check_clip, check_data, check_given, check_reference

    check_given(cfg, "reference", ": give the .pth file to read")
    check_given(cfg, "out", ": give the .ckpt file to write")
    check_reference(cfg.reference)
    check_data(cfg)
    check_clip(cfg)


@entry("import_checkpoint", alone="reference", before=look)
def main(cfg: DictConfig) -> None:
    """Hand the composed configuration to :func:`eventclip.training.evaluate.import_reference`."""
    from eventclip.training.evaluate import import_reference

    import_reference(cfg)


if __name__ == "__main__":
    main()
