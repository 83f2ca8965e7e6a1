"""Recordings as text: one event a line, separated by commas, semicolons, tabs or spaces, as many programs write it.

Byte order marks, quotes, True and False, commas at the ends of lines, decimal commas and gzip are read for what they
mean. Errors are what follows the path in a sentence; :func:`eventclip.io.formats.open_stream` adds it.
"""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.io.columns import Piece, Table, table_in_memory
from eventclip.io.formats import DamageError, Opened, ReadOptions
from eventclip.io.limits import refuse_bomb
from eventclip.io.names import COLUMNS_WANTED, find_columns, missing_in, read_name

_GZIP = b"\x1f\x8b"
_MARKS = (  # longest first
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LONGEST_LINE = 1 << 16
_COMMENTS = ("#", "%", "//")
_WORDS = {"true": "1", "false": "0", "on": "1", "off": "0"}
_WIDTH, _HEIGHT = re.compile(r"\bwidth\W{0,4}(\d{1,5})\b"), re.compile(r"\bheight\W{0,4}(\d{1,5})\b")
_SIZE = re.compile(r"\b(?:geometry|resolution|sensor(?:[_ ]size)?)\W{0,4}(\d{1,5})\s*[x*]\s*(\d{1,5})\b")


@dataclass
class _Beginning:
    """What the lines before the first event tell.

    Attributes:
        encoding: of the text.
        names: of the columns, None where there are none.
        values: those of the first event, empty where there is none.
        skip: lines before it.
        delimiter: between values; None is spaces.
        width: of the sensor, where a comment, a name or E2VID's first line tells it.
        height: of the sensor.
        sized: line that is E2VID's.
    """

    encoding: str
    names: list[str] | None = None
    values: tuple[str, ...] = ()
    skip: int = 0
    delimiter: str | None = None
    width: int | None = None
    height: int | None = None
    sized: int | None = None

    @property
    def sensor_hw(self) -> tuple[int, int] | None:
        """Height and width of the sensor [px] where both are told."""
        return (self.height, self.width) if self.height and self.width else None

    def take_comment(self, text: str) -> None:
        """Take the size of the sensor from "width 240 height 180", "geometry: 240x180" and the like."""
        size, width, height = _SIZE.search(text), _WIDTH.search(text), _HEIGHT.search(text)
        if size is not None:
            self.width, self.height = int(size[1]), int(size[2])
        self.width = self.width if width is None else int(width[1])
        self.height = self.height if height is None else int(height[1])

    def take_names(self, names: list[str]) -> bool:
        """Take the names of the columns, if these are names and the first ones; faery's tell the sensor, too."""
        if self.names is not None or missing_in(find_columns(names)[0]):
            return False
        self.names = names
        for read in map(read_name, names):
            if read is not None and read.size and read.letter == "x":
                self.width = read.size
            elif read is not None and read.size and read.letter == "y":
                self.height = read.size
        return True

    def take_size(self, values: list[str], line: int) -> bool:
        """Take rpg_e2vid's first line, width and height, if this is it."""
        if self.names is not None or self.sized is not None or len(values) != 2:
            return False
        if not all(value.isdecimal() for value in values):
            return False
        self.width, self.height, self.sized = int(values[0]), int(values[1]), line
        return True

    def take_values(self, values: list[str], *, quoted: bool) -> None:
        """Take the first event, and refuse it where it does not fit what has been told before."""
        self.values = tuple(values)
        if self.names is not None and quoted and len(values) == len(self.names) + 1:
            self.names = ["", *self.names]  # R numbers the rows and does not name the numbers
        if self.sized is not None and len(values) < 3:
            raise RecordingError(f"has 2 values on line {self.sized}: expected numbers for {COLUMNS_WANTED}")
        if self.names is not None and len(values) != len(self.names):
            raise RecordingError(f"has {len(values)} values on line {self.skip + 1}: expected {', '.join(self.names)}")


def open_csv(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    """Open text to be read in pieces of lines.

    A first pass tells how many events there are, and what their columns mean where no names do.

    Raises:
        RecordingError: a line that is not numbers, or columns whose meaning cannot be told.
    """
    _refuse_packed(path, options.largest_bytes)
    beginning = _beginning(path)
    if not beginning.values:
        columns = {name: np.empty(0, np.int64) for name in beginning.names or ()}
        return table_in_memory(columns, chunk_events).opened(options, sensor_hw=beginning.sensor_hw, total=0)
    kind = np.float64 if _has_fractions(path, beginning) else np.int64
    table = Table(lambda: _pieces(path, beginning, kind, chunk_events), guess_order=True)
    if path.stat().st_size <= 8 * chunk_events:  # no event is shorter
        whole = _at_once(path, beginning, kind)
        table = table if whole is None else table_in_memory(whole, chunk_events, guess_order=True)
    return table.opened(options, sensor_hw=beginning.sensor_hw)


def _opened(path: Path, encoding: str) -> TextIO:
    """Open text, unpacked where it is packed. What is in no known encoding can only be in comments, or is no number."""
    raw = path.open("rb") if _is_plain(path) else gzip.open(path)  # noqa: SIM115  (closed with the text)
    return io.TextIOWrapper(cast("BinaryIO", raw), encoding, errors="replace")


def _encoding(path: Path) -> str:
    """The encoding that a byte order mark tells, else UTF-8, or UTF-16 where every second byte is zero."""
    with _opened(path, "latin1") as file:
        start = file.buffer.read(4)
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    if len(start) == 4 and start[1] == start[3] == 0 and start[0]:
        return "utf-16-le"
    return "utf-16-be" if len(start) == 4 and start[0] == start[2] == 0 and start[1] else "utf-8"


def _lines(file: TextIO) -> Iterator[str]:
    """Lines of a file, none so long that it fills the memory."""
    return iter(partial(file.readline, _LONGEST_LINE), "")


def _beginning(path: Path) -> _Beginning:
    """Read up to the first line of numbers."""
    told = _Beginning(_encoding(path))
    with _opened(path, told.encoding) as file:
        for number, line in enumerate(_lines(file), start=1):
            _refuse_long(line, number)
            text = line.strip()
            is_comment = not text or text.startswith(_COMMENTS)
            if is_comment:
                text = text.lstrip("#%/ \t")
                told.take_comment(text.lower())
            else:
                text = _without_comment(text)
            delimiter = _delimiter(text)
            values = _values(text, delimiter)
            if not is_comment and values and all(map(_is_number, values)):
                if told.take_size(values, number):
                    continue
                told.skip, told.delimiter = number - 1, delimiter
                told.take_values(values, quoted=text.startswith('"'))
                return told
            names = _values(re.sub(r"\s+(?=[\[(])", "", text), None) if delimiter is None else values
            if not told.take_names(names) and not is_comment:
                raise RecordingError(
                    f"has {text[:60]!r} on line {number}: expected numbers, or names with {COLUMNS_WANTED}"
                )
    if told.names is None:
        raise RecordingError(f"has no line of numbers and no line of names: expected {COLUMNS_WANTED}")
    return told


def _without_comment(line: str) -> str:
    for mark in _COMMENTS:
        line = line.split(mark, 1)[0]
    return line


def _delimiter(text: str) -> str | None:
    """What separates at least four values, else what separates any."""
    marks = [mark for mark in ";\t," if mark in text]
    for mark in (*marks, None):
        if len(_values(text, mark)) >= 4:
            return mark
    return marks[0] if marks else None


def _values(text: str, delimiter: str | None) -> list[str]:
    """Values of a line in plain writing: without quotes and what follows the last, True and False as 1 and 0."""
    values = [value.strip().strip("\"'").strip() for value in text.split(delimiter)]
    while values and not values[-1]:
        values.pop()
    if any(value[:1].isdigit() for value in values):  # "on" is a name, too
        values = [_WORDS.get(value.lower(), value) for value in values]
    return [value.replace(",", ".") for value in values] if delimiter != "," else values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text  # Python's own writing


def _refuse_long(line: str, number: int) -> None:
    if len(line) == _LONGEST_LINE:
        raise RecordingError(f"has a line {number} of {_LONGEST_LINE:,} characters or more: expected an event a line")


def _has_fractions(path: Path, beginning: _Beginning) -> bool:
    """Whether a number is written with a fraction or an exponent, or is none: whole ones keep all of their digits."""
    point = "." if beginning.delimiter == "," else ".,"
    marks = re.compile(rf"\d[{point}eE]|[{point}]\d|nan|inf", re.IGNORECASE)
    with _opened(path, beginning.encoding) as file:
        for _ in range(beginning.skip):
            file.readline()
        rest = ""
        while block := file.read(1 << 20):
            if any(mark in block for mark in point + "eEnN") and marks.search(rest + block):
                return True
            rest = block[-2:]
    return False


def _at_once(path: Path, beginning: _Beginning, kind: type) -> Piece | None:
    """All numbers of a small and plain file the quick way; None where something has to be looked at."""
    if path.suffix.lower() not in {".csv", ".txt"} or not _is_plain(path):
        return None
    try:
        numbers: NDArray[Any] = np.loadtxt(
            path, kind, delimiter=beginning.delimiter, skiprows=beginning.skip, ndmin=2, encoding=beginning.encoding
        )
    except ValueError:
        return None
    return _piece(numbers, beginning) if numbers.shape[1] == len(beginning.values) else None


def _is_plain(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) != _GZIP


def _piece(numbers: NDArray[Any], beginning: _Beginning) -> Piece:
    return numbers if beginning.names is None else dict(zip(beginning.names, numbers.T, strict=True))


def _pieces(path: Path, beginning: _Beginning, kind: type, size: int) -> Iterator[Piece]:
    """Read text in pieces of lines; lines before the first that is no event, and then the refusal."""
    empty, read = True, beginning.skip
    with _opened(path, beginning.encoding) as file:
        for _ in range(beginning.skip):
            file.readline()
        lines = _lines(file)
        while piece := list(itertools.islice(lines, size)):
            numbers, refusal = _numbers(piece, beginning, kind, read)
            read += len(piece)
            if len(numbers) or (refusal is not None and empty):
                empty = False
                yield _piece(numbers, beginning)
            if refusal is not None:
                raise refusal


def _numbers(
    lines: list[str], beginning: _Beginning, kind: type, before: int
) -> tuple[NDArray[Any], DamageError | None]:
    """Lines as numbers (n, columns), and what is wrong with the first line that is none, before which they end."""
    width, delimiter = len(beginning.values), beginning.delimiter
    if any(not line.isspace() and not line.lstrip().startswith("#") for line in lines):
        try:
            numbers: NDArray[Any] = np.loadtxt(lines, kind, delimiter=delimiter, ndmin=2)
        except ValueError:
            pass  # each line is looked at
        else:
            if numbers.shape[1] == width:
                return numbers, None
    rows: list[list[str]] = []
    refusal = None
    for number, line in enumerate(lines, start=before + 1):
        values = _values(_without_comment(line), delimiter)
        wrong = f"line {number} has {_LONGEST_LINE:,} characters or more" if len(line) == _LONGEST_LINE else None
        wrong = wrong or _wrong_with(values, width, kind, number)
        if wrong is not None:
            refusal = DamageError(f"is no table of numbers from line {beginning.skip + 1} on: {wrong}")
            break
        if values:
            rows.append(values)
    if not rows:
        return np.empty((0, width), kind), refusal
    return np.array([[kind(value) for value in row] for row in rows], kind), refusal


def _wrong_with(values: list[str], width: int, kind: type, number: int) -> str | None:
    """Why the values of a line are no event; None where they are, or where there are none."""
    if values and len(values) != width:
        return f"the number of values changed from {width} to {len(values)} on line {number}"
    odd = next((value for value in values if not _is_number(value)), None)
    if odd is not None:
        return f"{odd[:40]!r} on line {number} is no number"
    if kind is np.int64 and any(not -(1 << 63) <= int(value) < 1 << 63 for value in values):
        return f"a value on line {number} does not fit 64 bits"
    return None


def _refuse_packed(path: Path, largest: int) -> None:
    """Refuse a gzip that unpacks to more than is allowed, or than text of events does."""
    if _is_plain(path):
        return
    stored, unpacked = path.stat().st_size, 0
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 20):
                unpacked += len(block)
                refuse_bomb(unpacked, stored, largest)
    except (OSError, EOFError, zlib.error) as error:
        raise DamageError(f"is no whole gzip file ({error})") from error
