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
from eventclip.events.kernels import kernel
from eventclip.io.evt_kernels import halves, place
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
            for start in range(0, whole, chunk_events):
                raw = np.fromfile(file, np.uint8, 5 * min(chunk_events, whole - start))
                events: Events = np.empty(len(raw) // 5, EVENT_DTYPE)
                made, overflows = _decode(raw, overflows, halves(events))
                yield events[:made]

    return Opened(pieces())


@kernel
def _decode(raw: NDArray[np.uint8], overflows: int, events: NDArray[np.int64]) -> tuple[int, int]:
    """Decode whole entries of 5 bytes each, ``overflows`` of the clock after its start.

    Returns:
        How many of them are events, and how often the clock has run over after the last entry.
    """
    made = 0
    for entry in range(len(raw) // 5):
        at = 5 * entry
        x, y, high = np.int64(raw[at]), np.int64(raw[at + 1]), np.int64(raw[at + 2])
        if y == _OVERFLOW_ROW:
            overflows += 1
        else:
            events[made, 0] = overflows * _OVERFLOW_US + ((high & 0x7F) << 16 | raw[at + 3] << 8 | raw[at + 4])
            events[made, 1] = place(x, y, high >> 7)
            made += 1
    return made, overflows
