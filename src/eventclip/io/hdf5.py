"""Recordings in HDF5, in whichever of the usual layouts, read in pieces.

A table of events is a group with one data set per column (``events/x``, ``events/ts`` …, as in DSEC), or a data set
with named fields (``CD/events`` of Metavision), or a data set of shape (N, 4) (MVSEC). Only what is stored in the file
itself is read: no links to other files, no values that nobody has written.

Errors are what follows the path in a sentence; :func:`eventclip.io.formats.open_stream` adds it.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import h5py
import hdf5plugin  # noqa: F401  (importing it makes the filters of DSEC and others known)
import numpy as np

from eventclip.errors import RecordingError
from eventclip.io.columns import Piece, Table, refuse_other_arrays
from eventclip.io.formats import DamageError, Opened, ReadOptions
from eventclip.io.limits import refuse_bomb
from eventclip.io.names import COLUMNS_WANTED, find_columns, missing_in

Source: TypeAlias = "h5py.Dataset | dict[str, h5py.Dataset]"
"""One data set, or one for each column."""

_ECF = 0x8ECF
_MOST_OBJECTS = 100_000
_DAMAGE = (OSError, KeyError, RuntimeError, TypeError, ValueError, OverflowError, AttributeError, SystemError)
"""What h5py lets through where a file is damaged."""


def open_hdf5(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    """Open a table of events in an HDF5 file, the one that there is or that ``stream`` names.

    Raises:
        RecordingError: not a whole HDF5 file, no table of events or several, a filter that is not installed, or less
            stored than its shape promises.
    """
    with _readable(path) as file:
        place, source, sensor_hw = _chosen(file, options)
        sets = source if isinstance(source, dict) else {place: source}
        rows = {len(one) for one in sets.values()}
        if len(rows) > 1:
            raise RecordingError(f"has columns of {min(rows)} and of {max(rows)} events: expected equally long ones")
        for name, one in sets.items():
            _refuse_what_is_not_stored(name, one, options.largest_bytes)
            if not isinstance(source, dict):
                refuse_other_arrays(one.shape, one.dtype)
    count = rows.pop()

    def read() -> Iterator[Piece]:
        with _readable(path) as file:
            _, source, _ = _chosen(file, options)
            for start in range(0, max(count, 1), chunk_events):
                yield from _piece(source, start, min(start + chunk_events, count))

    if count <= chunk_events and (held := _at_once(read)) is not None:
        return Table(lambda: iter([held]), in_one=True).opened(options, sensor_hw=sensor_hw, total=count)
    return Table(read).opened(options, sensor_hw=sensor_hw, total=count)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[h5py.File]:
    """An open file; what h5py raises over it is told as damage, without its details, which differ from run to run."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except RecordingError:
        raise
    except _DAMAGE as error:
        said = re.search(r"\(([^(:)]+)", str(error))
        raise DamageError(f"is no whole HDF5 file ({said[1].strip() if said else type(error).__name__})") from error


def _at_once(read: Any) -> Piece | None:
    """The only piece of a table; None where a row of it cannot be read."""
    try:
        (piece,) = read()
    except RecordingError:
        return None
    return piece  # type: ignore[no-any-return]


def _piece(source: Source, start: int, stop: int) -> Iterator[Piece]:
    """Rows of a table; those before the first that cannot be read, however many are asked for, and then the refusal."""
    try:
        yield _rows(source, start, stop)
    except _DAMAGE as error:
        sound, broken = start, stop
        while broken - sound > 1:
            middle = (sound + broken) // 2
            try:
                _rows(source, start, middle)
                sound = middle
            except _DAMAGE:
                broken = middle
        if sound > start:
            yield _rows(source, start, sound)
        raise DamageError(f"is no whole HDF5 file (row {sound} is damaged and cannot be read)") from error


def _rows(source: Source, start: int, stop: int) -> Piece:
    if isinstance(source, dict):
        return {name: one[start:stop] for name, one in source.items()}
    rows: Piece = source[start:stop]
    return rows


def _chosen(file: h5py.File, options: ReadOptions) -> tuple[str, Source, tuple[int, int] | None]:
    """Place and data sets of the table that is asked for, and its sensor where the file tells it."""
    tables = _event_tables(file, len(options.columns or "txyp"))
    places = sorted(tables)
    if options.stream is not None:
        places = _named(options.stream, places)
    if len(places) != 1:
        if not tables:
            raise RecordingError(f"holds no table of events: expected one table of events with {COLUMNS_WANTED}")
        raise RecordingError(
            f"holds {len(places)} tables of events, {', '.join(places)}: expected one, or give stream={places[0]} or "
            f"another of them"
        )
    return places[0], tables[places[0]], _sensor_of(file, places[0])


def _named(stream: str, places: list[str]) -> list[str]:
    """The one place that a name, a part of a path or a number means."""
    asked = stream.strip("/").split("/")

    def is_in(place: str) -> bool:
        parts = place.strip("/").split("/")
        return any(parts[at : at + len(asked)] == asked for at in range(len(parts)))

    fitting = [place for place in places if place.strip("/") == "/".join(asked)] or [p for p in places if is_in(p)]
    if not fitting and stream.isdecimal() and int(stream) < len(places):
        fitting = [places[int(stream)]]
    if len(fitting) != 1:
        found = f"{len(fitting)} of its tables" if fitting else "none of its tables"
        raise RecordingError(
            f"has {', '.join(places) or 'no table of events'}, and stream={stream} names {found}: give one of them, or "
            f"its number from 0 on"
        )
    return fitting


def _event_tables(file: h5py.File, width: int) -> dict[str, Source]:
    """Every table of events in the file by its path; links to other places and files are not followed."""
    tables: dict[str, Source] = {}
    waiting, seen = [("", file["/"])], set[int]()
    while waiting:
        place, group = waiting.pop()
        vectors = {}
        for name, item in _members(group):
            inside = f"{place}/{name}".lstrip("/")
            if isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address not in seen and len(seen) < _MOST_OBJECTS:
                    seen.add(address)
                    waiting.append((inside, item))
            elif isinstance(item, h5py.Dataset) and item.shape is not None:
                if item.ndim == 1 or (item.ndim == 2 and item.shape[1] == 2):
                    vectors[name] = item
                named = item.ndim == 1 and not missing_in(find_columns(item.dtype.names or ())[0])
                if named or (item.ndim == 2 and item.shape[1] == width and "event" in inside.lower()):
                    tables[inside] = item
        found, _ = find_columns(list(vectors))
        if not missing_in(found):
            tables[place or "/"] = {name: vectors[name] for name in found.values()}
    return tables


def _members(group: h5py.Group) -> Iterator[tuple[str, Any]]:
    """Members of a group that are in this file, by names as Python keeps those of files: some are in no encoding."""
    for name in list(group.id):
        if group.id.links.get_info(name).type == h5py.h5l.TYPE_HARD:
            yield os.fsdecode(name), group[name]


def _refuse_what_is_not_stored(name: str, item: h5py.Dataset, largest: int) -> None:
    """Refuse a data set that would be read from elsewhere, by a filter that is not there, or out of nothing."""
    plist = item.id.get_create_plist()
    if item.is_virtual or item.external:
        raise RecordingError(f"keeps {name} in other files: expected the events in the file itself")
    for number in range(plist.get_nfilters()):
        kind, _, _, label = plist.get_filter(number)
        if not h5py.h5z.filter_avail(kind):
            raise RecordingError(_no_filter(name, kind, label))
    needed, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
    if item.chunks is None:
        if stored < needed:
            raise RecordingError(
                f"is no whole HDF5 file ({name} of shape {item.shape} has {needed:,} bytes and {stored:,} are stored)"
            )
        return
    chunks = math.prod(-(-size // chunk) for size, chunk in zip(item.shape, item.chunks, strict=True))
    if stored < chunks or item.id.get_num_chunks() < chunks:
        raise RecordingError(
            f"is no whole HDF5 file ({name} of shape {item.shape} has {chunks:,} chunks and "
            f"{item.id.get_num_chunks():,} are stored)"
        )
    chunk = math.prod(item.chunks) * item.dtype.itemsize
    if needed > 200 * stored or chunk > largest:
        refuse_bomb(max(needed, chunk), stored, largest)


def _no_filter(name: str, kind: int, label: bytes) -> str:
    """What to say of a filter that is not installed."""
    if kind == _ECF:
        return (
            f"is compressed with Prophesee's ECF (filter {_ECF:#x}), which is not installed: convert it with "
            f"metavision_file_to_csv, or set HDF5_PLUGIN_PATH to the folder of Metavision's HDF5 plugin"
        )
    called = label.decode("ascii", "replace").split(" ")[0].strip("\0;,")
    return (
        f"has {name} compressed with the filter {kind} ({called or 'without a name'}), which is not installed: set "
        f"HDF5_PLUGIN_PATH to its folder, or write the file with another one"
    )


def _sensor_of(file: h5py.File, place: str) -> tuple[int, int] | None:
    """Height and width from a table, else the groups around it, else the file: attributes, or data sets in a group."""
    parts = [part for part in place.split("/") if part]
    for depth in range(len(parts), -1, -1):
        try:
            item = file[os.fsencode("/".join(parts[:depth]) or "/")]
        except _DAMAGE:
            continue
        found = _size_in(item)
        if found is not None:
            return found
    return None


def _size_in(item: Any) -> tuple[int, int] | None:
    """The sensor's (height, width) as a group or data set tells it; None where it does not, or in no way we know."""
    for height, width in (("height", "width"), ("sensor_height", "sensor_width")):
        size = _pixels(_value(item, height)), _pixels(_value(item, width))
        if size[0] and size[1]:
            return size[0], size[1]
    both = _value(item, "sensor_resolution")  # rpg_e2vid's and V2E's tools write height, width
    if isinstance(both, np.ndarray) and both.ndim == 1 and len(both) >= 2:
        size = _pixels(both[0]), _pixels(both[1])
        if size[0] and size[1]:
            return size[0], size[1]
    geometry = re.fullmatch(r"(\d{1,5})\s*[xX]\s*(\d{1,5})", _as_text(_value(item, "geometry")).strip())  # Metavision
    return (int(geometry[2]), int(geometry[1])) if geometry else None


def _value(item: Any, name: str) -> Any:
    """An attribute, else a small data set with this name in a group; None where there is none that can be read."""
    try:
        if name in item.attrs:
            return item.attrs[name]
        if isinstance(item, h5py.Group) and isinstance(item.get(name, getlink=True), h5py.HardLink):
            inside = item[name]
            if isinstance(inside, h5py.Dataset) and inside.shape is not None and inside.size <= 2:
                return inside[()]
    except _DAMAGE:
        pass
    return None


def _pixels(value: Any) -> int | None:
    """A size of a sensor [px], also from an array of one number as MATLAB writes it; None for all else."""
    array = np.asarray(value) if isinstance(value, int | float | np.generic | np.ndarray) else None
    if array is None or array.size != 1 or array.dtype.kind not in "iuf":
        return None
    number = array.reshape(-1)[0]
    return int(number) if 1 <= number <= 1 << 15 and number == int(number) else None


def _as_text(value: Any) -> str:
    """An attribute as text; HDF5 keeps text as bytes in older files, and as an array of one text in others."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
