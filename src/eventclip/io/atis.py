"""ATIS recordings, .bin, of N-Caltech101 and N-MNIST.

The errors raised here are what follows the path in a sentence; :func:`eventclip.io.formats.open_stream` adds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.io.formats import Opened, ReadOptions

_OVERFLOW_ROW, _OVERFLOW_US = 240, 1 << 13


def open_bin(path: Path, options: ReadOptions, chunk_events: int) -> Opened:  # noqa: ARG001
    """Read the 40-bit events of N-Caltech101 and N-MNIST (Orchard et al., Frontiers in Neuroscience 9:437, 2015).

    Bytes: x, y, then one bit of polarity and 23 bits of time [µs], big-endian. A row of 240, which no ATIS has, is no
    event: it says that the time has run over, and all that follows is 2^13 µs later.

    Args:
        path: the file.
        options: none applies.
        chunk_events: entries in a piece.

    Returns:
        Pieces; neither the sensor, which the format does not know, nor the number, as some entries may be no events.

    Raises:
        RecordingError: the file ends in the middle of an event.
    """
    whole, rest = divmod(path.stat().st_size, 5)
    if rest:
        raise RecordingError(f"ends in the middle of an event at byte {5 * whole}: expected 5 bytes an event")

    def pieces() -> Iterator[Events]:
        overflows = 0
        with path.open("rb") as file:
            while len(raw := np.fromfile(file, np.uint8, 5 * chunk_events)):
                events, overflows = _decode(raw, overflows)
                yield events

    return Opened(pieces())


def _decode(raw: NDArray[np.uint8], overflows: int) -> tuple[Events, int]:
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
