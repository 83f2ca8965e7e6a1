"""Recordings as cameras write them: ATIS .bin and iniVation .aedat4; Prophesee's own are in `prophesee`.

The errors raised here are what follows the path in a sentence; :func:`eventclip.events.readers.read_events` adds it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE, Events, events_from_columns
from eventclip.events.columns import check_recording

Recording = tuple[Events, tuple[int, int] | None]

_OVERFLOW_ROW, _OVERFLOW_US = 240, 1 << 13


def read_atis(path: Path) -> Recording:
    """Read the 40-bit events of N-Caltech101 and N-MNIST (Orchard et al., Frontiers in Neuroscience 9:437, 2015).

    Bytes: x, y, then one bit of polarity and 23 bits of time [µs], big-endian. A row of 240, which no ATIS has, is no
    event: it says that the time has run over, and all that follows is 2^13 µs later.

    Args:
        path: the file.

    Returns:
        Events, and None for the sensor, which the format does not know.

    Raises:
        RecordingError: empty, truncated, or time running backwards.
    """
    raw = np.fromfile(path, np.uint8)
    check_atis(len(raw))
    return check_recording(decode_atis(raw, 0)[0]), None


def check_atis(size: int) -> None:
    """Refuse a file of ``size`` bytes that ends in the middle of an event."""
    if size % 5:
        raise RecordingError(f"ends in the middle of an event at byte {size // 5 * 5}: expected 5 bytes an event")


def decode_atis(raw: NDArray[np.uint8], overflows: int) -> tuple[Events, int]:
    """Decode whole entries of 5 bytes each, ``overflows`` of the clock after its start.

    Returns:
        Events, and how often the clock has run over after the last entry.
    """
    x, y, high, middle, low = raw.reshape(-1, 5).T
    events = np.zeros(len(x), EVENT_DTYPE)
    events["x"], events["y"], events["p"] = x, y, high >> 7
    events["t"] = (high & 0x7F).astype(np.int32) << 16 | middle.astype(np.int32) << 8 | low
    overflow = y == _OVERFLOW_ROW
    if overflows or overflow.any():
        run_over = overflows + np.cumsum(overflow)
        events["t"] += run_over * _OVERFLOW_US
        events, overflows = events[~overflow], int(run_over[-1])
    return events, overflows


def read_aedat4(path: Path) -> Recording:
    """Read iniVation's ``.aedat4``.

    Args:
        path: the file.

    Returns:
        Events, and (height, width) of their stream.

    Raises:
        RecordingError: the reader is not installed, not a whole file, or not exactly one stream of events.
    """
    packets, sensor_hw = aedat4_packets(path)
    events = list(packets)
    return check_recording(np.concatenate(events) if events else np.empty(0, EVENT_DTYPE)), sensor_hw


def aedat4_packets(path: Path) -> tuple[Iterator[Events], tuple[int, int]]:
    """The packets of events of an ``.aedat4``, read as they are asked for, and (height, width) of their stream."""
    try:
        import aedat
    except ImportError as error:
        raise RecordingError("needs another package to be read: pip install eventclip[aedat]") from error
    with _panics():
        decoder = aedat.Decoder(path)
        streams = [stream for stream in decoder.id_to_stream().values() if stream["type"] == "events"]
    if len(streams) != 1:
        raise RecordingError(f"holds {len(streams)} streams of events: expected one")

    def packets() -> Iterator[Events]:
        while True:
            with _panics():
                packet = next(decoder, None)
            if packet is None:
                return
            if "events" in packet:
                yield events_from_columns(*(packet["events"][name] for name in ("t", "x", "y", "on")))

    return packets(), (int(streams[0]["height"]), int(streams[0]["width"]))


@contextlib.contextmanager
def _panics() -> Iterator[None]:
    """Tell what goes wrong in aedat; a panic of its Rust code is no Exception."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, RuntimeError) and type(error).__name__ != "PanicException":
            raise
        raise RecordingError(f"is no whole aedat4 file ({error})") from error
