"""``python -m eventclip.evaluate checkpoint=...``: test what a checkpoint learned, on any split or variant."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from eventclip.config.entry import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def offer_checkpoint() -> None:
    """Let the configuration of the checkpoint named on the command line stand behind what else is said there."""
    from eventclip.config.command_line import value_of
    from eventclip.config.composition import register_checkpoint
    from eventclip.config.places import check_checkpoint

    arguments = sys.argv[1:]
    path = value_of(arguments, "checkpoint", "checkpoints, and each brings its own configuration")
    if path is None:
        register_checkpoint({})
        return
    check_checkpoint(path)
    from eventclip.training.evaluate import config_of_checkpoint

    register_checkpoint(config_of_checkpoint(arguments))


def look(cfg: DictConfig) -> None:
    """Look for the checkpoint, the data set and CLIP's files."""
    from eventclip.config.places import check_clip, check_data, check_given

    check_given(cfg, "checkpoint", ": give the path of a .ckpt file that eventclip.train wrote")
    check_data(cfg)
    check_clip(cfg)


@entry("evaluate", begin=offer_checkpoint, before=look)
def main(cfg: DictConfig) -> None:
    """Hand the composed configuration to :func:`eventclip.training.evaluate.evaluate`."""
    from eventclip.training.evaluate import evaluate

    evaluate(cfg)


if __name__ == "__main__":
    main()
