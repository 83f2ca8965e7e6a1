"""Predictions as rows: what a row says, and a table that can be killed between any two of them.

A row has labels, or an error that says why it has none: what is wrong with the recording, or "no events" in a window of
time, or many in a row, in which nothing happened.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eventclip.errors import UserError
from eventclip.files import NAMES, held, whole_file

Row = dict[str, Any]

SUFFIXES = (".csv", ".jsonl")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def label_columns(top: int) -> list[str]:
    """Headings of the most probable classes: label, probability, label_2, probability_2, and so on."""
    return [f"{what}{_place(place)}" for place in range(1, top + 1) for what in ("label", "probability")]


def label_cells(labels: Iterable[Mapping[str, Any]]) -> Row:
    """Cells of the most probable classes, each with its "label" and its "probability"."""
    return {
        f"{what}{_place(place)}": label[what]
        for place, label in enumerate(labels, start=1)
        for what in ("label", "probability")
    }


def _place(place: int) -> str:
    return "" if place == 1 else f"_{place}"


def csv_line(columns: Sequence[str], cells: Row) -> str:
    """A row of CSV with its end; what is not in ``columns`` is left out."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore")
    if any("\r" in str(cell) for cell in cells.values()):
        # It ends a row for every reader, but is none of the signs that make the writer quote a cell.
        table = csv.DictWriter(text, columns, lineterminator="\n", extrasaction="ignore", quoting=csv.QUOTE_ALL)
    table.writerow(cells)
    return text.getvalue()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write a whole table, which gets its name once all rows are there; names that are no UTF-8 keep their bytes.

    Raises:
        UserError: it cannot be written.
    """
    text = ",".join(columns) + "\n" + "".join(csv_line(columns, row) for row in rows)
    with whole_file(path) as part:
        part.write_bytes(text.encode("utf-8", NAMES))


def prediction_columns(top: int, *, windows: bool) -> list[str]:
    """Headings of the table that ``predict`` writes."""
    sensor = ["window"] if windows else ["sensor", "views"]
    return ["recording", *sensor, "events", "start_us", "end_us", *label_columns(top), "error"]


def prediction_cells(row: Row) -> Row:
    """A row of ``predict`` as flat cells."""
    cells = {key: row.get(key) for key in ("recording", "window", "events", "start_us", "end_us", "error")}
    if "sensor_hw" in row:
        cells |= {"sensor": "{}x{}".format(*row["sensor_hw"]), "views": len(row["views"])}
    return cells | label_cells(row.get("labels", ()))


class Table:
    """Rows in a file that gets its name once all are there, or on stdout.

    Until then they are in ``<name>.<stamp>.part`` beside it, each written at once. A table opened with the same stamp
    goes on with them. Names that are no UTF-8 keep their bytes in CSV, and are escaped in JSON.

    Args:
        out: a .csv or .jsonl; None is CSV on stdout.
        top: classes in a row.
        windows: whether a row is a window, so that those of the last recording may not be complete.
        stamp: changes with everything that decides the rows.

    Raises:
        UserError: another suffix.
    """

    def __init__(self, out: Path | None, *, top: int, windows: bool, stamp: str) -> None:
        if top < 1:
            raise UserError(f"top must be 1 or more classes, got {top}")
        if out is not None and out.suffix.lower() not in SUFFIXES:
            raise UserError(f"out={out} must end in {' or '.join(SUFFIXES)}")
        self.out, self.windows = out, windows
        self.json = out is not None and out.suffix.lower() == ".jsonl"
        self.columns = prediction_columns(top, windows=windows)
        self.done: dict[str, str | None] = {}
        """Recordings that are in the table already, and the error of each that has no prediction."""
        self._part = None if out is None else out.with_name(f"{out.name}.{stamp}.part")
        self._descriptor: int | None = None

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Take up what an interrupted run has left, let rows be added, and give the table its name at the end.

        Raises:
            UserError: another process is writing it, or it cannot be written.
        """
        if self._part is None or self.out is None:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8", errors=NAMES)
            self._write(self._header())
            yield
            return
        with contextlib.ExitStack() as open_files:
            with self._told():
                open_files.enter_context(held(self.out))
                kept = list(self._kept())
                self.done = {row["recording"]: (None if _is_window(row) else row["error"] or None) for row in kept}
                with whole_file(self._part) as begun:
                    begun.write_bytes(self._encoded(self._header() + "".join(map(self._line, kept))))
                self._descriptor = os.open(self._part, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                open_files.callback(os.close, self._descriptor)
            yield
            with self._told():
                os.fsync(self._descriptor)
                self._part.replace(self.out)

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows; they are handed to the system together.

        Raises:
            UserError: the disk is full, or the like.
        """
        self._write("".join(self._line(row if self.json else prediction_cells(row)) for row in rows))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """What the system has against the table, as a sentence."""
        try:
            yield
        except OSError as error:
            place = "the table on stdout" if self.out is None else f"out={self.out}"
            further = "give another out="
            if error.errno in _NO_ROOM:
                begun = self._part is not None and self._part.exists()
                further = f"make room and give the same command again{', which goes on where it stopped' * begun}"
            raise UserError(f"{place} cannot be written ({error.strerror or error}): {further}") from error

    def _header(self) -> str:
        return "" if self.json else ",".join(self.columns) + "\n"

    def _line(self, cells: Row) -> str:
        if self.json:
            return json.dumps(cells, ensure_ascii=False, allow_nan=False) + "\n"
        return csv_line(self.columns, cells)

    def _encoded(self, text: str) -> bytes:
        return text.encode("utf-8", "backslashreplace" if self.json else NAMES)  # the former is JSON's own escape

    def _write(self, text: str) -> None:
        with self._told():
            if self._descriptor is None:
                sys.stdout.write(text)
                sys.stdout.flush()
                return
            left = memoryview(self._encoded(text))
            while left:
                left = left[os.write(self._descriptor, left) :]

    def _kept(self) -> Iterator[Row]:
        """Whole rows of an interrupted run; of windows, those of the recording it was at are made again."""
        if self._part is None or not self._part.is_file():
            return
        whole, _, _ = self._part.read_bytes().rpartition(b"\n")
        rows = list(self._parsed(whole.decode("utf-8", NAMES)))
        last = rows[-1]["recording"] if rows and _is_window(rows[-1]) else None
        yield from (row for row in rows if row["recording"] != last)

    def _parsed(self, text: str) -> Iterator[Row]:
        """The rows of a text, up to the first that is torn: a name may have a line's end in it, and a disk be full."""
        try:
            if self.json:
                for line in filter(None, text.split("\n")):
                    row = json.loads(line)
                    if not isinstance(row, dict) or not {"recording", "error"} <= set(row):
                        return
                    self._line(row)  # no NaN, which JSON does not have
                    yield row
                return
            table = csv.reader(io.StringIO(text, newline=""), strict=True)
            if next(table, None) != self.columns:
                return
            for cells in table:
                if len(cells) != len(self.columns):
                    return
                yield dict(zip(self.columns, cells, strict=True))
        except (ValueError, RecursionError, csv.Error):
            return


def _is_window(row: Mapping[str, Any]) -> bool:
    """Whether a row is a window's, and not the last word on its recording."""
    return row.get("window") not in (None, "")
