"""Classify many recordings, or long ones, into a table and pictures."""

from __future__ import annotations

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventclip.errors import RecordingError, UserError, printable
from eventclip.events.windows import SlidingWindow
from eventclip.files import fingerprint
from eventclip.inference.listing import Found, find_recordings
from eventclip.inference.reading import Notes
from eventclip.inference.result import Classification, Label, WindowClassification
from eventclip.prediction_table import Row, Table
from eventclip.progress import tqdm

if TYPE_CHECKING:  # a wrong setting is told before torch is there
    from eventclip.inference.api import EventCLIP

_WINDOW = ("window_events", "window_us", "step_events", "step_us")
_NOT_IN_STAMP = ("recordings", "out", "device", "batch_views", "progress")
_TEXT = (".csv", ".txt")

NO_EVENTS = "no events"
"""The error of a window of time, or of many in a row, in which nothing happened."""


def predict(settings: dict[str, Any]) -> None:
    """Find the recordings, build the model, and classify.

    Args:
        settings: of ``conf/predict.yaml``, plain values.

    Raises:
        UserError: a wrong setting, or recordings that could not be classified: how many, and the first one's error.
    """
    found = find_recordings(settings["recordings"], out=settings["out"])
    prediction = Prediction(found, settings)
    from eventclip.inference.settings import build_model

    errors = prediction.make(build_model(settings))
    if settings["out"] is not None:
        count = len(found.paths)
        print(printable(f"eventclip: {settings['out']}: {count} recording{'s' * (count > 1)}"), file=sys.stderr)
    if errors:
        raise UserError(f"{len(errors)} of {len(found.paths)} recordings could not be classified: {errors[0]}")


class Prediction:
    """What ``conf/predict.yaml`` asks for; a recording that cannot be read becomes a row with its error.

    Args:
        found: the recordings.
        settings: of ``conf/predict.yaml``, plain values.

    Raises:
        UserError: a wrong setting, told before anything is loaded or read.
    """

    def __init__(self, found: Found, settings: dict[str, Any]) -> None:
        self.found, self.settings, self.top = found, settings, settings["top"]
        self.window: dict[str, Any] = {key: settings[key] for key in _WINDOW if settings[key] is not None}
        if self.window:
            SlidingWindow(**{key.removeprefix("window_"): value for key, value in self.window.items()})
        self._pictures = _pictures(settings["timeline"], found.paths, windows=bool(self.window))
        out = None if settings["out"] is None else Path(str(settings["out"])).expanduser()
        stamp = _stamp(found.paths, settings)
        self._table = Table(out, top=self.top, windows=bool(self.window), stamp=stamp)
        self._notes = Notes()
        for path in found.left_out:
            self._notes.add(str(path), "a table that eventclip wrote, which is no recording, was left out")

    def make(self, model: EventCLIP) -> list[str]:
        """Classify what is not in the table yet.

        Returns:
            The errors of the recordings that have no prediction.

        Raises:
            UserError: the table or a picture cannot be written.
        """
        table, paths = self._table, self.found.paths
        try:
            with table.writing():
                left = [path for path in paths if str(path) not in table.done]
                errors = [error for error in table.done.values() if error]
                if self.window:
                    for path in left:
                        errors += self._windows(model, path)
                else:
                    errors += self._whole(model, left)
        finally:
            self._notes.say()
        return errors

    def _whole(self, model: EventCLIP, paths: Sequence[Path]) -> list[str]:
        errors = []
        results = model.classify_each(paths, sensor_hw=self.settings["sensor_hw"])
        total, done = len(self.found.paths), len(self.found.paths) - len(paths)
        bar = tqdm(results, "classifying", total, initial=done, unit="rec", disable=not self.settings["progress"])
        for path, result in zip(paths, bar, strict=True):
            if isinstance(result, RecordingError):
                errors.append(self._add_error(path, result))
            else:
                self._table.add([recording_row(str(path), result, self.top)])
                self._notes.add(str(path), *result.views.notes)
        return errors

    def _windows(self, model: EventCLIP, path: Path) -> list[str]:
        from eventclip.plots.style import save_figure
        from eventclip.plots.timeline import Timeline

        picture = self._pictures.get(path)
        timeline = None if picture is None else Timeline(model.class_names)
        window = self.window | {"sensor_hw": self.settings["sensor_hw"], "progress": self.settings["progress"]}
        try:
            for number, found in enumerate(model.classify_windows(path, **window)):
                self._table.add([window_row(str(path), number, found, self.top)])
                self._notes.add(str(path), *found.notes)
                if timeline is not None:
                    seen = found.found
                    timeline.add(
                        found.window.start_us,
                        found.window.end_us,
                        len(found.window.events),
                        None if seen is None else seen.probabilities,
                        None if seen is None else seen.views.pixels[len(seen.views) // 2],
                        int(found.window.events["t"][-1]) if len(found.window.events) else None,
                    )
        except RecordingError as error:
            return [self._add_error(path, error)]
        if timeline is not None and picture is not None:
            save_figure(picture, timeline.draw(path.name))
        return []

    def _add_error(self, path: Path, error: RecordingError) -> str:
        """Make a row of an error, and say what to do of text that nobody named."""
        told = str(error)
        if path in self.found.nobody_named and path.suffix.lower() in _TEXT:
            others = [one.suffix for one in self.found.paths if one.parent == path.parent and one.suffix != path.suffix]
            instead = f", such as 'recordings={path.parent / f'*{others[0]}'}'" if others else ""
            told += f" (if this is no recording, name the recordings or give a glob instead of the folder{instead})"
        self._table.add([recording_row(str(path), RecordingError(told), self.top)])
        return told


def _pictures(timeline: str | None, paths: Sequence[Path], *, windows: bool) -> dict[Path, Path]:
    """Where the timeline of each recording goes."""
    if timeline is None:
        return {}
    if not windows:
        raise UserError("timeline= shows windows: give window_us=100_000, window_events=20_000 or the like as well")
    place = Path(str(timeline)).expanduser()
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
        decisive["checkpoint"] = _checksum(Path(str(settings["checkpoint"])).expanduser())
    decisive["paths"] = [os.fsencode(path).hex() for path in paths]
    return fingerprint(decisive, length=8)


def _checksum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = f"there is no checkpoint {path}" if missing else f"{path} cannot be read ({error.strerror or error})"
        raise UserError(f"{reason}: give the path of a .ckpt file that eventclip.train wrote") from error


def recording_row(name: str, found: Classification | RecordingError, top: int) -> Row:
    """What is known of a recording, as plain values; ``labels`` are the ``top`` most probable."""
    if isinstance(found, RecordingError):
        return {"recording": name, "error": str(found)}
    views = found.views
    return {
        "recording": name,
        "events": views.events,
        "sensor_hw": list(views.sensor_hw),
        "start_us": int(views.times[:, 0].min()),
        "end_us": int(views.times[:, 1].max()),
        "labels": _plain(found.top(top)),
        "views": [
            {"start_us": int(start), "end_us": int(end), "events": int(span[1] - span[0]), "labels": _plain(labels)}
            for (start, end), span, labels in zip(
                views.times, views.spans, (found.top(top, view=v) for v in range(len(views))), strict=True
            )
        ],
        "notes": list(views.notes),
        "error": None,
    }


def window_row(name: str, number: int, window: WindowClassification, top: int) -> Row:
    """What is known of a window of a recording, or of all windows in a row without events."""
    return {
        "recording": name,
        "window": number,
        "events": len(window.window.events),
        "start_us": window.window.start_us,
        "end_us": window.window.end_us,
        "labels": [] if window.found is None else _plain(window.found.top(top)),
        "notes": list(window.notes),
        "error": NO_EVENTS if window.found is None else None,
    }


def _plain(labels: Sequence[Label]) -> list[dict[str, Any]]:
    return [{"label": label.name, "probability": round(label.probability, 6)} for label in labels]
