"""``python -m eventclip.predict recordings=DIR classes=[...]``: classify recordings by words, or with a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from eventclip.config.entry import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the recordings and the model's files, and for settings that do not go together."""
    from eventclip.config.inputs import check_clip, check_given
    from eventclip.inference.choices import check_choices, check_recordings, check_table
    from eventclip.inference.listing import find_recordings

    check_given(cfg, "recordings", ": files, folders or globs to classify")
    settings = _plain(cfg)
    found = find_recordings(settings["recordings"], out=settings["out"])
    check_choices(settings)
    check_table(settings)
    check_recordings(found.paths)
    check_clip(cfg)


@entry("predict", before=look)
def main(cfg: DictConfig) -> None:
    """Find the recordings, build the model, classify, and end with an error if any recording could not be."""
    from eventclip.errors import UserError
    from eventclip.inference.listing import find_recordings
    from eventclip.inference.predicting import Prediction
    from eventclip.inference.settings import build_model

    settings = _plain(cfg)
    found = find_recordings(settings["recordings"], out=settings["out"])
    prediction = Prediction(found, settings)
    errors = prediction.make(build_model(settings))
    if errors:
        raise UserError(f"{len(errors)} of {len(found.paths)} recordings could not be classified: {errors[0]}")


def _plain(cfg: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))


if __name__ == "__main__":
    main()
