"""What every recording is checked for, whatever its format: that a camera with this sensor can have sent it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.events.array import Events, check_events
from eventclip.events.kernels import kernel

_NEVER = -(1 << 63)  # before all times
_BEYOND = 1 << 15  # more rows and columns than the fields of an event can hold
_SIGNS = np.int64(1 << 31 | 1 << 15)  # of y and x, in an event's second half
_FLAWS = np.int64(0xFE << 32) | _SIGNS  # p above 1, y or x below 0
_PLACE = np.int64(0x7FFF << 16 | 0x7FFF)  # y and x without their signs


def rows_inside(events: Events, sensor_hw: tuple[int, int]) -> NDArray[np.int64] | None:
    """Rows of the events that lie on the sensor; None where all of them do.

    Args:
        events: (N,) array of EVENT_DTYPE.
        sensor_hw: height and width of the sensor [px].
    """
    height, width = sensor_hw
    x, y = events["x"], events["y"]
    stays = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return None if stays.all() else np.flatnonzero(stays)


def check_sound(
    events: Events,
    sensor_hw: tuple[int, int] | None,
    *,
    first: int = 0,
    rows: NDArray[np.int64] | None = None,
    last: int | None = None,
    in_order: bool = True,
) -> None:
    """Refuse events that no camera with this sensor can have sent.

    Args:
        events: (N,) array of EVENT_DTYPE, a piece of a recording.
        sensor_hw: height and width of the sensor [px], None where nobody tells it.
        first: number of the recording's events before this piece.
        rows: (N,) rows of the events in the piece, None where none is left out.
        last: time of the event before this piece [µs], None where there is none.
        in_order: whether time must not run backwards.

    Raises:
        UserError: a negative coordinate, a polarity other than 0 and 1, time running backwards, or an event outside
            the sensor; the first such event is named by its row in the recording.
    """
    if not len(events):
        return
    height, width = (_BEYOND, _BEYOND) if sensor_hw is None else sensor_hw
    before = _NEVER if last is None else last
    if events.flags.c_contiguous and min(height, width) > 0:
        limits = (min(int(height), _BEYOND) - 1) << 16 | (min(int(width), _BEYOND) - 1)
        if _all_sound(np.frombuffer(events, np.int64), limits, before, in_order):
            return
    x, y, t, p = (events[name] for name in "xytp")
    previous = np.concatenate([[before], t[:-1]])
    back = (t < previous) & in_order
    flawed = (x < 0) | (x >= width) | (y < 0) | (y >= height) | (p > 1) | back
    at = int(flawed.argmax())
    if not flawed[at]:
        return
    row = first + int(at if rows is None else rows[at])
    for name, expected in (("x", "0 or more"), ("y", "0 or more"), ("p", "0 or 1")):
        if events[name][at] < 0 or (name == "p" and p[at] > 1):
            raise RecordingError(f"has {name} = {events[name][at]} at row {row}: expected {expected}")
    if sensor_hw is not None:
        check_events(events[at : at + 1], sensor_hw, first=row)
    raise RecordingError(
        f"is out of order: it runs backwards in time at row {row}, from {previous[at]} to {t[at]} µs: expected events "
        f"in order of time, or give sort=true to sort them"
    )


@kernel
def _all_sound(halves: NDArray[np.int64], limits: int, before: int, in_order: bool) -> bool:
    """Whether no event, in two 64-bit halves each, has a flaw; a way out of the loop would keep it from vectorising.

    The limits are the largest y and x, where an event has them. They are compared in one subtraction: what is left of a
    sign put before each limit tells whether the place exceeds it, and never reaches into its neighbour.
    """
    flaws, fits, back, previous, most = np.int64(0), _SIGNS, False, before, _SIGNS | limits
    for i in range(np.uint64(len(halves) // 2)):
        time, rest = halves[2 * i], halves[2 * i + 1]
        flaws |= rest
        fits &= most - (rest & _PLACE)
        back |= time < previous
        previous = time
    return not (flaws & _FLAWS) and fits == _SIGNS and not (back and in_order)
