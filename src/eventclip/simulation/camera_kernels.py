"""The inner loops of the event camera: log intensity to events, and events in order of time.

An event travels as one int64 key, ``time << bits | (pixel * 2 + polarity)``: sorting the keys sorts the events by
time and then by place, at the speed of sorting plain integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eventclip.events.array import Events
from eventclip.events.kernels import kernel

Floats = NDArray[np.float32]


@kernel
def see_row(upper: Floats, lower: Floats, fraction: Floats, seen: Floats) -> None:
    """Interpolate one sensor row between its neighbours in the image.

    Args:
        upper: (W + 1,) log intensity at and right of the row's whole-pixel position.
        lower: (W + 1,) the same one image row further down.
        fraction: (2,) of a pixel to the right and downwards, one for the whole sensor: it moves but never turns.
        seen: (W,) filled in.
    """
    one, right, down = np.float32(1.0), fraction[0], fraction[1]
    for x in range(len(seen)):
        here = upper[x] * (one - down) + lower[x] * down
        beside = upper[x + 1] * (one - down) + lower[x + 1] * down
        seen[x] = here * (one - right) + beside * right


@kernel
def flag_row(seen: Floats, low: Floats, high: Floats, flags: NDArray[np.uint8]) -> None:
    """Mark what lies outside its thresholds; without a branch, so that 16 and more pixels go at once."""
    for x in range(len(seen)):
        flags[x] = (seen[x] > high[x]) | (seen[x] < low[x])


@kernel
def cross(
    levels: tuple[float, float, float, float],
    span: tuple[float, float],
    refractory: float,
    ready: float,
    thresholds: tuple[float, float],
    place: int,
    bits: int,
    keys: NDArray[np.int64],
    count: int,
) -> tuple[int, float, float, float]:
    """Follow one pixel through one step in which its log intensity runs straight from one value to another.

    Args:
        levels: log intensity at the step's start and end, and the levels below and above which an event is due;
            the lower one is infinite while the pixel is in its dead time.
        span: start and end of the step [µs].
        refractory: dead time after an event [µs].
        ready: when the pixel's dead time ends [µs]; only read while it is dead.
        thresholds: ON and OFF, positive.
        place: pixel * 2.
        bits: width of the place in a key.
        keys: events go here from ``count`` on; must have room.
        count: number of events so far.

    Returns:
        The new count, low and high level, and the time at which the pixel is ready again.
    """
    (before, now, low, high), (start, end), (on, off) = levels, span, thresholds
    slope = (now - before) / (end - start)
    if low == np.inf:
        if ready >= end:
            return count, low, high, ready
        # The pixel compares with what it saw when its dead time ended, not with the level it last crossed.
        level = before + slope * (ready - start)
        low, high = level - off, level + on
    while now > high or now < low:
        polarity = 1 if now > high else 0
        level = high if polarity else low
        time = min(max(start + (level - before) / slope, start), end)
        keys[count] = (np.int64(np.floor(time + 0.5)) << bits) | (place + polarity)
        count += 1
        if refractory > 0.0:
            ready = time + refractory
            if ready >= end:
                return count, np.inf, high, ready
            level = before + slope * (ready - start)
        low, high = level - off, level + on
    return count, low, high, ready


@kernel
def crossings(
    image: Floats,
    corners: NDArray[np.int64],
    fractions: Floats,
    times: NDArray[np.float64],
    on: Floats,
    off: Floats,
    refractory: float,
    bits: int,
) -> NDArray[np.int64]:
    """Watch every pixel along the path and note each crossing of a threshold.

    Row by row, because a row's state and the two image rows it sees then stay in the fastest cache over all steps.

    Args:
        image: (h, w) log intensity, padded so that no index below leaves it.
        corners: (S, 2) image column and row under the sensor's first pixel at each step, rounded down.
        fractions: (S, 2) what was rounded off.
        times: (S,) rising times of the steps, not negative [µs].
        on: (H, W) ON thresholds, positive.
        off: (H, W) OFF thresholds, positive.
        refractory: dead time after an event [µs]; 0 for none.
        bits: width of the place in a key.

    Returns:
        (N,) int64 keys, in no useful order.
    """
    height, width = on.shape
    keys = np.empty(2 * height * width + 1024, np.int64)
    count = 0
    before, now = np.empty(width, np.float32), np.empty(width, np.float32)
    low, high = np.empty(width, np.float32), np.empty(width, np.float32)
    ready = np.empty(width, np.float64)
    flags = np.zeros((width + 7) // 8 * 8, np.uint8)
    words = flags.view(np.uint64)
    for y in range(height):
        for step in range(len(times)):
            column, row = corners[step, 0], corners[step, 1] + y
            upper = image[row, column : column + width + 1]
            lower = image[row + 1, column : column + width + 1]
            see_row(upper, lower, fractions[step], now)
            if step == 0:
                for x in range(width):
                    high[x] = now[x] + on[y, x]
                    low[x] = now[x] - off[y, x]
                before, now = now, before
                continue
            flag_row(now, low, high, flags)
            for word in range(len(words)):
                if words[word] == 0:
                    continue
                for x in range(8 * word, 8 * word + 8):
                    if flags[x] == 0:
                        continue
                    if count + 64 > len(keys) or abs(now[x] - before[x]) > 60 * min(on[y, x], off[y, x]):
                        room = count + 64 + np.int64(abs(now[x] - before[x]) / min(on[y, x], off[y, x]))
                        grown = np.empty(2 * room, np.int64)
                        grown[:count] = keys[:count]
                        keys = grown
                    count, low[x], high[x], ready[x] = cross(
                        (before[x], now[x], low[x], high[x]),
                        (times[step - 1], times[step]),
                        refractory,
                        ready[x],
                        (on[y, x], off[y, x]),
                        2 * (y * width + x),
                        bits,
                        keys,
                        count,
                    )
            before, now = now, before
    return keys[:count]


@kernel
def sort_by_time(keys: NDArray[np.int64], bits: int, digits: int) -> NDArray[np.int64]:
    """Sort keys by time, equal times in the order given (radix sort, 11 bits a pass; 4 times ``numpy.sort``).

    Args:
        keys: (N,) as from :func:`crossings`.
        bits: width of the place in a key.
        digits: passes; 11 times as many bits must hold every time.

    Returns:
        (N,) new array.
    """
    source: NDArray[np.int64] = keys.copy()
    target = np.empty_like(keys)
    starts = np.empty(2048, np.int64)
    for digit in range(digits):
        shift = bits + 11 * digit
        starts[:] = 0
        for i in range(len(source)):
            starts[(source[i] >> shift) & 2047] += 1
        before = 0
        for bucket in range(2048):
            here = starts[bucket]
            starts[bucket] = before
            before += here
        for i in range(len(source)):
            bucket = (source[i] >> shift) & 2047
            target[starts[bucket]] = source[i]
            starts[bucket] += 1
        source, target = target, source
    return source


@kernel
def unpack(
    keys: NDArray[np.int64], bits: int, start: int, sensor_hw: tuple[int, int], refractory: int, events: Events
) -> int:
    """Write keys as events, leaving out what falls into the dead time of an earlier event of its pixel.

    Signal and noise were made apart from each other; a pixel has only one dead time for both.

    Args:
        keys: (N,) in order of time.
        bits: width of the place in a key.
        start: added to the times [µs].
        sensor_hw: height and width of the sensor [px].
        refractory: dead time after an event [µs]; 0 for none.
        events: (N,) array of EVENT_DTYPE, filled in.

    Returns:
        How many events were kept, M ≤ N.
    """
    height, width = sensor_hw
    ready = np.zeros(height * width, np.int64)
    count = 0
    for i in range(len(keys)):
        time = keys[i] >> bits
        place = keys[i] & ((np.int64(1) << bits) - 1)
        pixel = place >> 1
        if time < ready[pixel]:
            continue
        ready[pixel] = time + refractory
        row = pixel // width
        event = events[count]
        event.t = time + start
        event.x = pixel - row * width
        event.y = row
        event.p = place & 1
        count += 1
    return count
