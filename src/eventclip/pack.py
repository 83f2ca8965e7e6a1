"""``python -m eventclip.pack data=... out=FILE.h5``: one file in place of a folder of recordings."""

import hydra
from omegaconf import DictConfig, OmegaConf

from eventclip.config import CONFIG_DIR, command, register_schema

register_schema()


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="pack")
@command
def main(cfg: DictConfig) -> None:
    """Build the data module, pack the folders of the splits asked for, and say what was made."""
    from eventclip.data.pack_splits import pack_split
    from eventclip.errors import UserError
    from eventclip.run import build_datamodule

    if OmegaConf.is_missing(cfg, "out"):
        raise UserError("out= is missing, the file to pack into: python -m eventclip.pack data=... out=FILE.h5")
    told = pack_split(
        build_datamodule(cfg),
        cfg.split,
        cfg.out,
        damaged=cfg.damaged,
        verify=cfg.verify,
        workers=cfg.workers,
        progress=cfg.progress,
    )
    for line in told:
        print(line)


if __name__ == "__main__":
    main()
