"""Recordings as tables of x, y, t, p: NumPy's formats, whose unit of time and polarity coding must be understood."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.events.kernel import kernel

Column = NDArray[Any]
Table = dict[str, Column]

TIME_UNITS = {"s": 1_000_000.0, "ms": 1_000.0, "us": 1.0, "ns": 0.001}
"""Microseconds in a unit of time."""

_SPELLINGS = {
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "t": ("t", "ts", "timestamp", "timestamps", "time"),
    "p": ("p", "ps", "pol", "polarity", "polarities"),
}
_LONGEST_S = 10_000.0
_SHORTEST_US = 1_000.0


def read_npy(path: Path, time_unit: str | None) -> tuple[Events, None]:
    """Read a ``.npy``: float (N, 4) of x, y, t [s], p as in the EST release, or structured with those fields."""
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise RecordingError(f"{path} is no whole .npy file: {_first_line(error)}") from error
    return events_from_table(path, _table(path, array), time_unit), None


def read_npz(path: Path, time_unit: str | None) -> tuple[Events, None]:
    """Read a ``.npz``: the array ``event_data`` of N-ImageNet, or the only array there is."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            names = archive.files
            name = "event_data" if "event_data" in names else names[0] if len(names) == 1 else None
            if name is None:
                raise RecordingError(f"{path} holds the arrays {', '.join(names)}: expected one called event_data")
            array = archive[name]
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(f"{path} is no whole .npz file: {_first_line(error)}") from error
    return events_from_table(path, _table(path, array), time_unit), None


def events_from_table(path: Path, table: Table, time_unit: str | None) -> Events:
    """Turn columns x, y, t, p of any number type into events.

    Args:
        path: for messages.
        table: four columns of one length.
        time_unit: key of TIME_UNITS, or None to tell it: whole-number types are microseconds; floats with fractions
            that end before 10,000 are seconds; floats without, reaching 1,000, are microseconds.

    Raises:
        RecordingError: a value that is not finite, not whole where it must be or out of range, time running
            backwards, or a unit that cannot be told; names the row.
    """
    count = len(table["t"])
    events: Events = np.zeros(count, EVENT_DTYPE)
    if not _fill_places(table["x"], table["y"], table["p"], events["x"], events["y"], events["p"]):
        _tell_first_wrong(path, table)
    if count:
        events["t"] = _microseconds(path, table["t"], time_unit)
        backwards = np.flatnonzero(events["t"][1:] < events["t"][:-1])
        if len(backwards):
            row = int(backwards[0]) + 1
            raise RecordingError(
                f"{path} runs backwards in time at row {row} (t = {table['t'][row]} after {table['t'][row - 1]}): "
                f"expected events in order of time"
            )
    return events


@kernel
def _fill_places(
    x: Column,
    y: Column,
    p: Column,
    events_x: NDArray[np.int16],
    events_y: NDArray[np.int16],
    events_p: NDArray[np.uint8],
) -> bool:
    """Copy x, y and p in one pass; False at the first value that is none, or where 0 and -1 both stand for OFF."""
    zero, minus = False, False
    for i in range(len(x)):
        column, row, polarity = np.float64(x[i]), np.float64(y[i]), np.float64(p[i])
        if not (0.0 <= column <= 32767.0 and 0.0 <= row <= 32767.0 and -1.0 <= polarity <= 1.0):
            return False
        events_x[i], events_y[i], events_p[i] = np.int16(column), np.int16(row), polarity == 1.0
        zero |= polarity == 0.0
        minus |= polarity == -1.0
        fraction = polarity not in (-1.0, 0.0, 1.0)
        if fraction or np.float64(events_x[i]) != column or np.float64(events_y[i]) != row:
            return False
    return not (zero and minus)


def _tell_first_wrong(path: Path, table: Table) -> NoReturn:
    """Say what :func:`_fill_places` stumbled on."""
    for name in ("x", "y"):
        column = table[name]
        inside = (column >= 0) & (column <= 32767) & (np.mod(column, 1) == 0)
        _refuse(path, name, column, ~inside, "a whole number from 0 to 32767")
    column = table["p"]
    _refuse(path, "p", column, (column != 1) & (column != 0) & (column != -1), "1 for ON and 0 or -1 for OFF")
    raise RecordingError(f"{path} mixes the polarities 0 and -1: expected one of them for OFF, beside 1 for ON")


def _microseconds(path: Path, column: Column, time_unit: str | None) -> NDArray[np.int64]:
    _refuse(path, "t", column, ~np.isfinite(column), "a finite time")
    if column.dtype.kind in "iu":
        if time_unit in (None, "us"):
            return column.astype(np.int64)
        return np.rint(column * TIME_UNITS[time_unit]).astype(np.int64)
    if time_unit is None:
        time_unit = _told_unit(path, column)
    # float64, since float32 seconds have no exact microseconds and the product must not lose more of them
    return np.rint(column.astype(np.float64) * TIME_UNITS[time_unit]).astype(np.int64)


def _told_unit(path: Path, column: Column) -> str:
    last = float(np.abs(column).max())
    begin = column[:1000]  # most recordings show a fraction at once
    whole = bool((begin == np.rint(begin)).all()) and bool((column == np.rint(column)).all())
    if not whole and last < _LONGEST_S:
        return "s"
    if whole and last >= _SHORTEST_US:
        return "us"
    raise RecordingError(
        f"{path} has times up to {last:g} whose unit cannot be told: give time_unit='s', 'ms', 'us' or 'ns'"
    )


def _table(path: Path, array: Column) -> Table:
    expected = "expected an (N, 4) array of x, y, t, p or a structured one with those fields"
    if array.dtype.names:
        if array.ndim != 1:
            raise RecordingError(f"{path} holds a structured array of shape {array.shape}: {expected}")
        table = {}
        for name, spellings in _SPELLINGS.items():
            field = next((field for field in array.dtype.names if field.lower() in spellings), None)
            if field is None:
                fields = ", ".join(array.dtype.names)
                raise RecordingError(f"{path} has the fields {fields} and none for {name}: {expected}")
            table[name] = array[field]
    elif array.ndim == 2 and array.shape[1] == 4:
        table = {name: array[:, place] for place, name in enumerate(("x", "y", "t", "p"))}
    else:
        raise RecordingError(f"{path} holds an array of shape {array.shape} and type {array.dtype}: {expected}")
    for name, column in table.items():
        if column.dtype.kind not in "iufb" or column.ndim != 1:
            raise RecordingError(f"{path} has {name} of type {column.dtype}, expected numbers: {expected}")
    return table


def _refuse(path: Path, name: str, column: Column, wrong: NDArray[np.bool_], expected: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        raise RecordingError(f"{path} has {name} = {column[row]} at row {row}: expected {expected}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
