"""Recordings in HDF5, in whichever of the usual layouts.

The errors raised here are what follows the path in a sentence; :func:`eventclip.events.readers.read_events` adds it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from eventclip.errors import RecordingError
from eventclip.events.array import Events
from eventclip.events.columns import COLUMNS_WANTED, find_columns, read_table

HDF5_DAMAGE = (KeyError, RuntimeError, MemoryError)
"""What h5py lets through, besides OSError, where a file is damaged."""


def read_hdf5(path: Path, *, time_unit: str | None, columns: str | None) -> tuple[Events, tuple[int, int] | None]:
    """Read the one table of events in an HDF5 file, wherever it is.

    A table is a group with one data set per column (``events/x``, ``events/ts`` …, as in DSEC), or a data set with
    named fields (``CD/events`` of Metavision), or a data set of shape (N, 4) (MVSEC).

    Args:
        path: the file.
        time_unit: unit of time, None tells it.
        columns: order of the columns of an (N, 4) data set, None is "xytp".

    Returns:
        Events, and (height, width) where attributes of the data set, its groups or the file tell it.

    Raises:
        RecordingError: not a whole HDF5 file, or not exactly one table of events.
    """
    try:
        with h5py.File(path, "r") as file:
            table, sensor_hw = event_table(file)
            loaded = {name: item[()] for name, item in table.items()} if isinstance(table, dict) else table[()]
            return read_table(loaded, time_unit, columns), sensor_hw
    except HDF5_DAMAGE as error:
        raise RecordingError(f"is no whole HDF5 file ({error})") from error


def event_table(file: h5py.File) -> tuple[h5py.Dataset | dict[str, h5py.Dataset], tuple[int, int] | None]:
    """The one table of events in a file, and its sensor's (height, width) where attributes tell it."""
    tables = _event_tables(file)
    if len(tables) != 1:
        places = f"{len(tables)} tables of events, {', '.join(sorted(tables))}" if tables else "no table of events"
        raise RecordingError(f"holds {places}: expected one table of events with {COLUMNS_WANTED}")
    place, table = next(iter(tables.items()))
    return table, _sensor_of(file, place)


def _event_tables(file: h5py.File) -> dict[str, h5py.Dataset | dict[str, h5py.Dataset]]:
    """Every table of events in the file by its path."""
    tables: dict[str, Any] = {}

    def look_at(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            vectors = {key: child for key, child in item.items() if getattr(child, "ndim", None) == 1}
            found, _ = find_columns(list(vectors))
            if len(found) == 4:
                tables[name] = {key: vectors[key] for key in found.values()}
        elif isinstance(item, h5py.Dataset) and item.shape is not None:
            named = item.ndim == 1 and len(find_columns(item.dtype.names or ())[0]) == 4
            if named or (item.ndim == 2 and item.shape[1] == 4 and "event" in name.lower()):
                tables[name] = item

    look_at("/", file)
    file.visititems(look_at)
    return tables


def _sensor_of(file: h5py.File, place: str) -> tuple[int, int] | None:
    """Height and width from the attributes of a table, else of the groups around it, else of the file."""
    parts = place.strip("/").split("/")
    for depth in range(len(parts), -1, -1):
        attributes = file["/".join(parts[:depth]) or "/"].attrs
        for height, width in (("height", "width"), ("sensor_height", "sensor_width")):
            if height in attributes and width in attributes:
                return int(attributes[height]), int(attributes[width])
        if "sensor_resolution" in attributes:  # rpg_e2vid's and V2E's tools write height, width
            size = np.ravel(attributes["sensor_resolution"])
            if len(size) >= 2:
                return int(size[0]), int(size[1])
        geometry = re.fullmatch(r"(\d+)\s*x\s*(\d+)", _as_text(attributes.get("geometry", "")))  # Metavision
        if geometry:
            return int(geometry[2]), int(geometry[1])
    return None


def _as_text(value: Any) -> str:
    """An attribute as text; HDF5 keeps text as bytes in older files."""
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
