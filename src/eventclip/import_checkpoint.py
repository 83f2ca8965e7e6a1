"""``python -m eventclip.import_checkpoint reference.pth ...``: take over the published implementation's checkpoints."""

import sys

import hydra
from omegaconf import DictConfig

from eventclip.config import CONFIG_DIR, command, register_schema

register_schema()


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="import_checkpoint")
@command
def import_checkpoint(cfg: DictConfig) -> None:
    """Hand the composed configuration to :func:`eventclip.evaluation.import_reference`."""
    from eventclip.evaluation import import_reference

    import_reference(cfg)


def main() -> None:
    """Run the command; a first argument that is a file's path alone is the checkpoint to read."""
    if len(sys.argv) > 1 and sys.argv[1].endswith(".pth") and "=" not in sys.argv[1]:
        sys.argv[1] = f"reference='{sys.argv[1]}'"
    import_checkpoint()


if __name__ == "__main__":
    main()
