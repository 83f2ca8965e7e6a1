"""``python -m eventclip.evaluate checkpoint=...``: test what a checkpoint learned, on any split or variant."""

import sys

import hydra
from omegaconf import DictConfig

from eventclip.config import CONFIG_DIR, command, register_checkpoint


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="evaluate")
@command
def evaluate(cfg: DictConfig) -> None:
    """Hand the composed configuration to :func:`eventclip.evaluation.evaluate`."""
    from eventclip.evaluation import evaluate

    evaluate(cfg)


@command
def offer_checkpoint(arguments: list[str]) -> None:
    """Let the configuration of the checkpoint named on the command line stand behind what else is said there."""
    if not any(argument.startswith("checkpoint=") for argument in arguments):
        register_checkpoint({})
        return
    from eventclip.evaluation import config_of_checkpoint

    register_checkpoint(config_of_checkpoint(arguments))


def main() -> None:
    """Run the command."""
    offer_checkpoint(sys.argv[1:])
    evaluate()


if __name__ == "__main__":
    main()
