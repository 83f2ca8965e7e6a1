"""``python -m eventclip.train experiment=...``: fit an adapter (or CLIP itself) on event recordings and test it."""

from eventclip import cluster

if __name__ == "__main__" and cluster.slurm_job():
    cluster.watch()  # a signal must not be lost, nor kill, during the imports that follow

import hydra
from omegaconf import DictConfig

from eventclip.config import CONFIG_DIR, command, register_schema

register_schema()


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="train")
@command
def main(cfg: DictConfig) -> float | None:
    """Hand the composed configuration to :func:`eventclip.run.run`."""
    cluster.watch()
    from eventclip.run import run

    return run(cfg)


if __name__ == "__main__":
    main()
