"""Predictions as rows: what a row says, and a table that can be killed between any two of them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from eventclip.errors import RecordingError, UserError
from eventclip.files import whole_file
from eventclip.inference.api import WindowClassification
from eventclip.inference.result import Classification, Label

Row = dict[str, Any]

SUFFIXES = (".csv", ".jsonl")


def recording_row(name: str, found: Classification | RecordingError, top: int) -> Row:
    """What is known of a recording, as plain values; ``labels`` are the ``top`` most probable."""
    if isinstance(found, RecordingError):
        return {"recording": name, "error": str(found)}
    views = found.views
    return {
        "recording": name,
        "events": views.events,
        "sensor_hw": list(views.sensor_hw),
        "start_us": int(views.times_us[:, 0].min()),
        "end_us": int(views.times_us[:, 1].max()),
        "labels": _plain(found.top(top)),
        "views": [
            {"start_us": int(start), "end_us": int(end), "events": int(span[1] - span[0]), "labels": _plain(labels)}
            for (start, end), span, labels in zip(
                views.times_us, views.spans, (found.top(top, view=v) for v in range(len(views))), strict=True
            )
        ],
        "error": None,
    }


def window_row(name: str, number: int, window: WindowClassification, top: int) -> Row:
    """What is known of a window of a recording."""
    return {
        "recording": name,
        "window": number,
        "events": len(window.window.events),
        "start_us": window.window.start_us,
        "end_us": window.window.end_us,
        "labels": [] if window.found is None else _plain(window.found.top(top)),
        "error": None,
    }


def _plain(labels: Sequence[Label]) -> list[dict[str, Any]]:
    return [{"label": label.name, "probability": round(label.probability, 6)} for label in labels]


def csv_columns(top: int, *, windows: bool) -> list[str]:
    """Columns of a CSV: label and probability, label_2 and probability_2, and so on."""
    named = [f"{what}{'' if place == 1 else f'_{place}'}" for place in range(1, top + 1) for what in _PAIR]
    sensor = ["window"] if windows else ["sensor", "views"]
    return ["recording", *sensor, "events", "start_us", "end_us", *named, "error"]


_PAIR = ("label", "probability")


def csv_cells(row: Row) -> dict[str, Any]:
    """A row as flat cells."""
    cells = {key: row.get(key) for key in ("recording", "window", "events", "start_us", "end_us", "error")}
    if "sensor_hw" in row:
        cells |= {"sensor": "{}x{}".format(*row["sensor_hw"]), "views": len(row["views"])}
    for place, label in enumerate(row.get("labels", ()), start=1):
        cells |= {f"{what}{'' if place == 1 else f'_{place}'}": label[what] for what in _PAIR}
    return cells


class Table:
    """Rows in a file that gets its name once all are there, or on stdout.

    Until then they are in ``<name>.<stamp>.part`` beside it, each written at once. A table opened with the same stamp
    goes on with them.

    Args:
        out: a .csv or .jsonl; None is CSV on stdout.
        top: classes in a row.
        windows: whether a row is a window, so that those of the last recording may not be complete.
        stamp: changes with everything that decides the rows.

    Raises:
        UserError: another suffix, or a folder that cannot be written.
    """

    def __init__(self, out: Path | None, *, top: int, windows: bool, stamp: str) -> None:
        if top < 1:
            raise UserError(f"top must be 1 or more classes, got {top}")
        if out is not None and out.suffix.lower() not in SUFFIXES:
            raise UserError(f"out={out} must end in {' or '.join(SUFFIXES)}")
        self.out, self.windows = out, windows
        self.json = out is not None and out.suffix.lower() == ".jsonl"
        self.columns = csv_columns(top, windows=windows)
        self.done: dict[str, str | None] = {}
        """Recordings that are in the table already, and the error of each that has one."""
        self._file: TextIO = sys.stdout
        self._part = None if out is None else out.with_name(f"{out.name}.{stamp}.part")

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Take up what an interrupted run has left, let rows be added, and give the table its name at the end."""
        if self._part is None or self.out is None:
            self._write(self._header())
            yield
            return
        kept = list(self._kept()) if self._part.is_file() else []
        self.done = {row["recording"]: row["error"] or None for row in kept}
        try:
            with whole_file(self._part) as begun:
                begun.write_text(self._header() + "".join(map(self._line, kept)), encoding="utf-8")
            self._file = self._part.open("a", encoding="utf-8", newline="")
        except OSError as error:
            raise UserError(f"out={self.out} cannot be written: {error.strerror or error}") from error
        with self._file:
            yield
            self._file.flush()
            os.fsync(self._file.fileno())
        self._part.replace(self.out)

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows; they are handed to the system together."""
        self._write("".join(self._line(row if self.json else csv_cells(row)) for row in rows))

    def _header(self) -> str:
        return "" if self.json else ",".join(self.columns) + "\n"

    def _line(self, cells: Row) -> str:
        if self.json:
            return json.dumps(cells, ensure_ascii=False) + "\n"
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n", extrasaction="ignore").writerow(cells)
        return text.getvalue()

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def _kept(self) -> Iterator[Row]:
        """Whole rows of an interrupted run; of windows, those of the recording it was at are made again."""
        if self._part is None:
            return
        rows: list[Row]
        whole, _, _ = self._part.read_text(encoding="utf-8").rpartition("\n")
        if self.json:
            rows = [json.loads(line) for line in whole.split("\n") if line]
        else:
            rows = list(csv.DictReader(io.StringIO(whole + "\n", newline="")))
        last = rows[-1]["recording"] if rows and self.windows and not rows[-1]["error"] else None
        yield from (row for row in rows if row["recording"] != last)
