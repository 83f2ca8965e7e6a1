"""An event camera before an image that does not move: what a sensor on a shaking head would report.

The standard model of a dynamic vision sensor, as in ESIM (Rebecq et al., CoRL 2018) and v2e (Hu et al., CVPR
Workshops 2021), and the three saccades that N-Caltech101 was recorded with (Orchard et al., Frontiers in
Neuroscience 9:437, 2015).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import UserError
from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.simulation.camera_kernels import crossings, sort_by_time, unpack

Times = NDArray[np.float64]
Pixels = NDArray[np.int64]

_KNOTS = 50
_LARGEST_SENSOR = np.iinfo(EVENT_DTYPE["x"]).max


def saccades(amplitude_px: float, duration_us: int = 100_000) -> NDArray[np.float64]:
    """The path of N-Caltech101: three saccades along an isosceles triangle, back to where they began.

    On the sensor the picture goes down to the right, up to the right, and back to the left. One recording of the
    data set (Faces_easy/image_0001), searched for the shift that makes its events sharpest, gave a triangle 6.5 px
    high and 5 px wide, and an event rate that rises and falls like 1 − cos within each saccade: the head starts
    and stops gently.

    Args:
        amplitude_px: height of the triangle [px]; it is three quarters as wide.
        duration_us: time of one saccade [µs].

    Returns:
        (151, 3) knots of time [µs] from 0 and displacement of the window over the image dx, dy [px], the middle of
        the triangle's bounding box at 0.

    Raises:
        UserError: an amplitude below 0 or a duration that is not positive.
    """
    if not (amplitude_px >= 0 and duration_us > 0):
        raise UserError(f"Saccades need amplitude_px >= 0 and duration_us > 0, got {amplitude_px} and {duration_us}.")
    corners = amplitude_px * np.array([[0.375, 0.5], [0.0, -0.5], [-0.375, 0.5], [0.375, 0.5]])
    progress = np.arange(1, _KNOTS + 1) / _KNOTS
    eased = progress - np.sin(2 * np.pi * progress) / (2 * np.pi)
    path = [np.array([[0.0, *corners[0]]])]
    for saccade, (begin, end) in enumerate(itertools.pairwise(corners)):
        path.append(np.column_stack([(saccade + progress) * duration_us, begin + np.outer(eased, end - begin)]))
    return np.concatenate(path)


def intensity_from_gray(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turn the gray values of a picture file into the light a screen makes of them.

    Args:
        gray: uint8 of any shape.

    Returns:
        float32 intensity of the same shape, 0 to 1 = white (sRGB, IEC 61966-2-1).
    """
    value = np.arange(256) / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    intensity: NDArray[np.float32] = light.astype(np.float32)[gray]
    return intensity


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventCamera:
    """A sensor whose pixels report, each for itself, that their log intensity has changed by a threshold.

    A pixel remembers a level. When log(intensity + log_eps) has risen above it by the pixel's ON threshold, or
    fallen below by its OFF threshold, the pixel reports an event and remembers the level it crossed. Between two time
    steps log intensity runs straight, and so an event gets the time of its crossing, not of the step.

    Args:
        threshold_on: mean ON threshold, in natural log intensity.
        threshold_off: mean OFF threshold.
        threshold_spread: standard deviation of both from pixel to pixel; each is at least a quarter of its mean.
        refractory_us: dead time of a pixel after an event, whole µs. When it ends the pixel remembers what it sees
            at that moment, so fast changes yield fewer events. 0: no dead time.
        shot_noise_hz: rate of noise events of every pixel, both polarities together.
        leak_hz: rate of ON events of a pixel that sees no change: its remembered level sinks steadily.
        hot_pixel_fraction: share of pixels that fire on their own.
        hot_pixel_hz: their mean rate; the rates themselves are spread exponentially.
        log_eps: added to intensity before the logarithm, in units of white: the sensor's dark level.
        step_us: longest time step. The picture should move by at most about half a pixel in it.

    Raises:
        UserError: a value outside its range; it is named.
    """

    threshold_on: float = 0.2
    threshold_off: float = 0.2
    threshold_spread: float = 0.03
    refractory_us: int = 1000
    shot_noise_hz: float = 0.5
    leak_hz: float = 0.1
    hot_pixel_fraction: float = 1e-3
    hot_pixel_hz: float = 350.0
    log_eps: float = 0.03
    step_us: float = 2000.0

    def __post_init__(self) -> None:
        values: dict[str, Any] = vars(self)
        for name, value in values.items():
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UserError(f"The event camera's {name} must be a finite number, got {value!r}.")
        at_least = {"threshold_on": 0.01, "threshold_off": 0.01, "log_eps": 1e-6, "step_us": 1.0}
        for name, value in values.items():
            lowest = at_least.get(name, 0.0)
            if value < lowest:
                raise UserError(f"The event camera's {name} must be at least {lowest:g}, got {value}.")
        if self.refractory_us != int(self.refractory_us):
            raise UserError(f"The event camera's refractory_us must be a whole number, got {self.refractory_us}.")
        if self.hot_pixel_fraction > 1:
            raise UserError(f"The event camera's hot_pixel_fraction must be at most 1, got {self.hot_pixel_fraction}.")

    @classmethod
    def ideal(cls, threshold: float = 0.2, *, log_eps: float = 0.03, step_us: float = 2000.0) -> EventCamera:
        """A camera of equal pixels without noise, leak or dead time."""
        return cls(
            threshold_on=threshold,
            threshold_off=threshold,
            threshold_spread=0.0,
            refractory_us=0,
            shot_noise_hz=0.0,
            leak_hz=0.0,
            hot_pixel_fraction=0.0,
            log_eps=log_eps,
            step_us=step_us,
        )

    def simulate(
        self,
        image: NDArray[Any],
        path: NDArray[np.float64],
        sensor_hw: tuple[int, int],
        rng: np.random.Generator,
    ) -> Events:
        """Simulate the events of a sensor that moves along a path over an image.

        At displacement (0, 0) the middle of the sensor looks at the middle of the image; one sensor pixel is one
        image pixel wide, so scale the image first. Between pixels log intensity is interpolated bilinearly; beyond
        its edges the image goes on with the edge's values, which makes no events across the edge.

        Args:
            image: (h, w) light intensity, uint8 or float in [0, 1]; for a picture file see
                :func:`intensity_from_gray`.
            path: (T, 3) knots of time [µs], rising, and displacement of the sensor over the image dx (to the
                right), dy (down) [px]; straight between knots. T ≥ 2.
            sensor_hw: height and width of the sensor [px].
            rng: source of the pixels' thresholds and of all noise.

        Returns:
            (N,) array of EVENT_DTYPE in order of time, from the path's first time to its last.

        Raises:
            UserError: image, path or sensor are not of that kind.
        """
        log_image = np.log(_intensity(image) + np.float32(self.log_eps))
        path = _checked_path(path)
        height, width = sensor_hw
        if not (0 < height <= _LARGEST_SENSOR and 0 < width <= _LARGEST_SENSOR):
            raise UserError(f"A sensor has 1 to {_LARGEST_SENSOR} rows and columns, got {sensor_hw}.")
        on, off = self.thresholds(sensor_hw, rng)
        start = math.floor(path[0, 0])
        times, places = self._steps(path)
        times -= start
        padded, corners, fractions = _under_the_sensor(log_image, places, sensor_hw)
        bits = (2 * on.size - 1).bit_length()
        signal = crossings(padded, corners, fractions, times, on, off, float(self.refractory_us), bits)
        seconds, noise_places = self._noise((times[-1] - times[0]) * 1e-6, on, rng)
        noise = ((times[0] + 1e6 * seconds).astype(np.int64) << bits) | noise_places
        passes = math.ceil((math.ceil(times[-1]) + 1).bit_length() / 11)
        keys = sort_by_time(np.concatenate([signal, noise]), bits, passes)
        events = np.zeros(len(keys), EVENT_DTYPE)
        return events[: unpack(keys, bits, start, sensor_hw, int(self.refractory_us), events)]

    def thresholds(
        self, sensor_hw: tuple[int, int], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Draw every pixel's own thresholds: the first thing :meth:`simulate` does with its generator.

        Args:
            sensor_hw: height and width of the sensor [px].
            rng: source of the spread.

        Returns:
            (H, W) ON and (H, W) OFF thresholds, in natural log intensity.
        """
        on, off = (
            np.maximum(mean + self.threshold_spread * rng.standard_normal(sensor_hw, dtype=np.float32), mean / 4)
            for mean in (self.threshold_on, self.threshold_off)
        )
        return on, off

    def _steps(self, path: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cut the path into equal time steps: (S,) times [µs] and (S, 2) displacements [px]."""
        count = math.ceil((path[-1, 0] - path[0, 0]) / self.step_us)
        times = np.linspace(path[0, 0], path[-1, 0], count + 1)
        places = np.column_stack([np.interp(times, path[:, 0], path[:, axis]) for axis in (1, 2)])
        return times, places

    def _noise(
        self, seconds: float, on: NDArray[np.float32], rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Draw all events without a cause: (N,) times [s] and (N,) pixel * 2 + polarity, in no useful order."""
        # All pixels leak at one speed, so a pixel with a low threshold reaches it more often.
        leak_rates = self.leak_hz * self.threshold_on / on.ravel().astype(np.float64)
        shot_times, shot = shots(on.size, self.shot_noise_hz, seconds, rng)
        hot_times, hot = hot_pixels(on.size, self.hot_pixel_fraction, self.hot_pixel_hz, seconds, rng)
        leak_times, leaking = leaks(leak_rates, seconds, rng)
        polarity = np.ones(len(shot) + len(hot) + len(leaking), np.int64)
        polarity[: len(shot) + len(hot)] = rng.integers(2, size=len(shot) + len(hot))
        places = 2 * np.concatenate([shot, hot, leaking]) + polarity
        return np.concatenate([shot_times, hot_times, leak_times]), places


def _intensity(image: NDArray[Any]) -> NDArray[np.float32]:
    """Bring an image to float32 in [0, 1], or say what is wrong with it."""
    if not isinstance(image, np.ndarray) or image.ndim != 2 or image.size == 0:
        raise UserError(f"The event camera looks at a gray image of shape (h, w), got shape {np.shape(image)}.")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise UserError(f"The event camera looks at uint8 or float images, got {image.dtype}.")
    white = 255 if image.dtype == np.uint8 else 1
    if not (image.min() >= 0 and image.max() <= white):
        raise UserError(
            f"A float image must lie in [0, 1], got values from {image.min():g} to {image.max():g}; "
            f"divide by the value of white."
        )
    intensity: NDArray[np.float32] = image.astype(np.float32)
    intensity /= np.float32(white)
    return intensity


def _checked_path(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring a path to float64, or say what is wrong with it."""
    path = np.asarray(path, np.float64)
    if path.ndim != 2 or len(path) < 2 or path.shape[1] != 3:
        raise UserError(f"A path is a (T, 3) array of time, dx, dy with T >= 2, got shape {path.shape}.")
    if not (np.isfinite(path).all() and (np.diff(path[:, 0]) > 0).all()):
        raise UserError("A path needs finite values and rising times.")
    return path


def _under_the_sensor(
    log_image: NDArray[np.float32], places: NDArray[np.float64], sensor_hw: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Where the sensor's first pixel lies in the image at each step, the image padded so that it never leaves it.

    Returns:
        The padded image, (S, 2) whole column and row, (S, 2) the fractions beyond.
    """
    image_wh, sensor_wh = np.array(log_image.shape[::-1]), np.array(sensor_hw[::-1])
    corners = places + (image_wh - sensor_wh) / 2
    # Beyond these all pixels see the edge already; the padding must not grow with the path.
    corners = np.clip(corners, -(sensor_wh + 1), image_wh + 1)
    whole = np.floor(corners)
    fractions = (corners - whole).astype(np.float32)
    whole = whole.astype(np.int64)
    before = np.maximum(0, -whole.min(axis=0))
    after = np.maximum(0, whole.max(axis=0) + sensor_wh + 1 - image_wh)
    padded = np.pad(log_image, ((before[1], after[1]), (before[0], after[0])), mode="edge")
    return np.ascontiguousarray(padded), whole + before, fractions


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
    due = sunk + rates_hz * seconds
    firing = np.flatnonzero(due >= 1)  # few, in a short recording
    counts = due[firing].astype(np.int64)
    which = np.repeat(firing, counts)
    nth = 1 + np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
    return (nth - sunk[which]) / rates_hz[which], which
