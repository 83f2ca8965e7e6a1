"""``eventclip data_check data=...``: read a whole data set, say what is in it and what is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip.config.entry import entry, importing

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the data set."""
    from eventclip.config.inputs import check_data

    check_data(cfg)


@entry("data_check", before=look)
def main(cfg: DictConfig) -> None:
    """Build the data set from the composed configuration, read it, print the table; damage is an error."""
    with importing():
        from eventclip.datasets.audit import check_data, tell_check
        from eventclip.datasets.datamodule import EventDataModule, grouped
        from eventclip.models.building import build

    datamodule: EventDataModule = build(
        cfg.data, "data", EventDataModule, arrange=grouped, renderer=build(cfg.frames, "frames")
    )
    tell_check(check_data(datamodule, cfg.splits, progress=cfg.progress), cfg.out)


if __name__ == "__main__":
    main()
