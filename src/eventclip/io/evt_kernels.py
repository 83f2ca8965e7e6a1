"""Kernels that decode Prophesee's words to events, a piece of a recording after the other.

Written from docs.prophesee.ai, "EVT 2.0 Format", "EVT 2.1 Format", "EVT 3.0 Format" and "DAT File Format". What must be
known from one piece for the next stands in an integer array, ``state``; its places are named below.

The clocks of all four count in fewer bits than a recording may need, so that a step back by more than half of the
range means that the clock has run over. A smaller step back is one of the file's own errors, not a run-over: times go
back as well, and whoever reads the events finds them out of order. Such a step back over the point where the clock has
just run over looks like a step forward by nearly the whole range, and is taken back likewise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eventclip.events.array import Events
from eventclip.events.kernels import kernel

HIGH, LOOPS, LOW, ROW, BASE, POLARITY, UNTIMED, UNKNOWN = range(8)
"""Places in ``state``: the clock's upper bits (−1 before the first time word), how often it has run over, its lower
bits; row, column and polarity that EVT3 goes on from; events before the first time word, and words of unknown type."""

STATES = 8
"""Length of ``state``."""

FURTHEST = 2**15 - 1
"""The last column that EVENT_DTYPE can hold [px]."""

_GLITCH = 10  # upper steps of the clock, 41 ms of EVT3: what counts as a step back over the point of running over


def fresh_state() -> NDArray[np.int64]:
    """The state at the start of a recording, (STATES,)."""
    state = np.zeros(STATES, np.int64)
    state[HIGH] = -1
    return state


def halves(events: Events) -> NDArray[np.int64]:
    """A view of (n,) events as (n, 2) integers, the time and the place: one write each for four fields."""
    return events.view(np.int64).reshape(-1, 2)


@kernel
def place(x: int, y: int, p: int) -> int:
    """The second half of an event of EVENT_DTYPE."""
    return x | y << 16 | p << 32


@kernel
def _row(bits: int, t: int, x: int, y: int, p: int, events: NDArray[np.int64], made: int) -> int:
    """Write an event for each bit from column ``x`` on, after those that there are; how many it were."""
    given = 0
    while bits:
        if bits & 1:
            events[made + given, 0], events[made + given, 1] = t, place(x, y, p)
            given += 1
        bits >>= 1
        x += 1
    return given


@kernel
def _loops_after(high: int, before: int, loops: int, period: int, glitch: int) -> int:
    """How often a clock of ``period`` steps has run over when it shows ``high`` after ``before``."""
    if before - high > period // 2:
        return loops + 1
    if loops > 0 and high - before >= period - glitch:
        return loops - 1
    return loops


@kernel
def decode_dat(pairs: NDArray[np.uint32], state: NDArray[np.int64], events: NDArray[np.int64]) -> None:
    """Fill ``events`` (n,) with the (n, 2) words of a ``.dat``: 32 bits of time [µs], then x (14 bits), y (14), p."""
    before, loops = state[HIGH], state[LOOPS]
    for i in range(np.uint64(len(pairs))):
        time, where = np.int64(pairs[i, 0]), np.int64(pairs[i, 1])
        if time < before or time - before > 1 << 31:
            loops = _loops_after(time, before, loops, 1 << 32, 1_000_000)
        before = time
        events[i, 0], events[i, 1] = loops << 32 | time, place(where & 0x3FFF, where >> 14 & 0x3FFF, where >> 28 & 1)
    state[HIGH], state[LOOPS] = before, loops


@kernel
def decode_evt2(words: NDArray[np.uint32], state: NDArray[np.int64], events: NDArray[np.int64]) -> tuple[int, int]:
    """Decode 32-bit words until they or the room in ``events`` end.

    Args:
        words: (n,) words of EVT2.
        state: see the module; changed.
        events: (m,) array of EVENT_DTYPE to fill.

    Returns:
        How many words were decoded and how many events they gave.
    """
    high, loops, untimed, unknown = state[HIGH], state[LOOPS], state[UNTIMED], state[UNKNOWN]
    base = (loops << 28 | max(high, 0)) << 6
    i, made, room, count = 0, 0, len(events), len(words)
    while i < count and made < room:
        word = np.int64(words[i])
        kind = word >> 28
        if kind <= 1:
            if high >= 0:
                events[made, 0] = base | word >> 22 & 0x3F
                events[made, 1] = place(word >> 11 & 0x7FF, word & 0x7FF, kind)
                made += 1
            else:
                untimed += 1
        elif kind == 0x8:
            now = word & 0xFFFFFFF
            if high >= 0:
                loops = _loops_after(now, high, loops, 1 << 28, _GLITCH)
            high = now
            base = (loops << 28 | high) << 6
        elif kind not in (0xA, 0xE, 0xF):  # triggers, others, continued
            unknown += 1
        i += 1
    state[HIGH], state[LOOPS], state[UNTIMED], state[UNKNOWN] = high, loops, untimed, unknown
    return i, made


@kernel
def decode_evt21(words: NDArray[np.uint64], state: NDArray[np.int64], events: NDArray[np.int64]) -> tuple[int, int]:
    """Decode 64-bit words as :func:`decode_evt2` does, with room for 32 in ``events``.

    Each is a word of EVT2, which its upper half holds, and a bit for each of 32 columns.
    """
    high, loops, untimed, unknown = state[HIGH], state[LOOPS], state[UNTIMED], state[UNKNOWN]
    base = (loops << 28 | max(high, 0)) << 6
    i, made, room, count = 0, 0, len(events) - 32, len(words)
    while i < count and made <= room:
        word = words[i]
        kind = np.int64(word >> np.uint64(60))
        if kind <= 1:
            bits, x = np.int64(word & np.uint64(0xFFFFFFFF)), np.int64(word >> np.uint64(43) & np.uint64(0x7FF))
            y, t = np.int64(word >> np.uint64(32) & np.uint64(0x7FF)), np.int64(word >> np.uint64(54) & np.uint64(0x3F))
            given = _row(bits, base | t, x, y, kind, events, made)
            if high >= 0:
                made += given
            else:
                untimed += given
        elif kind == 0x8:
            now = np.int64(word >> np.uint64(32) & np.uint64(0xFFFFFFF))
            if high >= 0:
                loops = _loops_after(now, high, loops, 1 << 28, _GLITCH)
            high = now
            base = (loops << 28 | high) << 6
        elif kind not in (0xA, 0xE, 0xF):
            unknown += 1
        i += 1
    state[HIGH], state[LOOPS], state[UNTIMED], state[UNKNOWN] = high, loops, untimed, unknown
    return i, made


@kernel
def decode_evt3(  # noqa: C901, PLR0912  (a branch for each type of word)
    words: NDArray[np.uint16], state: NDArray[np.int64], events: NDArray[np.int64]
) -> tuple[int, int]:
    """Decode 16-bit words of EVT3 until they or the room in ``events`` end, or a vector leaves what EVENT_DTYPE holds.

    A new upper half of the time takes the lower half back to 0, as Prophesee's decoder does; the same one again
    changes nothing. Vectors go on from the last VECT_BASE_X, whatever single events stand between.

    Args:
        words: (n,) words.
        state: see the module; changed. Its base is beyond FURTHEST where a vector has left what EVENT_DTYPE holds.
        events: (m,) array of EVENT_DTYPE to fill, with room for 12 at least.

    Returns:
        How many words were decoded and how many events they gave.
    """
    high, loops, low, untimed, unknown = state[HIGH], state[LOOPS], state[LOW], state[UNTIMED], state[UNKNOWN]
    y, base, polarity = state[ROW], state[BASE], state[POLARITY]
    t = (loops << 12 | max(high, 0)) << 12 | low
    i, made, room, count = 0, 0, len(events) - 12, len(words)
    while i < count and made <= room:
        word = np.int64(words[i])
        kind = word >> 12
        if kind == 0x2:
            if high >= 0:
                events[made, 0], events[made, 1] = t, place(word & 0x7FF, y, word >> 11 & 1)
                made += 1
            else:
                untimed += 1
        elif kind == 0x0:
            y = word & 0x7FF
        elif kind in (0x4, 0x5):
            bits = word & (0xFFF if kind == 0x4 else 0xFF)
            if bits and base + 11 > FURTHEST:
                break
            given = _row(bits, t, base, y, polarity, events, made)
            if high >= 0:
                made += given
            else:
                untimed += given
            base += 12 if kind == 0x4 else 8
        elif kind == 0x3:
            base, polarity = word & 0x7FF, word >> 11 & 1
        elif kind == 0x6:
            low = word & 0xFFF
            t = (loops << 12 | max(high, 0)) << 12 | low
        elif kind == 0x8:
            now = word & 0xFFF
            if now != high:
                if high >= 0:
                    loops = _loops_after(now, high, loops, 1 << 12, _GLITCH)
                high, low = now, 0
                t = (loops << 12 | high) << 12
        elif kind not in (0x7, 0xA, 0xE, 0xF) and word != 0x9999:  # continued, triggers, others; padding
            unknown += 1
        i += 1
    state[HIGH], state[LOOPS], state[LOW], state[UNTIMED], state[UNKNOWN] = high, loops, low, untimed, unknown
    state[ROW], state[BASE], state[POLARITY] = y, base, polarity
    return i, made
