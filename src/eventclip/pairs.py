"""``eventclip pairs recordings=DIR images=DIR out=FILE``: which image each recording shows, as a map file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip.config.entry import entry, importing

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """See whether the folder of recordings and the map file were given."""
    from eventclip.config.inputs import check_given

    for key, meaning in (("recordings", "folder of recordings"), ("out", "map file to write")):
        check_given(cfg, key, f", the {meaning}: eventclip pairs recordings=DIR images=DIR out=FILE")


@entry("pairs", before=look)
def main(cfg: DictConfig) -> None:
    """Find the pairs, write them and say what was found."""
    with importing():
        from eventclip.datasets.pairing import make_pairs

    told = make_pairs(
        cfg.recordings,
        cfg.out,
        images=cfg.images,
        originals=cfg.originals,
        workers=cfg.workers,
        progress=cfg.progress,
    )
    print(told)


if __name__ == "__main__":
    main()
