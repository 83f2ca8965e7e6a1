"""``python -m eventclip.pseudo_label experiment=... out=pseudo.json``: let a teacher label what to train on."""

import hydra
from omegaconf import DictConfig

from eventclip.config import CONFIG_DIR, PseudoLabelConfig, command, register_schema

register_schema(PseudoLabelConfig)


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="pseudo_label")
@command
def main(cfg: DictConfig) -> None:
    """Hand the composed configuration to :func:`eventclip.labelling.label`."""
    from eventclip.labelling import label

    label(cfg)


if __name__ == "__main__":
    main()
