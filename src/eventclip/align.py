"""``eventclip align images=DIR clip=... out=aligned.safetensors``: teach CLIP the event camera, without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip import cluster

if __name__ == "__main__" and cluster.slurm_job():
    cluster.watch()  # a signal must not be lost, nor kill, during the imports that follow

from eventclip.config.entry import entry, importing

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the images and CLIP's files."""
    from eventclip.config.inputs import check_alignment

    cluster.watch()
    check_alignment(cfg)


@entry("align", before=look, experiments=True)
def main(cfg: DictConfig) -> float:
    """Hand the composed configuration to :func:`eventclip.training.align.align`."""
    with importing():
        from eventclip.training.align import align

    return align(cfg)


if __name__ == "__main__":
    main()
