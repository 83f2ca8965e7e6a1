"""``eventclip pack data=... out=FOLDER``: a pack in place of a folder of recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip.config.entry import entry, importing

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the data set."""
    from eventclip.config.inputs import check_data, check_given

    check_given(cfg, "out", ", the folder to pack into: eventclip pack data=... out=FOLDER")
    check_data(cfg)


@entry("pack", before=look)
def main(cfg: DictConfig) -> None:
    """Build the data module, pack the folders of the splits asked for, and say what was made."""
    with importing():
        from eventclip.datasets.packing import pack_split
        from eventclip.training.experiment import build_datamodule

    how = {name: cfg[name] for name in ("damaged", "verify", "workers", "progress")}
    for line in pack_split(build_datamodule(cfg), cfg.split, cfg.out, **how):
        print(line)


if __name__ == "__main__":
    main()
