"""``python -m eventclip.show recording=FILE out=x.png``: the frames of a recording exactly as CLIP gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from eventclip.config.entry import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the recording and the model's files, and for settings that do not go together."""
    from pathlib import Path

    from eventclip.config.places import check_clip, check_given
    from eventclip.inference.settings import check_choices, check_recordings
    from eventclip.plots.views import check_picture

    check_given(cfg, "recording", ": the file to show")
    check_picture(Path(cfg.out), top=cfg.top, gif_ms=cfg.gif_ms)
    if cfg.checkpoint is not None or cfg.classes is not None:
        check_choices(_plain(cfg))
    check_recordings([Path(cfg.recording).expanduser()])
    check_clip(cfg)


@entry("show", before=look)
def main(cfg: DictConfig) -> None:
    """Hand the composed configuration to :func:`eventclip.inference.show.show`, and say what was done."""
    from eventclip.inference.show import show

    print(show(_plain(cfg)))


def _plain(cfg: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))


if __name__ == "__main__":
    main()
