"""Tables of events read in pieces; each function gives the pieces, the sensor and the number of events.

What a whole table tells about itself, the unit of its times or the order of its columns, takes a first pass over it.
The errors raised here are what follows the path in a sentence; :func:`eventclip.events.streams.read_chunks` adds it.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.events.array import Events
from eventclip.events.columns import EST_ORDER, find_columns, fitting_orders, read_table, settle_order, tell_unit
from eventclip.events.hdf5 import HDF5_DAMAGE, event_table
from eventclip.events.tables import NUMPY_DAMAGE, all_whole, beginning_of, no_numbers, no_whole_numpy

Piece = NDArray[Any] | Mapping[str, NDArray[Any]]
Read = Callable[[], Iterator[Piece]]
"""Begins to read the table from its start."""
Opened = tuple[Iterator[Events], tuple[int, int] | None, int | None]


def stream_npy(path: Path, chunk_events: int, *, time_unit: str | None, columns: str | None) -> Opened:
    """Read a ``.npy`` in pieces. Not through a memory map, whose pages would count as memory of this process."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except NUMPY_DAMAGE as error:
        raise no_whole_numpy(path, error) from error
    if not isinstance(mapped, np.memmap):
        raise no_whole_numpy(path, ValueError("an archive with another name"))
    shape, kind, offset = mapped.shape, mapped.dtype, mapped.offset
    by_columns = mapped.flags.f_contiguous and not mapped.flags.c_contiguous
    width = 1 if len(shape) < 2 else shape[1]
    del mapped
    rows = shape[0] if shape else 0

    def read() -> Iterator[Piece]:
        if len(shape) not in {1, 2} or not rows:
            yield np.empty(shape, kind)
            return
        for start in range(0, rows, chunk_events):
            count = min(chunk_events, rows - start)
            if by_columns:
                places = [offset + (column * rows + start) * kind.itemsize for column in range(width)]
                yield np.stack([np.fromfile(path, kind, count, offset=place) for place in places], axis=1)
            else:
                place = offset + start * width * kind.itemsize
                yield np.fromfile(path, kind, count * width, offset=place).reshape(count, *shape[1:])

    return _events(read, time_unit, columns), None, rows


def stream_hdf5(path: Path, chunk_events: int, *, time_unit: str | None, columns: str | None) -> Opened:
    """Read the one table of events of an HDF5 file in pieces."""
    try:
        with h5py.File(path, "r") as file:
            table, sensor_hw = event_table(file)
            rows = min(len(item) for item in table.values()) if isinstance(table, dict) else len(table)
            longest = max(len(item) for item in table.values()) if isinstance(table, dict) else rows
    except HDF5_DAMAGE as error:
        raise RecordingError(f"is no whole HDF5 file ({error})") from error
    if rows != longest:
        raise RecordingError(f"has columns of {rows} and of {longest} events: expected equally long ones")

    def read() -> Iterator[Piece]:
        try:
            with h5py.File(path, "r") as file:
                table, _ = event_table(file)
                for start in range(0, max(rows, 1), chunk_events):
                    part = slice(start, start + chunk_events)
                    yield {n: item[part] for n, item in table.items()} if isinstance(table, dict) else table[part]
        except HDF5_DAMAGE as error:
            raise RecordingError(f"is no whole HDF5 file ({error})") from error

    return _events(read, time_unit, columns), sensor_hw, rows


def stream_text(path: Path, chunk_events: int, *, time_unit: str | None, columns: str | None) -> Opened:
    """Read text in pieces of lines; a first pass tells whether all of it is whole numbers, and what they mean."""
    names, line, skip, delimiter = beginning_of(path)
    if not line:
        return iter(()), None, 0

    def reading(kind: type) -> Read:
        return lambda: _text_pieces(path, kind, names, skip, delimiter, chunk_events)

    read = reading(np.int64 if all_whole(line, delimiter) else np.float64)
    try:
        rows, order = _survey_text(read, named=names is not None, columns=columns)
    except RecordingError:
        if not all_whole(line, delimiter):
            raise
        read = reading(np.float64)  # whole in its first line only
        rows, order = _survey_text(read, named=names is not None, columns=columns)
    return _events(read, time_unit, order), None, rows


def _survey_text(read: Read, *, named: bool, columns: str | None) -> tuple[int, str | None]:
    """Number of rows, and the order of columns that have no names."""
    rows, fitting = 0, {EST_ORDER, "txyp"}
    for piece in read():
        rows += len(next(iter(piece.values()))) if isinstance(piece, Mapping) else len(piece)
        if not named and columns is None and isinstance(piece, np.ndarray) and piece.shape[1:] == (4,):
            fitting &= fitting_orders(piece)
    return rows, columns if named or columns else settle_order(fitting)


def _text_pieces(
    path: Path, kind: type, names: list[str] | None, skip: int, delimiter: str | None, size: int
) -> Iterator[Piece]:
    with path.open(encoding="utf-8") as file:
        read = sum(1 for _ in itertools.islice(file, skip))
        while lines := list(itertools.islice(file, size)):
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", message=".*input contained no data.*")
                    table: NDArray[Any] = np.loadtxt(lines, kind, delimiter=delimiter, ndmin=2)
            except ValueError as error:
                raise no_numbers(read + 1, error) from error
            read += len(lines)
            if not table.size:
                continue
            if names is not None and table.shape[1] != len(names):
                raise RecordingError(f"has {table.shape[1]} values on line {skip + 1}: expected {', '.join(names)}")
            yield table if names is None else dict(zip(names, table.T, strict=True))


def _events(read: Read, time_unit: str | None, order: str | None) -> Iterator[Events]:
    unit = time_unit or _told_unit(read, order)
    return (read_table(piece, unit, order) for piece in read())


def _told_unit(read: Read, order: str | None) -> str | None:
    """The unit of times with fractions, which all of them decide; None where names or whole numbers tell it."""
    first, last, whole = np.inf, -np.inf, True
    for piece in read():
        names = list(piece.dtype.names or ()) if isinstance(piece, np.ndarray) else list(piece)
        column: Any = (slice(None), (order or EST_ORDER).index("t"))
        if names:
            found, unit = find_columns(names)
            if unit or "t" not in found:
                return None  # the name tells it, or read_table will tell what is missing
            column = found["t"]
        elif not isinstance(piece, np.ndarray) or piece.shape[1:] != (4,):
            return None
        times = piece[column]
        if times.dtype.kind != "f":
            return None
        times = times[np.isfinite(times)]
        whole &= bool((times == np.floor(times)).all())
        first, last = min(first, times.min(initial=np.inf)), max(last, times.max(initial=-np.inf))
    return None if first > last else tell_unit(first, last, integer=False, whole=whole)
