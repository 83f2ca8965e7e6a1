"""What the columns of a table of events mean: their names, the unit of time, the coding of polarity.

Every container of columns (numpy, HDF5, text) comes through here, so the rules exist once:

- Whole-number times are microseconds, as in N-ImageNet, Prophesee's and most other data sets.
- Times with fractions are seconds, as in the EST release of N-Caltech101 and N-Cars, if the recording then lasts
  less than 10,000 of them.
- Whole numbers stored as floating point are microseconds if they span at least 1000; below that nobody can tell.
- Polarity is boolean, {0, 1} or {-1, 1}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE, Events, events_from_columns
from eventclip.events.kernel import kernel
from eventclip.events.plain_tables import LONGEST_S, TOO_LATE_US, from_microseconds, from_seconds

TIME_UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Microseconds in each unit that ``time_unit`` may name."""

_ALIASES = {
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
_LETTERS = {alias: letter for letter, aliases in _ALIASES.items() for alias in aliases}
EST_ORDER = "xytp"
"""Columns of the EST release's (N, 4) arrays (Gehrig et al., ICCV 2019), taken for all arrays without names."""

COLUMNS_WANTED = "the columns t, x, y and p (or ts, xs, ys, polarity and the like)"
"""For messages."""

_SHORTEST_US = 1_000.0
_NAME_AND_UNIT = re.compile(r"([a-z]+)(?:\s*\[(\w+)\]|\s*\((\w+)\)|_(s|ms|[uµμ]s|ns))?")


def find_columns(names: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """Find the columns of events among names such as ``ts``, ``polarity`` or ``t_us``.

    Args:
        names: names of columns, fields or data sets, in any order and case; others may be among them.

    Returns:
        The name of each of "t", "x", "y", "p" that is there, and the unit of time where its name tells it.

    Raises:
        RecordingError: two names for one column.
    """
    found: dict[str, str] = {}
    unit = None
    for name in names:
        match = _NAME_AND_UNIT.fullmatch(name.strip().lower())
        letter = _LETTERS.get(match[1]) if match else None
        if match is None or letter is None:
            continue
        if letter in found:
            raise RecordingError(f"has two columns for {letter}, {found[letter]} and {name}: expected one")
        found[letter] = name
        if letter == "t":
            unit = next((part.replace("µ", "u").replace("μ", "u") for part in match.groups()[1:] if part), None)
    return found, unit


def read_table(
    loaded: NDArray[Any] | Mapping[str, NDArray[Any]],
    time_unit: str | None,
    order: str | None,
    *,
    guess_order: bool = False,
) -> Events:
    """Turn what a container held into events.

    Args:
        loaded: named columns, a structured array, or an (N, 4) array.
        time_unit: "s", "ms", "us" or "ns"; None tells it by the rules of this module.
        order: order of the columns of an (N, 4) array; None takes EST_ORDER, or tells it.
        guess_order: tell the order from the numbers or refuse, as text has no such convention.

    Returns:
        (N,) array of EVENT_DTYPE in the order of the file; no copy where it was one already, and not read-only.

    Raises:
        UserError: a column that is missing or not numeric, a unit or order that cannot be told, or a value that no
            camera can have sent; the first such row is named.
    """
    if isinstance(loaded, np.ndarray):
        if loaded.ndim == 1 and loaded.dtype == EVENT_DTYPE and time_unit in {None, "us"} and order is None:
            return check_recording(np.require(loaded, requirements="W"))
        names = list(loaded.dtype.names or ())
        if (loaded.shape[1:] != (4,) or loaded.dtype.kind not in "iuf") if not names else loaded.ndim != 1:
            raise RecordingError(
                f"holds an array of shape {loaded.shape} and type {loaded.dtype}: expected numbers of shape (N, 4), or "
                f"a structured array of shape (N,) with {COLUMNS_WANTED}"
            )
        if not names:
            order = order or (_told_order(loaded) if guess_order else EST_ORDER)
            if order == EST_ORDER and time_unit in {None, "s"} and loaded.dtype.kind == "f":
                events = from_seconds(loaded)
                if events is not None:
                    return events
            table = {name: loaded[:, order.index(name)] for name in "txyp"}
            return _events_from(table, time_unit)
    else:
        names = list(loaded)
    found, unit = find_columns(names)
    missing = [name for name in "txyp" if name not in found]
    if missing:
        raise RecordingError(
            f"has the columns {', '.join(names)} and none for {', '.join(missing)}: expected {COLUMNS_WANTED}"
        )
    if order is not None:
        raise RecordingError(
            f"has names for its columns ({', '.join(names)}), so that columns={order!r} does not apply"
        )
    table = {name: np.atleast_1d(loaded[column]) for name, column in found.items()}
    return _events_from(table, time_unit or unit)


def check_recording(events: Events) -> Events:
    """Refuse events that no camera can have sent; every format ends here.

    Args:
        events: (N,) array of EVENT_DTYPE as it came from the file.

    Returns:
        The same array.

    Raises:
        RecordingError: a negative coordinate, a polarity other than 0 and 1, or time running backwards; the first
            such event is named.
    """
    row = _first_flaw(events)
    if row < 0:
        return events
    for name, expected in (("x", "0 or more"), ("y", "0 or more"), ("p", "0 or 1")):
        if events[name][row] < 0 or (name == "p" and events["p"][row] > 1):
            raise RecordingError(f"has {name} = {events[name][row]} at row {row}: expected {expected}")
    before, after = events["t"][row - 1 : row + 1]
    raise RecordingError(
        f"runs backwards in time at row {row}, from {before} to {after} µs: expected events in order of time"
    )


def _events_from(columns: Mapping[str, NDArray[Any]], time_unit: str | None) -> Events:
    """Events from a column each of "t", "x", "y", "p", checked."""
    for name, column in columns.items():
        if column.dtype.kind not in "biuf":
            raise RecordingError(f"has the column {name} of type {column.dtype}: expected numbers")
    columns = {name: _native(column) for name, column in columns.items()}
    if time_unit in {None, "us"}:
        events = from_microseconds(**columns)
        if events is not None:
            return events
    return check_recording(
        events_from_columns(
            _microseconds(columns["t"], time_unit), columns["x"], columns["y"], _on_or_off(columns["p"])
        )
    )


def _native(column: NDArray[Any]) -> NDArray[Any]:
    """A column in this machine's byte order and no narrower than single precision: kernels know no other."""
    wide = column.astype(np.float32) if column.dtype.kind == "f" and column.dtype.itemsize == 2 else column
    return wide.astype(wide.dtype.newbyteorder("="), copy=False)


def _told_order(table: NDArray[Any]) -> str:
    """Tell "xytp" from "txyp" in a table without names."""
    return settle_order(fitting_orders(table))


def fitting_orders(table: NDArray[Any]) -> set[str]:
    """Orders of columns that fit a piece of a table without names: coordinates are whole, time never runs backwards."""
    fitting = set()
    for order in (EST_ORDER, "txyp"):
        x, y, t = (table[:, order.index(name)] for name in "xyt")
        places = np.stack([x, y])
        pixels = (places >= 0) & (places <= np.iinfo(np.int16).max) & (places == np.floor(places))
        if pixels.all() and (t[1:] >= t[:-1]).all():
            fitting.add(order)
    return fitting


def settle_order(fitting: set[str]) -> str:
    """The one order that fits all of a table; RecordingError where none or both do."""
    if len(fitting) != 1:
        found = "both orders fit" if fitting else "neither order fits"
        raise RecordingError(
            f"has columns without names that cannot be told to be x, y, t, p or t, x, y, p ({found}): put the names "
            f'in the first line or give columns="xytp" or "txyp"'
        )
    return next(iter(fitting))


def _microseconds(times: NDArray[Any], unit: str | None) -> NDArray[Any]:
    """Convert times to whole microseconds; type int64 or float64."""
    if times.dtype.kind == "b":
        raise RecordingError("has the column t of type bool: expected times")
    whole = times.dtype.kind in "iu"
    if not whole and not np.isfinite(times).all():
        row = int(np.isfinite(times).argmin())
        raise RecordingError(f"has t = {times[row]} at row {row}: expected a finite time")
    factor = TIME_UNITS[unit or _told_unit(times)]
    if factor == 1.0:
        return times if whole else np.rint(times.astype(np.float64))
    if whole and factor < 1.0:
        return times // round(1 / factor)
    return np.rint(times.astype(np.float64) * factor)


def _told_unit(times: NDArray[Any]) -> str:
    """Tell the unit of finite times by the rules of this module, or refuse."""
    if len(times) == 0:
        return "us"
    integer = times.dtype.kind in "iu"
    whole = integer or bool((times == np.floor(times)).all())
    return tell_unit(times.min(), times.max(), integer=integer, whole=whole)


def tell_unit(first: Any, last: Any, *, integer: bool, whole: bool) -> str:
    """Tell the unit of a recording's times from what is known of all of them.

    Args:
        first: the smallest.
        last: the largest.
        integer: whether they are stored as integers.
        whole: whether none of them has a fraction.

    Returns:
        "us" or "s".

    Raises:
        RecordingError: it cannot be told.
    """
    ask = "give time_unit=s, ms, us or ns (data.time_unit=... for a data set)"
    if integer:
        if last >= TOO_LATE_US:
            raise RecordingError(f"has whole-number times up to {last}, too late for microseconds: {ask}")
        return "us"
    span = float(last) - float(first)
    if whole:
        if span >= _SHORTEST_US or first == last == 0:
            return "us"
        raise RecordingError(f"has whole floating-point times from {first} to {last}, whose unit cannot be told: {ask}")
    if span < LONGEST_S:
        return "s"
    raise RecordingError(
        f"has times with fractions from {first} to {last}, too long for seconds, so that the unit cannot be told: {ask}"
    )


def _on_or_off(polarity: NDArray[Any]) -> NDArray[Any]:
    """Bring {-1, 1} to {0, 1}; leaves {0, 1} and boolean as they are, for events_from_columns to check."""
    if polarity.dtype.kind in "bu" or len(polarity) == 0 or not polarity.min() < 0:
        return polarity
    other = np.abs(polarity) != 1
    if other.any():
        row = int(other.argmax())
        raise RecordingError(f"has p = {polarity[row]} at row {row}: expected 1 or -1 as in other rows")
    return polarity > 0


@kernel
def _first_flaw(events: Events) -> int:
    """The first row with a negative coordinate, a polarity above 1, or a time before the last; −1 where none."""
    for i in range(len(events)):
        event = events[i]
        if event.x < 0 or event.y < 0 or event.p > 1 or (i > 0 and event.t < events[i - 1].t):
            return i
    return -1
