"""``python -m eventclip.data_check data=...``: read a whole data set, say what is in it and what is damaged."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from eventclip.config import CONFIG_DIR, command, register_schema

register_schema()


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="data_check")
@command
def main(cfg: DictConfig) -> None:
    """Build the data set from the composed configuration, read it, print the table; damage is an error."""
    from eventclip.building import build
    from eventclip.data.check import check_data
    from eventclip.data.datamodule import EventDataModule
    from eventclip.errors import UserError
    from eventclip.files import write_json

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
