"""What every recording is checked for, whatever its format: that a camera with this sensor can have sent it."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.events.array import Events, check_events
from eventclip.events.kernels import kernel

_LITTLE = sys.byteorder == "little"
_FLAWS = np.int64(0xFE << 32 | 1 << 31 | 1 << 15)  # in an event's second half: p above 1, y or x below 0
_BEYOND = 1 << 15  # more rows and columns than the fields of an event can hold


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
    before = int(events["t"][0]) if last is None else last
    if sensor_hw is None and _LITTLE and events.flags.c_contiguous:
        if _all_plain(events.view(np.int64), before, in_order):
            return
    elif _all_sound(events, min(height, _BEYOND), min(width, _BEYOND), before, in_order):
        return
    x, y, t, p = (events[name] for name in "xytp")
    previous = np.concatenate([[before], t[:-1]])
    back = (t < previous) & in_order
    flawed = (x < 0) | (x >= width) | (y < 0) | (y >= height) | (p > 1) | back
    at = int(flawed.argmax())
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
def _all_plain(halves: NDArray[np.int64], before: int, in_order: bool) -> bool:
    """Whether no event, in two 64-bit halves each, has a flaw, the sensor aside; in half the time of what follows."""
    flaws, back, previous = np.int64(0), False, before
    for i in range(np.uint64(len(halves) // 2)):
        time = halves[2 * i]
        flaws |= halves[2 * i + 1]
        back |= time < previous
        previous = time
    return not (flaws & _FLAWS) and not (back and in_order)


@kernel
def _all_sound(events: Events, height: int, width: int, before: int, in_order: bool) -> bool:
    """Whether no event has a flaw. Without a way out of the loop, so that it is vectorised."""
    rows, columns = np.uint16(height), np.uint16(width)
    odd, previous = False, before
    for i in range(np.uint64(len(events))):
        event = events[i]
        # Unsigned and 16 bits wide, negative coordinates are beyond any sensor.
        odd |= (np.uint16(event.x) >= columns) | (np.uint16(event.y) >= rows) | (event.p > 1)
        odd |= in_order & (event.t < previous)
        previous = event.t
    return not odd
