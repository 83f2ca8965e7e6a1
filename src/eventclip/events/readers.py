"""One door to every recording format: a path in, events out, or one sentence about what is wrong with the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import Events
from eventclip.events.cameras import read_atis_bin, read_prophesee_dat
from eventclip.events.tables import TIME_UNITS, read_npy, read_npz

SensorHW = tuple[int, int]

_TABLES: dict[str, Callable[[Path, str | None], tuple[Events, SensorHW | None]]] = {"npy": read_npy, "npz": read_npz}
_CAMERAS: dict[str, Callable[[Path], tuple[Events, SensorHW | None]]] = {
    "bin": read_atis_bin,
    "dat": read_prophesee_dat,
}
FORMATS = (*_TABLES, *_CAMERAS)
"""Names of the formats; a format is found by the suffix of the same name."""
READABLE_SUFFIXES = tuple(f".{name}" for name in FORMATS)
"""Endings of files that :func:`read_events` reads without being told the format."""


def read_events(
    path: str | Path,
    format: str | None = None,  # noqa: A002  (the field's own word)
    *,
    time_unit: str | None = None,
) -> tuple[Events, SensorHW | None]:
    """Read a recording.

    Formats: ``npy``, the EST release's float (N, 4) of x, y, t [s], p or a structured array; ``npz``, N-ImageNet's
    ``event_data``; ``bin``, the ATIS camera's 40-bit events (N-Caltech101, N-MNIST); ``dat``, Prophesee's.

    Args:
        path: the file.
        format: format name; None tells it by the suffix.
        time_unit: "s", "ms", "us" or "ns" where a table's own unit cannot be told, or is told wrongly.

    Returns:
        (N,) array of EVENT_DTYPE in the file's order, and the sensor's (height, width) where the file tells it.

    Raises:
        RecordingError: unknown suffix, unreadable or damaged file; names the path, the byte or row, and what was
            expected.
        UserError: an unknown format or unit.
    """
    path = Path(path)
    name = format or path.suffix.lower().lstrip(".")
    if name not in FORMATS:
        if format is not None:
            raise UserError(f"the recording format must be one of {', '.join(FORMATS)}, got {format!r}")
        raise RecordingError(f"{path} has a suffix of no known format: expected one of {', '.join(READABLE_SUFFIXES)}")
    if time_unit is not None and time_unit not in TIME_UNITS:
        raise UserError(f"time_unit must be one of {', '.join(TIME_UNITS)}, got {time_unit!r}")
    try:
        if path.stat().st_size == 0:
            raise RecordingError(f"{path} is an empty file: expected a recording in {name} format")
        return _TABLES[name](path, time_unit) if name in _TABLES else _CAMERAS[name](path)
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error
