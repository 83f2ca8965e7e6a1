"""The two layouts that the data sets come in, turned into events at a third of the cost of the rules in full.

Nothing is told or refused here: None wherever the rules of :mod:`eventclip.io.columns` would decide otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.events.kernels import kernel

LONGEST_S = 10_000.0
"""Times with fractions are taken for seconds in recordings shorter than this."""

TOO_LATE_US = 10**17
"""Whole times from here on are no microseconds: it would be the year 5138."""

_ROWS = {np.dtype(kind): np.dtype([(name, kind) for name in "xytp"]) for kind in (np.float32, np.float64)}
_ZERO, _ONE, _LARGEST, _LONG = np.float32(0), np.float32(1), np.float32(32767), np.float32(1e12)
"""As narrow as the narrowest table's numbers, which compares more of them at once."""


def from_seconds(table: NDArray[Any]) -> Events | None:
    """Events from a table such as the EST release's of N-Caltech101 and N-Cars.

    Args:
        table: (N, 4) array of x and y [px], t [s] and p, either -1 and 1 or 0 and 1; of any type and layout.

    Returns:
        (N,) array of EVENT_DTYPE in the order of the table; None where it is no table of floats in single or double
        precision, or not one of events in seconds beyond doubt.
    """
    row = _ROWS.get(table.dtype)
    if row is None or not len(table):
        return None
    rows = np.frombuffer(np.ascontiguousarray(table), row)  # a third of the time of a view
    if not _are_events_in_seconds(rows) or not float(rows["t"][-1]) - float(rows["t"][0]) < LONGEST_S:
        return None
    events = np.empty(len(rows), EVENT_DTYPE)
    _fill_from_seconds(rows, events)
    return events


def from_microseconds(t: NDArray[Any], x: NDArray[Any], y: NDArray[Any], p: NDArray[Any]) -> Events | None:
    """Events from columns of whole numbers such as N-ImageNet's.

    Args:
        t: (N,) times [µs].
        x: (N,) columns of the sensor [px].
        y: (N,) rows of the sensor [px].
        p: (N,) polarities, -1 and 1, 0 and 1, or boolean.

    Returns:
        (N,) array of EVENT_DTYPE in the order of the columns; None where they are not whole numbers, differ in length,
        or hold anything that a rule has to judge.
    """
    if any(column.dtype.kind not in "iu" for column in (t, x, y)) or p.dtype.kind not in "biu":
        return None
    if len({column.shape for column in (t, x, y, p)}) != 1 or t.ndim != 1:
        return None
    t, x, y, p = (column.view() for column in (t, x, y, p))
    for column in (t, x, y, p):
        column.flags.writeable = False  # as those of archives are: the kernel is compiled once for both
    events = np.empty(len(t), EVENT_DTYPE)
    return events if _fill_from_microseconds(t, x, y, p, events) else None


@kernel
def _are_events_in_seconds(rows: NDArray[Any]) -> bool:
    """Whether all rows, one or more, are events in order of time, times have fractions, and polarity has one coding.

    A loop without ways out of it, and apart from the one that writes events, because so it is vectorised.
    """
    odd, fraction, off, zero, before = False, False, False, False, rows[0].t
    for i in range(np.uint64(len(rows))):
        row = rows[i]
        x, y, t, p = row.x, row.y, row.t, row.p
        odd |= np.floor(min(max(x, _ZERO), _LARGEST)) != x  # holds for NaN too
        odd |= np.floor(min(max(y, _ZERO), _LARGEST)) != y
        odd |= np.floor(min(max(p, -_ONE), _ONE)) != p
        odd |= (t < before) | (not abs(t) <= _LONG)
        before = t
        fraction |= np.floor(t) != t
        off |= p < _ZERO
        zero |= p == _ZERO
    return fraction and not odd and not (off and zero)


@kernel
def _fill_from_seconds(rows: NDArray[Any], events: Events) -> None:
    """Fill events from rows that are events; in order as they are, since rounding keeps it."""
    for i in range(np.uint64(len(rows))):
        row, event = rows[i], events[i]
        event.t = np.int64(np.rint(np.float64(row.t) * 1e6))
        event.x, event.y, event.p = np.int32(row.x), np.int32(row.y), row.p > _ZERO


@kernel
def _fill_from_microseconds(t: NDArray[Any], x: NDArray[Any], y: NDArray[Any], p: NDArray[Any], events: Events) -> bool:
    """Fill events from columns; False where a row cannot be an event, or the coding of polarity is mixed."""
    previous, off, zero = np.int64(0), False, False
    for i in range(np.uint64(len(events))):
        # Before the conversions, which are undefined beyond a type's range.
        if not (0 <= t[i] < TOO_LATE_US and 0 <= x[i] <= 32767 and 0 <= y[i] <= 32767 and -1 <= p[i] <= 1):
            return False
        micros, sign = np.int64(t[i]), np.int64(p[i])
        if micros < previous:
            return False
        previous = micros
        off |= sign < 0
        zero |= sign == 0
        event = events[i]
        event.t, event.x, event.y, event.p = micros, np.int32(x[i]), np.int32(y[i]), sign > 0
    return not (off and zero)
