"""One recording as a picture: its views, and what a model makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eventclip.inference.reading import Notes
from eventclip.inference.result import Classification, Label, RecordingViews
from eventclip.inference.settings import build_model, build_reader
from eventclip.plots.views import ShownView, save_views


def show(settings: dict[str, Any]) -> None:
    """Look at a recording, classify it if a model was asked for, write the picture, and say so.

    Args:
        settings: of ``conf/show.yaml``, plain values.

    Raises:
        UserError: a wrong setting, or a recording that cannot be read.
    """
    recording, sensor_hw, out = settings["recording"], settings["sensor_hw"], Path(settings["out"]).expanduser()
    found = None
    if settings["checkpoint"] is None and settings["classes"] is None:
        views = build_reader(settings).views(recording, sensor_hw)
    else:
        found = build_model(settings).classify(recording, sensor_hw=sensor_hw)
        views = found.views
    notes = Notes()
    notes.add(recording, *views.notes)
    notes.say()
    save_picture(out, views, found, top=settings["top"], gif_ms=settings["gif_ms"])
    label = "" if found is None else f": {found.label} {found.probability:.0%}"
    print(f"{out}: {len(views)} view{'s' * (len(views) > 1)} of {recording}{label}")


def save_picture(
    path: Path, views: RecordingViews, found: Classification | None, *, top: int = 3, gif_ms: int = 500
) -> None:
    """Write the views of a recording, each with its events, its times and its most probable classes.

    Args:
        path: .png, all views side by side; or .gif, one after the other.
        views: what to show.
        found: what the model says of them.
        top: classes under each view.
        gif_ms: time of each view in a GIF [ms].

    Raises:
        UserError: another suffix, or a number below 1.
    """
    cells = []
    times_ms = (views.times - views.times[0, 0]) / 1e3
    for number, ((first, past), (start, end)) in enumerate(zip(views.spans, times_ms, strict=True)):
        lines = [f"{past - first:,} events", f"{start:.1f} to {end:.1f} ms"]
        if found is not None:
            lines += map(_in_words, found.top(top, view=number))
        cells.append(ShownView(views.pixels[number], lines))
    height, width = views.sensor_hw
    facts = [
        Path(views.name).name,
        f"{views.events:,} events on {height}x{width} px",
        f"{len(views)} view{'s' * (len(views) > 1)} of at most {views.events_per_frame:,}",
    ]
    answer = None if found is None else ", ".join(map(_in_words, found.top(top)))
    save_views(path, cells, facts, answer=answer, gif_ms=gif_ms)


def _in_words(label: Label) -> str:
    return f"{label.name}  {100 * label.probability:.0f} %"
