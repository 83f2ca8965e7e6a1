"""``eventclip train experiment=...``: fit an adapter (or CLIP itself) on event recordings and test it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip import cluster

if __name__ == "__main__" and cluster.slurm_job():
    cluster.watch()  # a signal must not be lost, nor kill, during the imports that follow

from eventclip.config.entry import entry, importing

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the files that the run needs."""
    from eventclip.config.inputs import check_training

    cluster.watch()
    check_training(cfg)


@entry("train", before=look, experiments=True)
def main(cfg: DictConfig) -> float | None:
    """Hand the composed configuration to :func:`eventclip.training.experiment.run`."""
    with importing():
        from eventclip.training.experiment import run

    return run(cfg)


if __name__ == "__main__":
    main()
