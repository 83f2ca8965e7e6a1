"""What the pixels of an event camera report although nothing has changed before them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
Pixels = NDArray[np.int64]


def shots(pixels: int, rate_hz: float, seconds: float, rng: np.random.Generator) -> tuple[Times, Pixels]:
    """Shot noise: every pixel fires at random times at the same mean rate.

    Args:
        pixels: how many there are.
        rate_hz: of one pixel.
        seconds: how long the sensor is watched.
        rng: source of the draw.

    Returns:
        (N,) times from 0 [s], in no order, and (N,) pixel numbers.
    """
    which = rng.integers(pixels, size=rng.poisson(rate_hz * seconds * pixels))
    return rng.uniform(0, seconds, len(which)), which


def hot_pixels(
    pixels: int, fraction: float, rate_hz: float, seconds: float, rng: np.random.Generator
) -> tuple[Times, Pixels]:
    """Hot pixels: a few fire at random times and much too often, some more than others.

    Args:
        pixels: how many there are.
        fraction: share of hot ones.
        rate_hz: mean over the hot pixels, whose own rates are spread exponentially.
        seconds: how long the sensor is watched.
        rng: source of the draw.

    Returns:
        (N,) times from 0 [s], in no order, and (N,) pixel numbers.
    """
    hot = rng.choice(pixels, rng.binomial(pixels, fraction), replace=False, shuffle=False)
    which = np.repeat(hot, rng.poisson(rate_hz * seconds * rng.standard_exponential(len(hot))))
    return rng.uniform(0, seconds, len(which)), which


def leaks(rates_hz: NDArray[np.float64], seconds: float, rng: np.random.Generator) -> tuple[Times, Pixels]:
    """Leak: the level a pixel remembers sinks at a steady speed, so that it fires ON regularly.

    How far it has sunk when the recording starts is unknown, hence drawn. Real leak also shifts the crossings of a
    pixel that does see changes; within one recording by a small part of a threshold, and that is left out.

    Args:
        rates_hz: (P,) of the pixels.
        seconds: how long the sensor is watched.
        rng: source of the draw.

    Returns:
        (N,) times from 0 [s], rising for each pixel, and (N,) pixel numbers.
    """
    sunk = rng.random(len(rates_hz))
    counts = (sunk + rates_hz * seconds).astype(np.int64)
    which = np.repeat(np.arange(len(rates_hz)), counts)
    nth = 1 + np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    return (nth - sunk[which]) / rates_hz[which], which
