"""The simulated event camera looks at a picture with the spectrum of natural ones, in three saccades, on one thread.

180x240 px, 300 ms, the settings of conf/simulate.yaml. The comparator is the same law in plain numpy, a frame at a time
and without noise; the kernel without noise gives the same events in place and polarity, which is checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.measure import DifferError, medians
from benchmarks.table import Row
from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.simulation.camera import EventCamera, intensity_from_gray, saccades

SENSOR, SCENE = (180, 240), (187, 245)
NOISY = EventCamera(threshold_on=0.4, threshold_off=0.4, threshold_spread=0.05)
QUIET = EventCamera(
    threshold_on=0.4, threshold_off=0.4, threshold_spread=0.05, shot_noise_hz=0, leak_hz=0, hot_pixel_fraction=0
)


def simulate_with_numpy(camera: EventCamera, image: NDArray[np.float32], path: NDArray[np.float64]) -> Events:
    """The camera's law for pixels without noise, a frame at a time."""
    height, width = SENSOR
    on, off = camera.thresholds(SENSOR, np.random.default_rng(0))
    log_image = np.log(image + np.float32(camera.log_eps))
    times = np.linspace(path[0, 0], path[-1, 0], int(np.ceil(np.ptp(path[:, 0]) / camera.step_us)) + 1)
    places = [
        np.interp(times, path[:, 0], path[:, axis]) + (image.shape[2 - axis] - SENSOR[2 - axis]) / 2 for axis in (1, 2)
    ]

    def see(step: int) -> NDArray[np.float32]:
        columns, rows = int(np.floor(places[0][step])), int(np.floor(places[1][step]))
        fx, fy = np.float32(places[0][step] - columns), np.float32(places[1][step] - rows)
        part = log_image[rows : rows + height + 1, columns : columns + width + 1]
        blended = part[:-1] * (1 - fy) + part[1:] * fy
        return blended[:, :-1] * (1 - fx) + blended[:, 1:] * fx

    now = see(0)
    level, ready = now.copy(), np.full(SENSOR, -1.0)
    found = []
    for step in range(1, len(times)):
        start, end = times[step - 1], times[step]
        before, now = now, see(step)
        slope = (now - before) / (end - start)
        woken = (ready > start) & (ready < end)
        level = np.where(woken, before + slope * (ready - start), level)
        while True:
            up, down = now > level + on, now < level - off
            y, x = np.nonzero((up | down) & (ready < end))
            if len(y) == 0:
                break
            polarity = up[y, x]
            crossed = level[y, x] + np.where(polarity, on[y, x], -off[y, x])
            when = np.clip(start + (crossed - before[y, x]) / slope[y, x], start, end)
            found.append((np.floor(when + 0.5), x, y, polarity))
            level[y, x] = crossed
            if camera.refractory_us:
                ready[y, x] = when + camera.refractory_us
                resumed = before[y, x] + slope[y, x] * (ready[y, x] - start)
                level[y, x] = np.where(ready[y, x] < end, resumed, crossed)
    events = np.zeros(sum(len(one[0]) for one in found), EVENT_DTYPE)
    for field, columns in zip("txyp", zip(*found, strict=True), strict=True):
        events[field] = np.concatenate(columns)
    return events[np.argsort(events["t"], kind="stable")]


def natural_picture() -> NDArray[np.uint8]:
    """Gray noise with a 1/f amplitude spectrum, as photographs have on average (Field 1987)."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SCENE[0]), np.fft.fftfreq(SCENE[1]), indexing="ij"))
    frequency[0, 0] = np.inf
    white = np.random.default_rng(0).standard_normal(SCENE)
    picture = np.fft.ifft2(np.fft.fft2(white) / frequency).real
    return (127.5 + 28 * picture / picture.std()).clip(0, 255).astype(np.uint8)


def disagreement(ours: Events, theirs: Events) -> int:
    """How many events one of the two has more than the other, over all pixels and polarities."""
    places = [one["p"] + 2 * (one["x"] + SENSOR[1] * one["y"].astype(int)) for one in (ours, theirs)]
    counts = [np.bincount(place, minlength=2 * SENSOR[0] * SENSOR[1]) for place in places]
    return int(np.abs(counts[0] - counts[1]).sum())


def rows(*, quick: bool) -> Iterator[Row]:
    """Speed of simulation."""
    runs = 2 if quick else 15
    picture = Image.fromarray(natural_picture()).resize(SCENE[::-1], Image.Resampling.LANCZOS)
    image, path = intensity_from_gray(np.asarray(picture)), saccades(6.5)
    kernel = partial(QUIET.simulate, image, path, SENSOR)
    noisy = partial(NOISY.simulate, image, path, SENSOR)
    plain = partial(simulate_with_numpy, QUIET, image, path)
    events, theirs, more = kernel(np.random.default_rng(0)), plain(), noisy(np.random.default_rng(0))
    if disagreement(events, theirs):
        raise DifferError("simulated camera")
    work: list[Callable[[], object]] = [
        lambda: kernel(np.random.default_rng(0)),
        lambda: noisy(np.random.default_rng(0)),
        plain,
    ]
    ours, with_noise, numpys = medians(work, runs, clock=time.thread_time)
    how = f"median of {runs}, in turns, CPU time"
    yield Row(f"simulating {len(events):,} events", 1e3 * ours, "numpy", 1e3 * numpys, "ms", how)
    name = f"simulating {len(more):,} events, noise among them"
    yield Row(name, 1e3 * with_noise, "numpy, without the noise", 1e3 * numpys, "ms", how)
