"""Classify many recordings, or long ones, into a table and pictures."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eventclip.errors import RecordingError, UserError
from eventclip.files import whole_file
from eventclip.inference.api import EventCLIP
from eventclip.inference.rows import Table, recording_row, window_row
from eventclip.inference.timeline import Timeline

_WINDOW = ("window_events", "window_us", "step_events", "step_us")
_NOT_IN_STAMP = ("recordings", "out", "device", "batch_views", "progress", "timeline")


@dataclass(frozen=True)
class Done:
    """How a prediction went: recordings in the table, and the errors of those that have no prediction."""

    recordings: int
    errors: list[str]


def predict(model: EventCLIP, paths: Sequence[Path], settings: dict[str, Any]) -> Done:
    """Classify recordings as ``conf/predict.yaml`` says; one that cannot be read becomes a row with its error.

    Args:
        model: who classifies.
        paths: the recordings.
        settings: of ``conf/predict.yaml``, plain values.

    Raises:
        UserError: a wrong setting, told before anything is read.
    """
    window = {key: settings[key] for key in _WINDOW if settings[key] is not None}
    pictures = _pictures(settings["timeline"], paths, windows=bool(window))
    out = None if settings["out"] is None else Path(settings["out"]).expanduser()
    table = Table(out, top=settings["top"], windows=bool(window), stamp=_stamp(paths, settings))
    with table.writing():
        left = [path for path in paths if str(path) not in table.done]
        errors = [error for error in table.done.values() if error]
        if window:
            for path in left:
                errors += _predict_windows(model, path, table, settings, window, pictures.get(path))
        else:
            errors += _predict_whole(model, left, table, settings, done=len(paths) - len(left))
    return Done(len(paths), errors)


def _predict_whole(
    model: EventCLIP, paths: Sequence[Path], table: Table, settings: dict[str, Any], *, done: int
) -> list[str]:
    errors = []
    found = model.classify_each(paths, sensor_hw=settings["sensor_hw"])
    total = done + len(paths)
    bar = tqdm(found, "classifying", total, initial=done, unit="rec", disable=not settings["progress"])
    for path, result in zip(paths, bar, strict=True):
        table.add([recording_row(str(path), result, settings["top"])])
        if isinstance(result, RecordingError):
            errors.append(str(result))
    return errors


def _predict_windows(
    model: EventCLIP,
    path: Path,
    table: Table,
    settings: dict[str, Any],
    window: dict[str, int],
    picture: Path | None,
) -> list[str]:
    timeline = None if picture is None else Timeline(model.class_names)
    try:
        windows = model.classify_windows(path, sensor_hw=settings["sensor_hw"], progress=settings["progress"], **window)
        for number, found in enumerate(windows):
            table.add([window_row(str(path), number, found, settings["top"])])
            if timeline is not None:
                timeline.add(found)
    except RecordingError as error:
        table.add([recording_row(str(path), error, settings["top"])])
        return [str(error)]
    if timeline is not None and picture is not None:
        with whole_file(picture) as part:
            timeline.draw(path.name).savefig(part, format="png", dpi=80)
    return []


def _pictures(timeline: str | None, paths: Sequence[Path], *, windows: bool) -> dict[Path, Path]:
    """Where the timeline of each recording goes."""
    if timeline is None:
        return {}
    if not windows:
        raise UserError("timeline= shows windows: give window_us=100_000, window_events=20_000 or the like as well")
    place = Path(timeline).expanduser()
    if place.suffix.lower() == ".png":
        if len(paths) > 1:
            raise UserError(f"timeline={timeline} is one picture for {len(paths)} recordings: give a folder")
        return {paths[0]: place}
    if place.suffix:
        raise UserError(f"timeline={timeline} must end in .png, or be a folder")
    seen: Counter[str] = Counter()
    pictures = {}
    for path in paths:
        seen[path.stem] += 1
        again = "" if seen[path.stem] == 1 else f"-{seen[path.stem]}"
        pictures[path] = place / f"{path.stem}{again}.png"
    return pictures


def _stamp(paths: Sequence[Path], settings: dict[str, Any]) -> str:
    """Eight characters that change with anything that decides the rows."""
    decisive = {key: value for key, value in settings.items() if key not in _NOT_IN_STAMP}
    if settings["checkpoint"] is not None:
        content = Path(settings["checkpoint"]).expanduser().read_bytes()
        decisive["checkpoint"] = hashlib.sha256(content).hexdigest()
    decisive["paths"] = [str(path) for path in paths]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()[:8]
