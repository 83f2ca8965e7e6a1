"""Recordings kept as tables by numpy (.npy and .npz) and as text.

The errors raised here are what follows the path in a sentence; :func:`eventclip.events.readers.read_events` adds it.
"""

from __future__ import annotations

import contextlib
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.events.columns import COLUMNS_WANTED, find_columns, read_table
from eventclip.events.npy import array_in, inflated, plain_array

NUMPY_DAMAGE = (
    EOFError,
    ValueError,
    KeyError,
    MemoryError,
    NotImplementedError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy lets through, besides OSError, where a file is damaged."""


def read_numpy(path: Path, *, time_unit: str | None, columns: str | None) -> tuple[Events, None]:
    """Read an (N, 4) or structured array from ``.npy``, or from ``.npz`` as in N-ImageNet.

    Args:
        path: the file; in an archive the array ``event_data`` is taken, else the only array, else four columns.
        time_unit: unit of time, None tells it.
        columns: order of the columns of an (N, 4) array, None is the EST release's "xytp".

    Returns:
        Events, and None for the sensor, which numpy files do not know.

    Raises:
        RecordingError: not such a file, truncated, pickled, or other columns.
    """
    try:
        with path.open("rb") as file:  # numpy leaves a damaged archive open
            table: NDArray[Any] | dict[str, NDArray[Any]] | None = plain_array(file)
            if table is None:
                file.seek(0)
                loaded = np.load(file, allow_pickle=False)
                table = loaded if isinstance(loaded, np.ndarray) else _from_archive(loaded.zip, file)
    except RecordingError:
        raise
    except NUMPY_DAMAGE as error:
        raise no_whole_numpy(path, error) from error
    return read_table(table, time_unit, columns), None


def read_text(path: Path, *, time_unit: str | None, columns: str | None) -> tuple[Events, None]:
    """Read one event per line, separated by commas, semicolons, tabs or spaces.

    Args:
        path: the file; a first line with names says what the columns are.
        time_unit: unit of time, None tells it.
        columns: order of the columns of a file without names, None tells it.

    Returns:
        Events, and None for the sensor, which text does not know.

    Raises:
        RecordingError: a line that is not numbers, or columns whose meaning cannot be told.
    """
    names, line, skip, delimiter = beginning_of(path)
    if not line:
        return np.empty(0, EVENT_DTYPE), None
    table = _numbers(path, line, skip, delimiter)
    if names is None:
        return read_table(table, time_unit, columns, guess_order=True), None
    if table.shape[1] != len(names):
        raise RecordingError(f"has {table.shape[1]} values on line {skip + 1}: expected {', '.join(names)}")
    return read_table(dict(zip(names, table.T, strict=True)), time_unit, columns), None


def no_whole_numpy(path: Path, error: Exception) -> RecordingError:
    """What to say where numpy stumbled over a damaged file."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return RecordingError(f"is no whole {path.suffix} file ({reason})")


def _from_archive(archive: zipfile.ZipFile, file: IO[bytes]) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """The events of an .npz: the array event_data, else the only array, else one array per column."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if "event_data" in names or len(names) == 1:
        return _member(archive, file, "event_data" if "event_data" in names else names[0])
    if len(find_columns(names)[0]) < 4:
        raise RecordingError(
            f"holds the arrays {', '.join(names)}: expected one called event_data, or {COLUMNS_WANTED}"
        )
    return {name: _member(archive, file, name) for name in names}


def _member(archive: zipfile.ZipFile, file: IO[bytes], name: str) -> NDArray[Any]:
    """One array of an .npz."""
    member = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
    data = inflated(file, member)
    return array_in(archive.read(member) if data is None else data)


def beginning_of(path: Path) -> tuple[list[str] | None, str, int, str | None]:
    """Names of the columns, the first line of numbers ("" if none), how many lines are before it, the delimiter."""
    names = None
    with path.open(encoding="utf-8") as file:
        for skip, line in enumerate(file):
            text = line.strip()
            delimiter = next((mark for mark in ",;\t" if mark in text), None)
            values = [value.strip() for value in text.lstrip("#% ").split(delimiter)]
            is_comment = not text or text[0] in "#%"
            if not is_comment and all(_is_number(value) for value in values):
                return names, line, skip, delimiter
            if names is None and len(find_columns(values)[0]) == 4:
                names = values
            elif not is_comment:
                raise RecordingError(
                    f"has {text[:60]!r} on line {skip + 1}: expected numbers, or names with {COLUMNS_WANTED}"
                )
    if names is None:
        raise RecordingError(f"has no line of numbers and no line of names: expected {COLUMNS_WANTED}")
    return names, "", 0, None


def _numbers(path: Path, line: str, skip: int, delimiter: str | None) -> NDArray[Any]:
    """All lines as numbers (N, columns): int64 where all are whole, so that large times keep their last digits."""
    if all_whole(line, delimiter):
        with contextlib.suppress(ValueError):
            return np.loadtxt(path, np.int64, delimiter=delimiter, skiprows=skip, ndmin=2, encoding="utf-8")
    try:
        return np.loadtxt(path, np.float64, delimiter=delimiter, skiprows=skip, ndmin=2, encoding="utf-8")
    except ValueError as error:
        raise no_numbers(skip + 1, error) from error


def all_whole(line: str, delimiter: str | None) -> bool:
    """Whether all values of a line are whole numbers."""
    return all(value.strip().lstrip("+-").isdigit() for value in line.split(delimiter))


def no_numbers(line: int, error: Exception) -> RecordingError:
    """What to say of text that is no table of numbers from a line on."""
    return RecordingError(f"is no table of numbers from line {line} on: {str(error).rstrip('.')}")


def _is_number(text: str) -> bool:
    """Whether a value of a line is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True
