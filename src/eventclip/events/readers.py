"""Read a recording, whatever its format."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import Events, check_events
from eventclip.events.cameras import read_aedat4, read_atis
from eventclip.events.columns import TIME_UNITS
from eventclip.events.hdf5 import read_hdf5
from eventclip.events.prophesee import read_dat, read_raw
from eventclip.events.tables import read_numpy, read_text

_SUFFIXES = {
    ".npy": "npy",
    ".npz": "npz",
    ".bin": "bin",
    ".dat": "dat",
    ".raw": "raw",
    ".aedat4": "aedat4",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".csv": "csv",
    ".txt": "csv",
}
_TABLES = {"npy": read_numpy, "npz": read_numpy, "hdf5": read_hdf5, "csv": read_text}
_CAMERAS: dict[str, Callable[[Path], tuple[Events, tuple[int, int] | None]]] = {
    "bin": read_atis,
    "dat": read_dat,
    "raw": read_raw,
    "aedat4": read_aedat4,
}

READABLE_SUFFIXES = tuple(_SUFFIXES)
"""What the name of a recording may end in, in lower case."""

FORMATS = tuple(dict.fromkeys(_SUFFIXES.values()))
"""What ``format`` may name."""


def read_events(
    path: str | Path,
    format: str | None = None,  # noqa: A002  (the word users know)
    *,
    time_unit: str | None = None,
    columns: str | None = None,
) -> tuple[Events, tuple[int, int] | None]:
    """Read all events of a recording, none dropped, none reordered.

    Args:
        path: the file.
        format: one of FORMATS: "npy" and "npz" (the EST release, N-ImageNet, structured arrays), "bin" (ATIS),
            "dat" and "raw" (Prophesee), "aedat4" (iniVation), "hdf5", "csv" (any text); None goes by the suffix.
        time_unit: unit of time in a table, "s", "ms", "us" or "ns"; None tells it, see :mod:`eventclip.events.columns`.
        columns: order of a table without names, such as "xytp" or "txyp"; None tells it.

    Returns:
        (N,) array of EVENT_DTYPE in order of time, and the sensor's (height, width) where the file knows it, else None.
        N is 0 for a whole file without events.

    Raises:
        RecordingError: the file is missing, unreadable, cut short, or not what its format promises; the sentence names
            the path, the byte or row, and what was expected.
        UserError: an option that does not exist or does not apply.
    """
    path = Path(path)
    kind = format_of(path, format, time_unit=time_unit, columns=columns)
    with naming(path):
        refuse_empty(path, kind)
        if kind in _CAMERAS:
            events, sensor_hw = _CAMERAS[kind](path)
        else:
            events, sensor_hw = _TABLES[kind](path, time_unit=time_unit, columns=columns)
        if sensor_hw is not None:
            check_events(events, sensor_hw)
    return events, sensor_hw


def format_of(path: Path, format: str | None, *, time_unit: str | None, columns: str | None) -> str:  # noqa: A002
    """The format of a file, given or told by its suffix; refuses options that do not apply to it."""
    kind = format or _SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise RecordingError(
            f"{path} has a suffix of no known format: expected one of {', '.join(READABLE_SUFFIXES)}, or give format="
        )
    _check_options(kind, time_unit, columns)
    return kind


def refuse_empty(path: Path, kind: str) -> None:
    """Refuse a file of no bytes, which is a recording in no format."""
    if path.stat().st_size == 0:
        raise RecordingError(f"is an empty file: expected a recording in {kind} format")


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path before what went wrong with its recording: formats raise what follows it in a sentence."""
    try:
        yield
    except RecordingError as error:
        raise RecordingError(f"{path} {error}") from error
    except ValueError as error:  # a UserError, or text in another encoding
        raise RecordingError(f"{path}: {error}") from error
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_options(kind: str, time_unit: str | None, columns: str | None) -> None:
    """Refuse an option that does not exist or does not apply to the format."""
    if kind not in FORMATS:
        raise UserError(f"the recording format must be one of {', '.join(FORMATS)}, got {kind!r}")
    if time_unit is not None and time_unit not in TIME_UNITS:
        raise UserError(f"time_unit must be one of {', '.join(TIME_UNITS)}, got {time_unit!r}")
    if columns is not None and sorted(columns) != sorted("txyp"):
        raise UserError(f'columns must name t, x, y and p once each, such as "xytp", got {columns!r}')
    if kind in _CAMERAS and (time_unit or columns):
        raise UserError(f"time_unit and columns are for tables: the format {kind} says itself what it holds")
