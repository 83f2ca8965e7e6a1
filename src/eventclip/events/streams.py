"""Read a recording in pieces, so that its length does not decide how much memory it takes.

The pieces put together are what :func:`eventclip.events.readers.read_events` gives, for every format; a flaw is told
with its row counted from the piece that it is in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from eventclip.errors import RecordingError
from eventclip.events.array import Events, check_events
from eventclip.events.camera_streams import stream_aedat4, stream_atis, stream_dat, stream_raw
from eventclip.events.readers import format_of, naming, read_events, refuse_empty
from eventclip.events.table_streams import stream_hdf5, stream_npy, stream_text

Pieces = Iterator[Events]
Opened = tuple[Pieces, tuple[int, int] | None, int | None]
"""Pieces in order of time, the sensor's (height, width), and the number of events, as far as they are known."""

READ_WHOLE = ("npz",)
"""Formats that cannot be read in pieces: an archive is unpacked whole."""

_CAMERAS: dict[str, Callable[[Path, int], Opened]] = {
    "bin": stream_atis,
    "dat": stream_dat,
    "raw": stream_raw,
    "aedat4": stream_aedat4,
}
_TABLES = {"npy": stream_npy, "hdf5": stream_hdf5, "csv": stream_text}


@dataclass(frozen=True)
class EventStream:
    """A recording that is being read.

    Attributes:
        chunks: (n,) arrays of EVENT_DTYPE in order of time, none of them empty; reads on as it is asked.
        sensor_hw: the sensor's (height, width) where the file knows it, else None.
        total: number of events where it is known before the end, else None.
    """

    chunks: Pieces
    sensor_hw: tuple[int, int] | None
    total: int | None


def read_chunks(
    path: str | Path,
    format: str | None = None,  # noqa: A002  (the word users know)
    *,
    chunk_events: int = 1 << 19,
    time_unit: str | None = None,
    columns: str | None = None,
) -> EventStream:
    """Open a recording to be read in pieces.

    ``.bin``, ``.dat``, ``.raw``, ``.npy``, HDF5, text and ``.aedat4`` are; ``.npz`` is read whole and handed out in
    pieces. Tables whose times have fractions are gone through twice, because the unit is told from all of them, and so
    is text.

    Args:
        path: the file.
        format: as for :func:`eventclip.events.readers.read_events`, as are the errors.
        chunk_events: events in a piece, about; 16 bytes each.
        time_unit: unit of time in a table; None tells it.
        columns: order of a table without names; None tells it.

    Raises:
        RecordingError: as for ``read_events``, but what is wrong with events is raised where they are reached.
        UserError: an option that does not exist or does not apply.
    """
    path = Path(path)
    kind = format_of(path, format, time_unit=time_unit, columns=columns)
    if kind in READ_WHOLE:
        events, sensor_hw = read_events(path, kind, time_unit=time_unit, columns=columns)
        return EventStream(_pieces_of(events, chunk_events), sensor_hw, len(events))
    with naming(path):
        refuse_empty(path, kind)
        if kind in _CAMERAS:
            pieces, sensor_hw, total = _CAMERAS[kind](path, chunk_events)
        else:
            pieces, sensor_hw, total = _TABLES[kind](path, chunk_events, time_unit=time_unit, columns=columns)
    return EventStream(_in_order(path, pieces, sensor_hw), sensor_hw, total)


def stream_events(events: Events, chunk_events: int = 1 << 19) -> EventStream:
    """Hand out events that are in memory, (N,) of EVENT_DTYPE, as if they were being read."""
    return EventStream(_pieces_of(events, chunk_events), None, len(events))


def _pieces_of(events: Events, size: int) -> Pieces:
    for start in range(0, len(events), size):
        yield events[start : start + size]


def _in_order(path: Path, pieces: Pieces, sensor_hw: tuple[int, int] | None) -> Pieces:
    """Refuse time running backwards from one piece to the next, and events outside the sensor."""
    seen, last = 0, None
    while True:
        with naming(path):
            try:
                events = next(pieces, None)
                if events is not None and last is not None and len(events) and events["t"][0] < last:
                    raise RecordingError(
                        f"runs backwards in time at row 0, from {last} to {events['t'][0]} µs: expected events in "
                        f"order of time"
                    )
                if events is not None and sensor_hw is not None:
                    check_events(events, sensor_hw)
            except ValueError as error:
                if seen == 0:
                    raise
                raise RecordingError(f"counted from event {seen}, {error}") from error
        if events is None:
            return
        if len(events):
            seen, last = seen + len(events), events["t"][-1]
            yield events
