"""Read a recording, whatever its format: one registry, one stream, and the same checks for all of them.

Each format is one function that opens a file and hands out its events in pieces; reading a file whole is its pieces
put together, so that both give the same events or the same sentence.
"""

from __future__ import annotations

import importlib
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from eventclip.errors import RecordingError, UserError, printable, reason
from eventclip.events.array import EVENT_DTYPE, Events, check_sensor
from eventclip.io.checks import check_sound, rows_inside

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(("file_format", "time_unit", "columns", "stream"), ((str, type(None)), "text")),
    **dict.fromkeys(("sort", "drop_outside"), ((bool,), "true or false")),
}
"""What each option can be, and what that is called."""

TIME_UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
"""Microseconds in each unit that ``time_unit`` may name."""

CHUNK_EVENTS = 1 << 19
LARGEST_BYTES = 4 << 30


class DamageError(RecordingError):
    """Bytes or a line that cannot be read, whatever its columns mean."""


@dataclass(frozen=True)
class ReadOptions:
    """How to read a recording, where the file leaves it open.

    Example:
        >>> from eventclip import ReadOptions, open_stream
        >>> stream = open_stream("star.npy", ReadOptions(sort=True, drop_outside=True), sensor_hw=(128, 128))
        >>> stream.sensor_hw
        (128, 128)

    Attributes:
        file_format: name of a format; None goes by the suffix.
        time_unit: unit of time in a table, "s", "ms", "us" or "ns"; None tells it, see :mod:`eventclip.io.columns`.
        columns: order of the columns of a table without names, such as "xytp", "txyp" or "xypt", with _ for one that
            is left out; None tells it.
        stream: which of several tables of events in HDF5 ("left", "davis/left") or streams in aedat4: a name, a part
            of a path, or a number.
        sort: sort events that are out of order by time, stably, and count them in a note; all of them are read first.
        drop_outside: leave out events outside the sensor, and count them in a note.
        largest_bytes: refuse what would unpack to more.
    """

    file_format: str | None = None
    time_unit: str | None = None
    columns: str | None = None
    stream: str | None = None
    sort: bool = False
    drop_outside: bool = False
    largest_bytes: int = LARGEST_BYTES


@dataclass(eq=False)
class Opened:
    """What a format makes of a file.

    Attributes:
        chunks: (n,) arrays of EVENT_DTYPE in the order of the file; errors are what follows the path in a sentence.
        sensor_hw: the sensor's (height, width) where the file tells it, else None.
        total: number of events where it is known before the end, else None.
        notes: what was told from the numbers, one sentence each; filled as chunks are read.
        doubt: tells what was taken for granted and may be why events are wrong, for messages; asked only then.
    """

    chunks: Iterator[Events]
    sensor_hw: tuple[int, int] | None = None
    total: int | None = None
    notes: list[str] = field(default_factory=list)
    doubt: Callable[[], str] | None = None


@dataclass(eq=False)
class EventStream:
    """A recording that is being read.

    Attributes:
        chunks: (n,) arrays of EVENT_DTYPE in order of time, none of them empty; reads on as it is asked.
        sensor_hw: the sensor's (height, width) as given or as the file tells it, else None.
        total: number of events where it is known before the end, else None.
        notes: one sentence each on what was told from the numbers, sorted or left out; filled as chunks are read.
    """

    chunks: Iterator[Events]
    sensor_hw: tuple[int, int] | None = None
    total: int | None = None
    notes: list[str] = field(default_factory=list)


Open = Callable[[Path, ReadOptions, int], Opened]
"""Opens a file to be read in pieces of so many events."""


@dataclass(frozen=True)
class Format:
    """A format of recordings.

    Attributes:
        name: what ``file_format`` calls it.
        suffixes: what names of its files end in, in lower case.
        open: opens a file.
        options: which of time_unit, columns and stream apply to it.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Open
    options: frozenset[str] = frozenset()


def _later(module: str, function: str) -> Open:
    """A format that is imported when the first of its files is opened: a folder is listed without h5py or numba."""

    def open_file(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
        opened: Opened = getattr(importlib.import_module(f"eventclip.io.{module}"), function)(
            path, options, chunk_events
        )
        return opened

    return open_file


_TABLE = frozenset({"time_unit", "columns"})
_FORMATS = {
    one.name: one
    for one in (
        Format("npy", (".npy",), _later("numpy_files", "open_npy"), _TABLE),
        Format("npz", (".npz",), _later("numpy_files", "open_npz"), _TABLE),
        Format("bin", (".bin",), _later("atis", "open_bin")),
        Format("dat", (".dat",), _later("prophesee", "open_dat")),
        Format("raw", (".raw",), _later("prophesee", "open_raw")),
        Format("aedat4", (".aedat4", ".aedat"), _later("aedat", "open_aedat4"), frozenset({"stream"})),
        Format("hdf5", (".h5", ".hdf5"), _later("hdf5", "open_hdf5"), _TABLE | {"stream"}),
        Format("csv", (".csv", ".txt", ".csv.gz", ".txt.gz"), _later("text", "open_csv"), _TABLE),
    )
}

FORMATS = tuple(_FORMATS)
"""Names of the formats that this package brings."""


def readable_suffixes() -> tuple[str, ...]:
    """What the name of a recording may end in, in lower case; formats of one's own included."""
    return tuple(suffix for one in _FORMATS.values() for suffix in one.suffixes)


def register_format(name: str, suffixes: Sequence[str], open: Open) -> None:  # noqa: A002  (what it does)
    """Make a format of one's own known: to reading, to the commands, and to data sets of folders.

    Example:
        >>> import numpy as np
        >>> from eventclip import EVENT_DTYPE, read_events, register_format
        >>> from eventclip.io.formats import Opened
        >>> def open_plain(path, options, chunk_events):  # a format of nothing but events
        ...     events = np.fromfile(path, EVENT_DTYPE)
        ...     return Opened(events[i : i + chunk_events] for i in range(0, len(events), chunk_events))
        >>> register_format("plain", [".events"], open_plain)
        >>> np.array([(10, 3, 2, 1), (25, 4, 2, 0)], EVENT_DTYPE).tofile("two.events")
        >>> read_events("two.events")[0]["t"].tolist()
        [10, 25]

    Args:
        name: what ``file_format`` calls it.
        suffixes: what names of its files end in, such as (".evt",); those of other formats are taken over.
        open: gets the path, the :class:`ReadOptions` and the number of events in a piece, and gives :class:`Opened`.

    Raises:
        UserError: a name that is taken, or a suffix without a dot.
    """
    if name in _FORMATS:
        raise UserError(f"the recording format {name} is there already: give yours another name")
    if not name or not suffixes or not all(isinstance(one, str) and one.startswith(".") for one in suffixes):
        raise UserError(f"a format has a name and suffixes such as .{name or 'evt'}, got {list(suffixes)}")
    _FORMATS[name] = Format(name, tuple(suffix.lower() for suffix in suffixes), open, _TABLE | {"stream"})


def open_stream(
    path: str | Path,
    options: ReadOptions = ReadOptions(),
    *,
    sensor_hw: Sequence[int] | None = None,
    fallback_hw: tuple[int, int] | None = None,
    chunk_events: int = CHUNK_EVENTS,
) -> EventStream:
    """Open a recording to be read in pieces, so that its length does not decide how much memory it takes.

    Example:
        >>> from eventclip import open_stream, read_events
        >>> stream = open_stream("star.npy", chunk_events=1000)
        >>> sum(len(chunk) for chunk in stream.chunks) == len(read_events("star.npy")[0])
        True

    ``.npz`` is unpacked whole, and with ``sort`` all events are held. Tables whose times have fractions are gone
    through twice, because the unit is told from all of them, and so is text.

    Args:
        path: the file.
        options: how to read it.
        sensor_hw: height and width of the sensor [px], which then win over those that the file tells.
        fallback_hw: those that hold where neither ``sensor_hw`` nor the file tells any.
        chunk_events: events in a piece, about; 16 bytes each.

    Raises:
        RecordingError: the file is missing, unreadable, cut short, or not what its format promises; the sentence names
            the path, the byte, line or row counted from the start, and what was expected. What is wrong with events is
            raised where they are reached.
        UserError: an option that does not exist.
    """
    path = Path(path).expanduser()
    check_options(options)
    if not _is_usual(sensor_hw):
        check_sensor(sensor_hw)
    if not isinstance(chunk_events, int) or chunk_events < 1:
        raise UserError(f"chunk_events must be a whole number of 1 or more, got {chunk_events!r}")
    with Naming(path):
        chosen = _format_of(path, options)
        _refuse_what_is_no_file(path, chosen.name)
        opened = chosen.open(path, options, chunk_events)
        if chosen.name not in FORMATS:
            opened = _kept_to(opened, chosen.name)
    return checked_stream(
        path, opened, options, sensor_hw=sensor_hw, fallback_hw=fallback_hw, chunk_events=chunk_events
    )


def checked_stream(
    name: str | Path,
    opened: Opened,
    options: ReadOptions,
    *,
    sensor_hw: Sequence[int] | None = None,
    fallback_hw: tuple[int, int] | None = None,
    chunk_events: int = CHUNK_EVENTS,
) -> EventStream:
    """Check, sort and leave out as the options say what a format, or an array, holds.

    Args:
        name: what the sentences of its errors begin with.
        opened: the events as they are.
        options: how to read it.
        sensor_hw: as for :func:`open_stream`, as is ``fallback_hw``.
        fallback_hw: for where nobody tells the sensor.
        chunk_events: events in a piece, where they are sorted.
    """
    told = (opened.sensor_hw or fallback_hw) if sensor_hw is None else (int(sensor_hw[0]), int(sensor_hw[1]))
    total = None if options.drop_outside and told is not None else opened.total
    chunks = _checked(name, opened, told, options)
    if options.sort:
        chunks = _sorted(chunks, opened.notes, chunk_events)
    return EventStream(chunks, told, total, opened.notes)


def read_events(
    path: str | Path,
    format: str | None = None,  # noqa: A002  (the word users know)
    *,
    time_unit: str | None = None,
    columns: str | None = None,
    stream: str | None = None,
    sort: bool = False,
    drop_outside: bool = False,
    sensor_hw: Sequence[int] | None = None,
    largest_bytes: int = LARGEST_BYTES,
) -> tuple[Events, tuple[int, int] | None]:
    """Read all events of a recording, none dropped, none reordered unless that is asked for.

    Example:
        >>> from eventclip import read_events
        >>> events, sensor_hw = read_events("star.npy")
        >>> events.dtype.names, sensor_hw  # None: an .npy does not tell its sensor
        (('t', 'x', 'y', 'p'), None)

    Args:
        path: the file.
        format: one of FORMATS: "npy" and "npz" (the EST release, N-ImageNet, structured arrays), "bin" (ATIS),
            "dat" and "raw" (Prophesee), "aedat4" (iniVation), "hdf5", "csv" (any text); None goes by the suffix.
        time_unit: as in :class:`ReadOptions`, as are the other options.
        columns: order of a table without names.
        stream: which of several.
        sort: sort by time.
        drop_outside: leave out events outside the sensor.
        sensor_hw: height and width of the sensor [px], which then win over those that the file tells.
        largest_bytes: refuse what would unpack to more.

    Returns:
        (N,) array of EVENT_DTYPE in order of time, and the sensor's (height, width) where it is known, else None.
        N is 0 for a whole file without events.

    Raises:
        RecordingError: as for :func:`open_stream`.
        UserError: an option that does not exist.
    """
    options = ReadOptions(format, time_unit, columns, stream, sort, drop_outside, largest_bytes)
    opened = open_stream(path, options, sensor_hw=sensor_hw)
    return together(list(opened.chunks)), opened.sensor_hw


def pieces_of(events: Events, size: int) -> Iterator[Events]:
    """Cut (N,) events into arrays of ``size`` and a last one of what is left."""
    for start in range(0, len(events), size):
        yield events[start : start + size]


def together(chunks: Sequence[Events]) -> Events:
    """Put arrays of EVENT_DTYPE together to one; no copy of a single one."""
    if len(chunks) == 1:
        return chunks[0]
    opaque = np.dtype((np.void, EVENT_DTYPE.itemsize))  # numpy copies these eight times as fast as field by field
    whole = np.empty(sum(map(len, chunks)), opaque)
    start = 0
    for chunk in chunks:
        whole[start : start + len(chunk)] = chunk.view(opaque)
        start += len(chunk)
    return whole.view(EVENT_DTYPE)


class Naming:
    """Put the path before what went wrong with its recording, whatever it is: one bad file is one sentence.

    Args:
        path: what the sentence begins with.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        if isinstance(error, RecordingError):
            sentence = f"{self.path} {error}"
        elif isinstance(error, UserError):
            sentence = f"{self.path}: {error}"
        elif isinstance(error, OSError):
            sentence = f"{self.path} cannot be read: {error.strerror or error}"
        elif isinstance(error, Exception) or type(error).__name__ == "PanicException":  # of Rust code, no Exception
            name, told = type(error).__name__, reason(error)
            sentence = f"{self.path} cannot be read ({name if told == name else f'{name}: {told}'})"
        else:
            return
        raise RecordingError(printable(sentence)) from error


def doubted(opened: Opened, error: UserError) -> UserError:
    """Another such error, which says as well what was taken for granted about the events that are wrong."""
    if opened.doubt is None or isinstance(error, DamageError):
        return type(error)(str(error))  # never itself: raised from itself it would never be let go of, nor its file
    return type(error)(f"{error} ({opened.doubt()})")


def check_options(options: ReadOptions) -> None:
    """Refuse an option that no format has.

    Raises:
        UserError: one sentence that names those that there are.
    """
    for name, (kinds, called) in _KINDS.items():
        if not isinstance(getattr(options, name), kinds):
            raise UserError(f"{name} must be {called}, got {getattr(options, name)!r}")
    if options.file_format is not None and options.file_format not in _FORMATS:
        raise UserError(f"file_format must be one of {', '.join(_FORMATS)}, got {options.file_format!r}")
    if options.time_unit is not None and options.time_unit not in TIME_UNITS:
        raise UserError(f"time_unit must be one of {', '.join(TIME_UNITS)}, got {options.time_unit!r}")
    if options.columns is not None and sorted(options.columns.replace("_", "")) != sorted("txyp"):
        raise UserError(
            f"columns must name t, x, y and p once each, in the order of the file, such as xytp or txyp "
            f"(and _ for a column to leave out), got {options.columns!r}"
        )
    if type(options.largest_bytes) is not int or options.largest_bytes < 1:
        raise UserError(f"largest_bytes must be a whole number of 1 or more, got {options.largest_bytes!r}")


def _is_usual(sensor_hw: Sequence[int] | None) -> bool:
    """Whether nothing needs to be said of a sensor, which is so for one that was looked at before."""
    return isinstance(sensor_hw, tuple) and list(map(type, sensor_hw)) == [int, int] and min(sensor_hw) > 0


def _format_of(path: Path, options: ReadOptions) -> Format:
    """The format of a file, given or told by its suffix; refuses options that do not apply to it."""
    kind = options.file_format
    if kind is None:
        name = path.name.lower()
        fitting = [one.name for one in _FORMATS.values() if name.endswith(one.suffixes)]
        if not fitting:
            known = ", ".join(suffix for one in _FORMATS.values() for suffix in one.suffixes)
            raise RecordingError(
                f"has a suffix of no known format: expected one of {known}, or give file_format=, one of "
                f"{', '.join(_FORMATS)}"
            )
        kind = fitting[-1]
    chosen = _FORMATS[kind]
    for option in ("time_unit", "columns", "stream"):
        if getattr(options, option) is not None and option not in chosen.options:
            which = "HDF5 and aedat4" if option == "stream" else "tables"
            raise RecordingError(f"is a {kind} file, which says itself what it holds: {option}= is for {which}")
    return chosen


def _refuse_what_is_no_file(path: Path, kind: str) -> None:
    """Refuse folders and pipes, which would wait for ever, and a file of no bytes, a recording in no format."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise RecordingError(f"cannot be read: expected a file in {kind} format, found a folder, pipe or device")
    if status.st_size == 0:
        raise RecordingError(f"is an empty file: expected a recording in {kind} format")


_END: Events = np.empty(0, EVENT_DTYPE)  # itself, not what it holds


def _kept_to(opened: Opened, name: str) -> Opened:
    """What a format of one's own gives, if it is what a format has to give.

    Raises:
        RecordingError: it is not, or its pieces turn out not to be.
    """
    if not isinstance(opened, Opened):
        raise RecordingError(
            f"cannot be read: the format {name} gave a {type(opened).__name__}, expected Opened(chunks)"
        )
    check_sensor(opened.sensor_hw)
    if opened.sensor_hw is not None:
        opened.sensor_hw = (int(opened.sensor_hw[0]), int(opened.sensor_hw[1]))

    def pieces(chunks: Iterator[Events]) -> Iterator[Events]:
        for events in chunks:
            if not isinstance(events, np.ndarray) or events.dtype != EVENT_DTYPE or events.ndim != 1:
                found = f"{events.dtype} {events.shape}" if isinstance(events, np.ndarray) else type(events).__name__
                raise RecordingError(
                    f"cannot be read: the format {name} gave {found} as a piece, expected (n,) arrays of EVENT_DTYPE, "
                    f"such as eventclip.events.array.events_from_columns(t, x, y, p) makes"
                )
            yield events

    opened.chunks = pieces(opened.chunks)
    return opened


def _checked(name: str | Path, opened: Opened, told: tuple[int, int] | None, options: ReadOptions) -> Iterator[Events]:
    """Events of the file, refused where no camera can have sent them or they lie outside the sensor."""
    seen, last, dropped = 0, None, 0
    while True:
        with Naming(name):
            try:
                events = next(opened.chunks, _END)
                if events is _END:
                    break
                rows = rows_inside(events, told) if options.drop_outside and told is not None else None
                kept = events if rows is None else events[rows]
                check_sound(kept, told, first=seen, rows=rows, last=last, in_order=not options.sort)
            except UserError as error:
                opened.chunks = iter(())  # closes the file, however long the error is kept
                raise doubted(opened, error) from error
        seen, dropped = seen + len(events), dropped + len(events) - len(kept)
        if len(kept):
            last = int(kept["t"][-1])
            yield kept
    if dropped:
        opened.notes.append(f"{dropped:,} of {seen:,} events lie outside the sensor and were left out")


def _sorted(chunks: Iterator[Events], notes: list[str], chunk_events: int) -> Iterator[Events]:
    """All events in order of time; those of one time stay in the order of the file."""
    events = together(list(chunks))
    late = int(np.count_nonzero(events["t"] < np.maximum.accumulate(events["t"]))) if len(events) else 0
    if late:
        events = events[np.argsort(events["t"], kind="stable")]
        notes.append(f"{late:,} of {len(events):,} events were out of order and were sorted by time")
    yield from pieces_of(events, chunk_events)


def applies(option: str, path: Path, options: ReadOptions) -> bool:
    """Whether time_unit, columns or stream is anything for a file to be read with these options."""
    try:
        return option in _format_of(path, options).options
    except RecordingError:
        return False
