"""``eventclip simulate images=DIR out=DIR``: event recordings of images, by a simulated event camera."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip.config.entry import entry, importing, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """See whether both folders were given."""
    from eventclip.config.inputs import check_given

    for key, meaning in (("images", "folder of class folders of images"), ("out", "folder for the recordings")):
        check_given(cfg, key, f", the {meaning}: eventclip simulate images=DIR out=DIR")


@entry("simulate", before=look)
def main(cfg: DictConfig) -> None:
    """Hand the settings to :func:`eventclip.simulation.folder.simulate`."""
    with importing():
        from eventclip.simulation.folder import simulate

    simulate(plain(cfg))


if __name__ == "__main__":
    main()
