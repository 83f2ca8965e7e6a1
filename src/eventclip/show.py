"""``eventclip show recording=FILE out=x.png``: the frames of a recording exactly as CLIP gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip.config.entry import entry, importing, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the recording and the model's files, and for settings that do not go together."""
    from eventclip.config.inputs import check_clip, check_given
    from eventclip.inference.settings import check_showing

    check_given(cfg, "recording", ": the file to show")
    check_showing(plain(cfg))
    check_clip(cfg)


@entry("show", before=look)
def main(cfg: DictConfig) -> None:
    """Hand the settings to :func:`eventclip.inference.show.show`."""
    with importing():
        from eventclip.inference.show import show

    show(plain(cfg))


if __name__ == "__main__":
    main()
