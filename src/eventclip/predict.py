"""``python -m eventclip.predict recordings=DIR classes=[...]``: classify recordings by words, or with a checkpoint."""

from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf

from eventclip.config import CONFIG_DIR, command, register_schema

register_schema()


@hydra.main(version_base="1.3", config_path=CONFIG_DIR, config_name="predict")
@command
def main(cfg: DictConfig) -> None:
    """Find the recordings, build the model, classify, and end with an error if any recording could not be."""
    from pathlib import Path

    from eventclip.errors import UserError
    from eventclip.inference.listing import find_recordings
    from eventclip.inference.predicting import Prediction
    from eventclip.inference.settings import build_model, check_settings

    if OmegaConf.is_missing(cfg, "recordings"):
        raise UserError("recordings= is missing: files, folders or globs to classify")
    settings = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    check_settings(settings)
    out = None if settings["out"] is None else Path(str(settings["out"])).expanduser()
    found = find_recordings(settings["recordings"], out=out)
    prediction = Prediction(found, settings)
    errors = prediction.make(build_model(settings))
    if errors:
        raise UserError(f"{len(errors)} of {len(found.paths)} recordings could not be classified: {errors[0]}")


if __name__ == "__main__":
    main()
