"""What the columns of a table of events mean: the unit of time, the coding of polarity, the order without names.

Every container of columns (numpy, HDF5, text) comes through here, so the rules exist once:

- Whole-number times are microseconds, as in N-ImageNet, Prophesee's and most other data sets.
- Times with fractions are seconds, as in the EST release of N-Caltech101 and N-Cars, if the recording then lasts
  less than 10,000 of them.
- Whole numbers stored as floating point are microseconds if they span at least 1000; below that nobody can tell.
- Polarity is boolean, {0, 1} or {-1, 1}, in one coding throughout.
- Arrays without names are x, y, t, p; text without names is in the one usual order that fits all of it.

What a whole table tells, its unit and order, takes a pass over it before its events are handed out, so that it does
not depend on how large the pieces are. What is wrong with a row is told once the events before it are handed out.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import EVENT_DTYPE, Events, copy_column
from eventclip.io.checks import check_sound
from eventclip.io.formats import TIME_UNITS, DamageError, Opened, ReadOptions, doubted, together
from eventclip.io.names import COLUMNS_WANTED, find_columns, missing_in
from eventclip.io.plain_tables import TOO_LATE_US, from_microseconds, from_seconds
from eventclip.io.telling import ASK_UNIT, ColumnSurvey, settle_order, tell_unit

EST_ORDER = "xytp"
"""Columns of the EST release's (N, 4) arrays (Gehrig et al., ICCV 2019), taken for all arrays without names."""

Piece = NDArray[Any] | Mapping[str, NDArray[Any]]
"""Rows of a table: named columns, a structured array, or an (n, C) array."""

_RANGE = {"t": 2**62, "x": 2**15 - 1, "y": 2**15 - 1}
_TAKEN = {"s": "seconds, as their fractions tell", "us": "microseconds, as whole numbers are"}


@dataclass(eq=False)
class Table:
    """A table of events that can be read from its start as often as is needed.

    Attributes:
        read: begins to read it: pieces in the order of the file, at least one. Where a row cannot be read, it gives
            those before it and raises DamageError.
        in_one: whether it comes in one piece, which is in memory.
        guess_order: tell the order of columns without names from the numbers, as text has no convention.
    """

    read: Callable[[], Iterator[Piece]]
    in_one: bool = False
    guess_order: bool = False

    def opened(
        self, options: ReadOptions, *, sensor_hw: tuple[int, int] | None = None, total: int | None = None
    ) -> Opened:
        """The table as a recording of events.

        Raises:
            RecordingError: a column that is missing or not numeric, a unit or order that cannot be told; what is wrong
                with a row is raised where it is reached.
        """
        opened = Opened(iter(()), sensor_hw, total)
        try:
            opened.chunks = _events(self, options, opened)
        except UserError as error:
            raise doubted(opened, error) from error
        return opened


def table_in_memory(loaded: Piece, chunk_events: int, *, guess_order: bool = False) -> Table:
    """A table that is in memory, to be handed out in pieces; RecordingError where its columns differ in length."""
    if isinstance(loaded, np.ndarray):
        rows = len(loaded) if loaded.ndim else 0
    else:
        lengths = [len(column) if column.ndim else 0 for column in loaded.values()]
        rows = min(lengths)
        if rows != max(lengths):
            raise RecordingError(f"has columns of {rows} and of {max(lengths)} events: expected equally long ones")

    def read() -> Iterator[Piece]:
        for start in range(0, rows, chunk_events):
            part = slice(start, start + chunk_events)
            yield loaded[part] if isinstance(loaded, np.ndarray) else {name: c[part] for name, c in loaded.items()}

    if rows <= chunk_events:
        return Table(lambda: iter([loaded]), in_one=True, guess_order=guess_order)
    return Table(read, guess_order=guess_order)


def read_table(loaded: Piece, time_unit: str | None, order: str | None) -> Events:
    """Turn a table that is in memory into events.

    Args:
        loaded: named columns, a structured array, or an (N, 4) array.
        time_unit: "s", "ms", "us" or "ns"; None tells it by the rules of this module.
        order: order of the columns of an array without names; None takes EST_ORDER.

    Returns:
        (N,) array of EVENT_DTYPE; no copy where it was one already, and not read-only.

    Raises:
        UserError: a column that is missing or not numeric, a unit or order that cannot be told, or a value that no
            camera can have sent; the first such row is named.
    """
    table = table_in_memory(loaded, sys.maxsize)
    opened = table.opened(ReadOptions(time_unit=time_unit, columns=order))
    chunks = []
    for events in opened.chunks:
        check_sound(events, None)
        chunks.append(events)
    return together(chunks)


def _events(table: Table, options: ReadOptions, opened: Opened) -> Iterator[Events]:
    """The pieces of a table as events; fills the notes and the doubt of ``opened``."""
    first = next(table.read())
    names = list(first.dtype.names or ()) if isinstance(first, np.ndarray) else list(first)
    if isinstance(first, np.ndarray):
        refuse_other_arrays(first.shape, first.dtype)
    if isinstance(first, np.ndarray) and not names:
        order = options.columns
        if order is None and not table.guess_order and first.shape[1] == 4:
            if options.sort and (seeming := _seeming(table)) != EST_ORDER:
                raise RecordingError(f"has events out of order as x, y, t, p: {_look_like(seeming)}")
            order, opened.doubt = EST_ORDER, partial(_doubt, EST_ORDER, table)
            if table.in_one and options.time_unit in {None, "s"} and (events := from_seconds(first)) is not None:
                if options.time_unit is None:
                    opened.notes.append(_IN_SECONDS)
                return iter([events])
        return _unnamed(table, first, order, options, opened)
    own = isinstance(first, np.ndarray) and first.ndim == 1 and first.dtype == EVENT_DTYPE
    if own and options.time_unit in {None, "us"} and options.columns is None:
        return (np.require(piece, requirements="W").view(EVENT_DTYPE) for piece in table.read())
    return _named(table, first, names, options, opened)


def refuse_other_arrays(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse an array that is neither structured nor one of numbers along two axes."""
    if (len(shape) != 2 or not shape[1] or dtype.kind not in "iuf") if dtype.names is None else len(shape) != 1:
        raise RecordingError(
            f"holds an array of shape {shape} and type {dtype}: expected numbers of shape (N, 4), or a structured "
            f"array of shape (N,) with {COLUMNS_WANTED}"
        )


def _unnamed(
    table: Table, first: NDArray[Any], order: str | None, options: ReadOptions, opened: Opened
) -> Iterator[Events]:
    """Events of a table whose columns have no names."""
    width = first.shape[1]
    if len(order or EST_ORDER) != width:
        rows = 0
        with contextlib.suppress(DamageError):
            for piece in table.read():
                rows += len(piece)
        told = f"columns={order} names {len(order)}" if order else "expected 4, t, x, y and p"
        ask = "a letter for each, t, x, y, p, and _ for one to leave out"
        raise RecordingError(
            f"holds an array of shape {(rows, width)}, so {width} columns without names, and {told}"
            + (f": give columns={'txyp'.ljust(width, '_')} or the like, {ask}" if 3 < width < 17 else "")
        )
    survey = None
    if order is None:
        surveys = _surveyed(table, lambda piece: piece.T, width)
        order = settle_order(surveys) if surveys[0].rows else EST_ORDER
        survey = surveys[order.index("t")]
        opened.doubt = partial(_doubt, order)
        opened.notes.append(
            f"columns are taken for {', '.join(order)}, as the numbers tell: give columns={_other(order)} or the like "
            f"if they are not"
        )
    places = {name: order.index(name) for name in "txyp"}

    def columns_of(piece: Any) -> dict[str, NDArray[Any]]:
        return {name: piece[:, place] for name, place in places.items()}

    return _converted(table, columns_of, _unit(table, columns_of, first, options, opened, survey=survey), options)


def _named(table: Table, first: Any, names: list[str], options: ReadOptions, opened: Opened) -> Iterator[Events]:
    """Events of a table whose columns have names."""
    found, unit = find_columns(names)
    missing = missing_in(found)
    if missing:
        raise RecordingError(
            f"has the columns {', '.join(names)} and none for {', '.join(missing)}: expected {COLUMNS_WANTED}"
        )
    if options.columns is not None:
        raise RecordingError(
            f"has names for its columns ({', '.join(names)}), so that columns={options.columns} does not apply"
        )

    def columns_of(piece: Any) -> dict[str, NDArray[Any]]:
        picked = {name: np.atleast_1d(piece[column]) for name, column in found.items()}
        if "xy" in picked:
            both = picked.pop("xy")
            if both.ndim != 2 or both.shape[1] != 2:
                raise RecordingError(f"has the column {found['xy']} of another shape: expected (N, 2), x and y")
            picked["x"], picked["y"] = both.T
        if "secs" in picked:
            picked["t"] = _joined(picked.pop("secs"), picked.pop("nsecs"))
        return picked

    if "secs" in found:
        return _converted(table, columns_of, "us", options)
    if unit is not None and options.time_unit is None and unit not in TIME_UNITS:
        raise RecordingError(
            f"gives its times in {unit!r} by the name of the column {found['t']}: expected s, ms, us or ns, so "
            f"write them in one of these, or give time_unit=us (or s, ms, ns) if that is what they are"
        )
    told = options.time_unit or unit
    return _converted(table, columns_of, told or _unit(table, columns_of, first, options, opened), options)


@np.errstate(invalid="ignore", over="ignore")
def _joined(seconds: NDArray[Any], nanoseconds: NDArray[Any]) -> NDArray[Any]:
    """Times [µs] from whole seconds and the nanoseconds after them, as ROS keeps them."""
    if seconds.dtype.kind in "iu" and nanoseconds.dtype.kind in "iu":
        joined: NDArray[Any] = seconds.astype(np.int64) * 1_000_000 + nanoseconds.astype(np.int64) // 1_000
    else:
        joined = np.floor(seconds * 1e6 + nanoseconds / 1e3)
    return joined


def _unit(
    table: Table,
    columns_of: Callable[[Any], dict[str, NDArray[Any]]],
    first: Any,
    options: ReadOptions,
    opened: Opened,
    *,
    survey: ColumnSurvey | None = None,
) -> str | None:
    """The unit of the times, given or told from all of them; None for microseconds because they are whole."""
    if options.time_unit is not None:
        return options.time_unit
    times = columns_of(first)["t"]
    if times.dtype.kind in "iu" or not (survey.rows if survey else len(times)):
        if len(times):
            opened.notes.append(_taken("us"))
        return None
    if times.dtype.kind != "f":
        return None  # refused where it is converted
    if survey is None:
        (survey,) = _surveyed(table, lambda piece: [columns_of(piece)["t"]], 1)
    unit = tell_unit(survey)
    opened.notes.append(_taken(unit))
    return unit


def _surveyed(table: Table, columns_of: Callable[[Any], Any], count: int) -> list[ColumnSurvey]:
    """Go through all rows that can be read; what is beyond is told when it is reached again."""
    surveys = [ColumnSurvey() for _ in range(count)]
    with contextlib.suppress(DamageError):
        for piece in table.read():
            for survey, column in zip(surveys, columns_of(piece), strict=True):
                survey.add(_native(column), times_only=count == 1)
    return surveys


def _converted(
    table: Table, columns_of: Callable[[Any], dict[str, NDArray[Any]]], unit: str | None, options: ReadOptions
) -> Iterator[Events]:
    """Pieces as events; what is wrong with a row is raised after the events before it."""
    rows, coding = 0, 0
    for piece in table.read():
        columns = columns_of(piece)
        for name, column in columns.items():
            if column.dtype.kind not in ("iuf" if name == "t" else "biuf") or column.ndim != 1:
                axes = f" along {column.ndim} axes" if column.ndim != 1 else ""
                raise RecordingError(f"has the column {name} of type {column.dtype}{axes}: expected numbers")
        columns = {name: _native(column) for name, column in columns.items()}
        events = from_microseconds(**columns) if unit in {None, "us"} else None
        if events is not None and table.in_one:
            yield events
            return
        flaw = None
        if events is None:
            events, flaw = _in_full(columns, unit, rows, clip=options.drop_outside)
        coding, mixed = _one_coding(columns["p"][: len(events)], coding, rows)
        if mixed is not None:
            events, flaw = events[: mixed[0]], mixed[1]
        yield events
        if flaw is not None:
            raise flaw
        rows += len(events)


@np.errstate(invalid="ignore", over="ignore")  # what is no number is found and told
def _in_full(
    columns: Mapping[str, NDArray[Any]], unit: str | None, first: int, *, clip: bool
) -> tuple[Events, RecordingError | None]:
    """Events by the rules in full, up to the first row that is none, and what to say of that."""
    events = np.zeros(len(columns["t"]), EVENT_DTYPE)
    flaws = []
    times, odd = _microseconds(columns["t"], unit)
    if odd is not None:
        flaws.append(odd)
    for name in "txy":
        column = times if name == "t" else columns[name]
        limit = _RANGE[name]
        if clip and name != "t" and column.dtype.itemsize > 1:
            # Beyond any sensor, so that it is left out with the others that are outside.
            far = ((column > limit) | (column < -limit)) & np.isfinite(column)
            column = np.where(far, column.dtype.type(limit), column)
        row = copy_column(column, events[name], -limit - 1, limit)
        if row >= 0:
            expected = "a time in 64 bits" if name == "t" else f"a whole number from 0 to {limit}"
            flaws.append((row, f"has {name} = {columns[name][row]}", expected))
    signs = columns["p"]
    off = (signs != 0) & (signs != 1) & (signs != -1)
    if off.any():
        row = int(off.argmax())
        flaws.append((row, f"has p = {signs[row]}", "0 or 1, or -1 or 1"))
    events["p"] = signs > 0
    if not flaws:
        return events, None
    row, found, expected = min(flaws, key=lambda one: one[0])
    return events[:row], RecordingError(f"{found} at row {first + row}: expected {expected}")


def _one_coding(signs: NDArray[Any], before: int, first: int) -> tuple[int, tuple[int, RecordingError] | None]:
    """Which codings of OFF there have been, 1 for -1 and 2 for 0, and the row where a second one begins."""
    if signs.dtype.kind in "bu":
        return before, None
    minus, zero = signs < 0, signs == 0
    coding = before | int(minus.any()) | 2 * int(zero.any())
    if coding != 3:
        return coding, None
    row = max(0 if before & 1 else int(minus.argmax()), 0 if before & 2 else int(zero.argmax()))
    other = 0 if signs[row] < 0 else -1
    return coding, (
        row,
        RecordingError(
            f"has p = {signs[row]} at row {first + row}, and {other} in a row before it: expected 1 or -1 as in other "
            f"rows, or 1 or 0"
        ),
    )


def _microseconds(times: NDArray[Any], unit: str | None) -> tuple[NDArray[Any], tuple[int, str, str] | None]:
    """Whole microseconds, int64 or float64, and the first row that has none."""
    whole = times.dtype.kind in "iu"
    odd = None
    if whole and unit is None:
        late = times >= TOO_LATE_US
        if late.any():
            row = int(late.argmax())
            odd = (
                row,
                f"has t = {times[row]}",
                f"whole-number times in microseconds, for which it is too late: {ASK_UNIT}",
            )
    elif not whole:
        finite = np.isfinite(times)
        if not finite.all():
            row = int(finite.argmin())
            odd = row, f"has t = {times[row]}", "a finite time"
            times = np.where(finite, times, 0)
    factor = TIME_UNITS[unit or "us"]
    if factor == 1.0:
        return times if whole else np.rint(times.astype(np.float64)), odd
    if whole and factor < 1.0:
        wide = times if times.dtype.itemsize == 8 else times.astype(np.int64)
        return wide // wide.dtype.type(round(1 / factor)), odd
    return np.rint(times.astype(np.float64) * factor), odd


@np.errstate(invalid="ignore", over="ignore")
def _native(column: NDArray[Any]) -> NDArray[Any]:
    """A column in this machine's byte order, in single or double precision: kernels know no other."""
    if column.dtype.kind == "f" and column.dtype.itemsize not in {4, 8}:
        return column.astype(np.float32 if column.dtype.itemsize == 2 else np.float64)
    return column.astype(column.dtype.newbyteorder("="), copy=False)


def _taken(unit: str) -> str:
    return f"times are taken for {_TAKEN[unit]}: give time_unit=ms (or s, us, ns) if they are not"


_IN_SECONDS = _taken("s")


def _doubt(order: str, array: Table | None = None) -> str:
    """What was taken for granted of columns without names, and what it may be instead."""
    seeming = order if array is None else _seeming(array)
    taken = f"its columns were taken for {', '.join(order)}"
    if seeming != order:
        return f"{taken}, and {_look_like(seeming)}"
    return f"{taken}: give columns={_other(order)} or the like if they are in another order"


def _seeming(array: Table) -> str:
    """The order that the numbers of an (N, 4) array tell, which is EST_ORDER where they tell none."""
    try:
        return settle_order(_surveyed(array, lambda piece: piece.T, 4))
    except RecordingError:
        return EST_ORDER


def _look_like(order: str) -> str:
    return f"its numbers look like {', '.join(order)}, so give columns={order}"


def _other(order: str) -> str:
    return "txyp" if order == EST_ORDER else EST_ORDER
