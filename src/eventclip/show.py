"""``python -m eventclip.show recording=FILE out=x.png``: the frames of a recording exactly as CLIP gets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from eventclip.config.entry import entry

if TYPE_CHECKING:
    from omegaconf import DictConfig


def look(cfg: DictConfig) -> None:
    """Look for the recording and the model's files, and for settings that do not go together."""
    from pathlib import Path

    from eventclip.config.inputs import check_clip, check_given
    from eventclip.inference.choices import check_choices, check_picture, check_recordings

    check_given(cfg, "recording", ": the file to show")
    check_picture(Path(cfg.out), top=cfg.top, gif_ms=cfg.gif_ms)
    if cfg.checkpoint is not None or cfg.classes is not None:
        check_choices(_plain(cfg))
    check_recordings([Path(cfg.recording).expanduser()])
    check_clip(cfg)


@entry("show", before=look)
def main(cfg: DictConfig) -> None:
    """Look at a recording, classify it if a model was asked for, and write the picture."""
    from pathlib import Path

    from eventclip.inference.notes import Notes
    from eventclip.inference.settings import build_looking, build_model
    from eventclip.plots.views import save_views

    settings = _plain(cfg)
    recording, sensor_hw, out = settings["recording"], settings["sensor_hw"], Path(settings["out"]).expanduser()
    found = None
    if settings["checkpoint"] is None and settings["classes"] is None:
        views = build_looking(settings).views(recording, sensor_hw)
    else:
        found = build_model(settings).classify(recording, sensor_hw=sensor_hw)
        views = found.views
    notes = Notes()
    notes.add(recording, *views.notes)
    notes.say()
    save_views(out, views, found, top=settings["top"], gif_ms=settings["gif_ms"])
    said = "" if found is None else f": {found.label} {found.probability:.0%}"
    print(f"{out}: {len(views)} view{'s' * (len(views) > 1)} of {recording}{said}")


def _plain(cfg: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))


if __name__ == "__main__":
    main()
