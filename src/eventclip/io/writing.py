"""Write recordings that are read back exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import EVENT_DTYPE, Events, check_sensor
from eventclip.files import whole_file
from eventclip.io.checks import check_sound

_Columns = dict[str, NDArray[Any]]


def write_events(path: str | Path, events: Events, sensor_hw: Sequence[int] | None = None) -> None:
    """Write a recording that :func:`eventclip.io.formats.read_events` gives back to the last microsecond.

    Example:
        >>> import numpy as np
        >>> from eventclip import EVENT_DTYPE, read_events, write_events
        >>> events = np.array([(10, 3, 2, 1), (25, 4, 2, 0)], EVENT_DTYPE)
        >>> write_events("two.h5", events, sensor_hw=(180, 240))
        >>> found, sensor_hw = read_events("two.h5")
        >>> np.array_equal(found, events), sensor_hw
        (True, (180, 240))

    Args:
        path: ends in .npy (a structured array), .npz (compressed arrays), .h5 (compressed data sets) or .csv, each of
            t_us [µs], x, y [px] and p (1 = ON, 0 = OFF). It appears whole or not at all.
        events: (N,) array of EVENT_DTYPE in order of time.
        sensor_hw: height and width of the sensor [px], which .h5 and .csv keep.

    Raises:
        UserError: another suffix or array, events that no camera with this sensor can have sent, or a place that
            cannot be written to.
    """
    path = Path(path).expanduser()
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise UserError(f"{path} must end in {', '.join(_WRITERS)}")
    if not isinstance(events, np.ndarray) or events.ndim != 1 or events.dtype != EVENT_DTYPE:
        raise UserError(f"{path} can hold events of EVENT_DTYPE only: expected an (N,) array with fields t, x, y, p")
    check_sensor(sensor_hw)
    hw = None if sensor_hw is None else (int(sensor_hw[0]), int(sensor_hw[1]))
    try:
        check_sound(events, hw)
    except RecordingError as error:
        raise UserError(f"{path} is not written: what it is to hold {error}") from None
    except UserError as error:
        raise UserError(f"{path} is not written: {error}") from None
    columns = {("t_us" if name == "t" else name): np.ascontiguousarray(events[name]) for name in "txyp"}
    try:
        with whole_file(path) as part:
            write(part, columns, hw)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): give another place") from error


def _write_npy(path: Path, columns: _Columns, _: tuple[int, int] | None) -> None:
    table = np.empty(len(columns["t_us"]), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        table[name] = column
    with path.open("wb") as file:  # by its name numpy would add a suffix
        np.save(file, table)


def _write_npz(path: Path, columns: _Columns, _: tuple[int, int] | None) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **columns)


def _write_hdf5(path: Path, columns: _Columns, sensor_hw: tuple[int, int] | None) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("events")
        for name, column in columns.items():
            group.create_dataset(name, data=column, **({"compression": "gzip"} if len(column) else {}))
        if sensor_hw is not None:
            group.attrs["height"], group.attrs["width"] = sensor_hw


def _write_csv(path: Path, columns: _Columns, sensor_hw: tuple[int, int] | None) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        if sensor_hw is not None:
            file.write(f"# geometry: {sensor_hw[1]}x{sensor_hw[0]}\n")
        file.write(",".join(columns) + "\n")
        np.savetxt(file, np.stack(list(columns.values()), axis=1), "%d", ",")


_WRITERS: dict[str, Callable[[Path, _Columns, tuple[int, int] | None], None]] = {
    ".npy": _write_npy,
    ".npz": _write_npz,
    ".h5": _write_hdf5,
    ".csv": _write_csv,
}
