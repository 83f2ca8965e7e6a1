"""``eventclip predict recordings=DIR classes=[...]``: classify recordings by words, or with a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventclip.config.entry import entry, importing, plain

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the recordings and the model's files, and for settings that do not go together."""
    from eventclip.config.inputs import check_clip, check_given
    from eventclip.inference.settings import check_prediction

    check_given(cfg, "recordings", ": files, folders or globs to classify")
    check_prediction(plain(cfg))
    check_clip(cfg)


@entry("predict", before=look)
def main(cfg: DictConfig) -> None:
    """Hand the settings to :func:`eventclip.inference.predict.predict`."""
    with importing():
        from eventclip.inference.predict import predict

    predict(plain(cfg))


if __name__ == "__main__":
    main()
