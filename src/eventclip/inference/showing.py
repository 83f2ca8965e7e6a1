"""What the command ``show`` does: a recording's views as CLIP gets them, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eventclip.inference.notes import Notes
from eventclip.inference.settings import build_looking, build_model
from eventclip.plots.views import save_views


def show(settings: dict[str, Any]) -> None:
    """Look at a recording, classify it if a model was asked for, write the picture, and say so.

    Args:
        settings: of ``conf/show.yaml``, as plain values.

    Raises:
        RecordingError: it cannot be read or classified.
        UserError: the model cannot be built, or the picture not be written.
    """
    recording, sensor_hw, out = settings["recording"], settings["sensor_hw"], Path(settings["out"]).expanduser()
    result = None
    if settings["checkpoint"] is None and settings["classes"] is None:
        views = build_looking(settings).views(recording, sensor_hw)
    else:
        result = build_model(settings).classify(recording, sensor_hw=sensor_hw)
        views = result.views
    notes = Notes()
    notes.add(recording, *views.notes)
    notes.say()
    save_views(out, views, result, top=settings["top"], gif_ms=settings["gif_ms"])
    label = "" if result is None else f": {result.label} {result.probability:.0%}"
    print(f"{out}: {len(views)} view{'s' * (len(views) > 1)} of {recording}{label}")
