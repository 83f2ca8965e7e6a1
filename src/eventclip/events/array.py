"""Events of one recording as one array, and the steps that move them about.

Every function takes and returns (N,) arrays of :data:`EVENT_DTYPE` in order of time, returns a new array and
leaves its argument as it was. N may be 0 everywhere.

Example:
    >>> import numpy as np
    >>> from eventclip import EVENT_DTYPE
    >>> events = np.array([(10, 3, 2, 1), (25, 4, 2, 0)], EVENT_DTYPE)  # t [µs], x, y [px], p
    >>> events["t"].tolist(), EVENT_DTYPE.itemsize
    ([10, 25], 16)
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventclip.errors import RecordingError, UserError
from eventclip.events.kernels import kernel

EVENT_DTYPE: np.dtype[Any] = np.dtype([("t", np.int64), ("x", np.int16), ("y", np.int16), ("p", np.uint8)], align=True)
"""t [µs], x to the right and y downwards [px], p 1 = ON (brighter) or 0 = OFF; 16 bytes an event.

Aligned, so that a decoder writes an event as two words of 8 bytes.
"""

Events: TypeAlias = NDArray[Any]
"""(N,) array of EVENT_DTYPE; static types cannot name its fields."""

_LIMITS = {"t": (-(2**62), 2**62), "x": (-(2**15), 2**15 - 1), "y": (-(2**15), 2**15 - 1), "p": (0, 1)}
_POLARITY, _16_BITS = np.int64(0xFF << 32), np.int64(0xFFFF)  # in an event's second half
_NO_POLARITY = np.int64(0xFE << 32)
_OPAQUE = np.dtype((np.void, EVENT_DTYPE.itemsize))


def events_from_columns(t: ArrayLike, x: ArrayLike, y: ArrayLike, p: ArrayLike) -> Events:
    """Put four columns together to an event array.

    Args:
        t: (N,) times [µs]; whole numbers of any type, as all columns.
        x: (N,) columns of the sensor [px].
        y: (N,) rows of the sensor [px].
        p: (N,) polarities, 1 = ON and 0 = OFF, or boolean.

    Returns:
        (N,) array of EVENT_DTYPE, in the order given.

    Raises:
        UserError: the columns differ in shape, or a value would not be the same in EVENT_DTYPE (a fraction,
            NaN, too large, or a polarity other than 0 and 1); the first such row is named.
    """
    columns = {"t": np.asarray(t), "x": np.asarray(x), "y": np.asarray(y), "p": np.asarray(p)}
    shapes = {name: column.shape for name, column in columns.items()}
    if columns["t"].ndim != 1 or len(set(shapes.values())) != 1:
        raise UserError(f"Columns of events must be one-dimensional and equally long, got shapes {shapes}.")
    events = np.zeros(len(columns["t"]), EVENT_DTYPE)
    for name, column in columns.items():
        if column.dtype.kind not in "biuf":
            raise UserError(f"Column {name} has the type {column.dtype}, expected numbers.")
        native = column.astype(column.dtype.newbyteorder("="), copy=False)  # numba would read others' bytes backwards
        row = copy_column(native, events[name], *_LIMITS[name])
        if row >= 0:
            wanted = "0 or 1" if name == "p" else f"a whole number that fits {EVENT_DTYPE[name]}"
            raise UserError(f"Events have {name} = {column[row]} at row {row}: expected {wanted}.")
    return events


def as_events(events: NDArray[Any]) -> Events:
    """Take an array of events as others have it, such as tonic, for one of EVENT_DTYPE.

    Args:
        events: (N,) array with fields t [µs], x, y [px] and p (1 and 0, 1 and -1, or boolean); whole numbers, any type.

    Returns:
        (N,) array of EVENT_DTYPE; the very array where it is one.

    Raises:
        UserError: no such array, or a value that EVENT_DTYPE cannot hold.
    """
    names = events.dtype.names if isinstance(events, np.ndarray) else None
    if names is None or events.dtype == EVENT_DTYPE or not set("txyp") <= set(names):
        _refuse_others(events)
        return events
    polarity = events["p"]
    if polarity.dtype.kind in "if" and len(polarity) and polarity.min() == -1:
        polarity = np.where(polarity == -1, 0, polarity)
    return events_from_columns(events["t"], events["x"], events["y"], polarity)


def check_sensor(sensor_hw: Sequence[int] | None) -> None:
    """Refuse a height and width that no sensor has; None is one that is not given.

    Raises:
        UserError: not two whole numbers of 1 or more.
    """
    if sensor_hw is None:
        return
    try:
        height, width = map(operator.index, sensor_hw)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise UserError(f"sensor_hw must be [height, width] in pixels, such as [180,240], got {sensor_hw!r}")


def check_events(events: Events, sensor_hw: tuple[int, int], *, first: int = 0) -> None:
    """Refuse what is not an event array, or does not fit the sensor.

    Args:
        events: (N,) array of EVENT_DTYPE.
        sensor_hw: height and width of the sensor [px].
        first: number of the recording's events before these, for messages.

    Raises:
        UserError: wrong dtype or shape, an impossible sensor, a polarity other than 0 and 1, or an event outside
            the sensor; the first such event, its x and y and the sensor are named.
    """
    _refuse_others(events)
    check_sensor(sensor_hw)
    height, width = (int(side) for side in sensor_hw)
    if not _all_inside(events, height, width):
        _refuse_polarities(events, first)
        across, down = events["x"], events["y"]
        row = int(((across < 0) | (across >= width) | (down < 0) | (down >= height)).argmax())
        x, y = int(across[row]), int(down[row])
        raise UserError(
            f"Event {first + row} at x={x}, y={y} lies outside the sensor of {height} rows and {width} columns: "
            f"give sensor_hw=[H,W] that the recording was made with, or drop_outside=true to leave such events out"
        )


def unusable(sensor_hw: tuple[int, int] | None, *, name: str, ask: str) -> RecordingError:
    """Why nothing can look at a recording without a known sensor, or without events.

    Args:
        sensor_hw: height and width of the sensor [px], None where nobody has told it.
        name: of the recording.
        ask: the argument that tells the sensor ("sensor_hw=[H,W]").
    """
    if sensor_hw is None:
        return RecordingError(f"{name} does not say how large its sensor is: give the height and width, {ask}")
    return RecordingError(f"{name} holds no events: remove it or record it again")


def on_sensor(events: Events, sensor_hw: tuple[int, int] | None, *, name: str, ask: str) -> tuple[int, int]:
    """Refuse a recording without events, without a known sensor, or with events outside it.

    Args:
        events: (N,) array of EVENT_DTYPE.
        sensor_hw: height and width of the sensor [px], None where nobody has told it.
        name: of the recording, for messages.
        ask: the argument that tells the sensor, for messages ("sensor_hw=[H,W]").

    Returns:
        The sensor's height and width.

    Raises:
        RecordingError: one of the three.
    """
    if sensor_hw is None or not len(events):
        raise unusable(sensor_hw, name=name, ask=ask)
    try:
        check_events(events, sensor_hw)
    except UserError as error:
        raise RecordingError(f"{name}: {error}") from None
    return sensor_hw


def centre(events: Events, sensor_hw: tuple[int, int], *, must_fit: bool = False) -> Events:
    """Move the events' bounding box to the middle of the sensor and let time begin at 0.

    Args:
        events: (N,) array of EVENT_DTYPE.
        sensor_hw: height and width of the sensor [px].
        must_fit: refuse a bounding box that is larger than the sensor; any other lies on it afterwards.

    Returns:
        (N,) array: t − min t, and x − floor((x_max + x_min + 1 − W) / 2), y alike with H.

    Raises:
        UserError: the bounding box is larger than the sensor, where it must fit, or a polarity other than 0 and 1.
    """
    _refuse_others(events)
    check_sensor(sensor_hw)
    moved: Events = np.empty(len(events), EVENT_DTYPE)
    if len(events):
        height, width = (int(side) for side in sensor_hw)
        events = np.ascontiguousarray(events)
        rows, columns, odd = _centre(events, _in_halves(events), height, width, _in_halves(moved))
        if odd:
            _refuse_polarities(events)
        if must_fit and (rows > height or columns > width):
            raise UserError(
                f"The events take {rows} rows and {columns} columns, and the sensor has {height} and {width}: give "
                f"sensor_hw=[H,W] that the recording was made with."
            )
    return moved


def mirror(events: Events, width: int) -> Events:
    """Swap left and right: x becomes width − 1 − x.

    Args:
        events: (N,) array of EVENT_DTYPE.
        width: columns of the sensor [px].

    Returns:
        (N,) array.
    """
    mirrored: Events = _opaque(events).copy().view(EVENT_DTYPE)
    mirrored["x"] = width - 1 - events["x"]
    return mirrored


def shift(events: Events, dx: int, dy: int, sensor_hw: tuple[int, int]) -> Events:
    """Move all events by whole pixels and drop what leaves the sensor.

    Args:
        events: (N,) array of EVENT_DTYPE.
        dx: to the right [px], may be negative.
        dy: downwards [px], may be negative.
        sensor_hw: height and width of the sensor [px].

    Returns:
        (M,) array, M ≤ N, possibly empty.
    """
    height, width = sensor_hw
    x = events["x"].astype(np.int32) + dx  # int16 would wrap round and bring events back on the other side
    y = events["y"].astype(np.int32) + dy
    stays = np.flatnonzero((x >= 0) & (x < width) & (y >= 0) & (y < height))
    moved: Events = _opaque(events)[stays].view(EVENT_DTYPE)
    moved["x"] = x[stays]
    moved["y"] = y[stays]
    return moved


def flip_time(events: Events) -> Events:
    """Let the recording run backwards: what came last comes first, and what became brighter becomes darker.

    Args:
        events: (N,) array of EVENT_DTYPE.

    Returns:
        (N,) array in reversed order, t_max − t, 1 − p.
    """
    flipped: Events = _opaque(events)[::-1].copy().view(EVENT_DTYPE)
    if len(events):
        flipped["t"] = events["t"].max() - flipped["t"]
        flipped["p"] = 1 - flipped["p"]
    return flipped


class Move(NamedTuple):
    """How a recording is moved about: first flipped in time, then shifted, then mirrored."""

    flipped: bool = False
    """Played backwards, polarity swapped."""
    dx: int = 0
    """Shift to the right [px]."""
    dy: int = 0
    """Shift downwards [px]."""
    mirrored: bool = False
    """Left and right swapped."""


def moved(events: Events, sensor_hw: tuple[int, int], move: Move) -> Events:
    """Move all events of a recording.

    Args:
        events: (N,) array of EVENT_DTYPE in order of time, on the sensor.
        sensor_hw: height and width of the sensor [px].
        move: how.

    Returns:
        (M,) array, M ≤ N, without what a shift moved off the sensor; the very array where nothing moves.
    """
    if move.flipped:
        events = flip_time(events)
    if move.dx or move.dy:
        events = shift(events, move.dx, move.dy, sensor_hw)
    if move.mirrored:
        events = mirror(events, sensor_hw[1])
    return events


def _in_halves(events: Events) -> NDArray[np.int64]:
    """View one event or more, contiguous, as two words of 64 bits each: t, then x, y, p from the lowest bit on.

    That is so on little-endian machines, and numba runs on no others.
    """
    return np.frombuffer(events, np.int64)  # in half the time of a view


def _refuse_others(events: Events) -> None:
    """Refuse what is not an event array."""
    if not isinstance(events, np.ndarray) or events.dtype != EVENT_DTYPE or events.ndim != 1:
        found = f"{events.dtype} {events.shape}" if isinstance(events, np.ndarray) else type(events).__name__
        raise UserError(f"Events must be a one-dimensional array of EVENT_DTYPE, got {found}.")


def _refuse_polarities(events: Events, first: int = 0) -> None:
    """Refuse the first event whose polarity is neither 0 nor 1."""
    odd = events["p"] > 1
    if odd.any():
        row = int(odd.argmax())
        raise UserError(
            f"Event {first + row} has the polarity {events['p'][row]}, expected 1 (ON) or 0 (OFF): write OFF as 0, "
            f"since -1 becomes 255 in EVENT_DTYPE"
        )


def _opaque(events: Events) -> NDArray[np.void]:
    """View events as opaque records: numpy copies those 15 times faster than field by field."""
    _refuse_others(events)
    return events.view(_OPAQUE)


@kernel
def copy_column(column: NDArray[Any], field: NDArray[Any], low: int, high: int) -> int:
    """Copy a column of numbers into a field.

    Args:
        column: (N,) numbers.
        field: (N,) field of an event array, filled up to the row that is returned.
        low: the smallest number that is taken.
        high: the largest.

    Returns:
        The first row that is not a whole number from low to high, −1 where all are.
    """
    for i in range(len(column)):
        value = column[i]
        if not low <= value <= high:  # before the conversion, which is undefined beyond the field's range; NaN too
            return i
        field[i] = value
        if field[i] != value:
            return i
    return -1


@kernel
def _all_inside(events: Events, height: int, width: int) -> bool:
    """Whether all events lie on the sensor and have a polarity; a way out would keep it from being vectorised."""
    # Unsigned and 16 bits wide, negative coordinates are beyond any sensor, as are all that the fields cannot hold.
    rows, columns = np.uint16(min(height, 2**15)), np.uint16(min(width, 2**15))
    outside = False
    for i in range(np.uint64(len(events))):
        event = events[i]
        outside |= (np.uint16(event.x) >= columns) | (np.uint16(event.y) >= rows) | (event.p > 1)
    return not outside


@kernel
def _centre(
    events: Events, halves: NDArray[np.int64], height: int, width: int, moved: NDArray[np.int64]
) -> tuple[int, int, bool]:
    """Fill ``moved`` with the events shifted as :func:`centre` says.

    Gives the rows and columns that they take, and whether one has a polarity other than 0 and 1.

    Written in halves of 64 bits, t and then p, y, x, it takes three quarters of the time that single fields do.
    """
    start, left, right, top, bottom = events[0].t, events[0].x, events[0].x, events[0].y, events[0].y
    for i in range(np.uint64(len(events))):  # unsigned, as numba tests signed indices at each use
        event = events[i]
        start = min(start, event.t)
        left, right = min(left, event.x), max(right, event.x)
        top, bottom = min(top, event.y), max(bottom, event.y)
    dx, dy = (np.int64(right) + left + 1 - width) // 2, (np.int64(bottom) + top + 1 - height) // 2
    flaws = np.int64(0)
    for i in range(np.uint64(len(events))):
        rest = halves[2 * i + 1]
        flaws |= rest
        moved[2 * i] = halves[2 * i] - start
        moved[2 * i + 1] = (rest & _POLARITY) | ((rest >> 16) - dy & _16_BITS) << 16 | (rest - dx & _16_BITS)
    return np.int64(bottom) - top + 1, np.int64(right) - left + 1, (flaws & _NO_POLARITY) != 0
