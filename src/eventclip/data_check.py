"""``python -m eventclip.data_check data=...``: read a whole data set, say what is in it and what is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip.config.entry import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from eventclip.datasets.datamodule import EventDataModule


def look(cfg: DictConfig) -> None:
    """Look for the data set."""
    from eventclip.config.places import check_data

    check_data(cfg)


@entry("data_check", before=look)
def main(cfg: DictConfig) -> None:
    """Build the data set from the composed configuration, read it, print the table; damage is an error."""
    from pathlib import Path

    from eventclip.datasets.audit import check_data
    from eventclip.datasets.datamodule import EventDataModule
    from eventclip.errors import UserError
    from eventclip.files import write_json
    from eventclip.training.building import build

    datamodule: EventDataModule = build(cfg.data, "data", EventDataModule, renderer=build(cfg.frames, "frames"))
    check = check_data(datamodule, cfg.splits, progress=cfg.progress)
    print(check.table())
    if cfg.out is not None:
        try:
            write_json(Path(str(cfg.out)).expanduser(), check.as_dict())
        except OSError as error:
            raise UserError(f"out={cfg.out} cannot be written: {error.strerror or error}") from None
    if check.damaged:
        raise UserError(check.advice())


if __name__ == "__main__":
    main()
