"""``eventclip pseudo_label experiment=... out=pseudo.json``: let a teacher label what to train on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip.config.entry import entry, importing

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the files that the teacher and its recordings are in."""
    from eventclip.config.inputs import check_checkpoint, check_clip, check_data, check_given

    check_given(cfg, "out", ", the split file to write: eventclip pseudo_label ... out=pseudo.json")
    if cfg.checkpoint is not None:
        check_checkpoint(cfg.checkpoint)
    check_data(cfg)
    check_clip(cfg)


@entry("pseudo_label", before=look, experiments=True)
def main(cfg: DictConfig) -> None:
    """Hand the composed configuration to :func:`eventclip.training.pseudo_label.label`."""
    with importing():
        from eventclip.training.pseudo_label import label

    label(cfg)


if __name__ == "__main__":
    main()
