"""``eventclip export clip=... out=FOLDER``: a CLIP, aligned or as a checkpoint left it, for plain open_clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip.config.entry import entry, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the CLIP's files, or the checkpoint."""
    from eventclip.config.inputs import check_checkpoint, check_clip, check_given

    check_given(cfg, "out", ", the folder to write: eventclip export clip=NAME out=FOLDER")
    check_clip(cfg)
    if cfg.checkpoint is not None:
        check_checkpoint(cfg.checkpoint)


@entry("export", before=look)
def main(cfg: DictConfig) -> None:
    """Hand the settings to :func:`eventclip.models.export.export`, and say what was written."""
    from eventclip.models.export import export

    settings = plain(cfg)
    how = {name: settings[name] for name in ("checkpoint", "trust")}
    for line in export(settings["out"], clip=settings.get("clip"), **how):
        print(line)


if __name__ == "__main__":
    main()
