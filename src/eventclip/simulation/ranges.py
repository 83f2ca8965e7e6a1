"""Short recordings of pictures by cameras, motions and scenes drawn at random, a new one each time.

What a network is to recognise before any event camera must not hang on one camera. So all that differs between
sensors and between hands is drawn anew for each picture: thresholds and their balance, spread, noise, leak and dead
time; how fast and how far the sensor moves; how large, how bright and how upright the picture is (domain
randomisation, Tobin et al., IROS 2017; for event cameras Stoffregen et al., ECCV 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import Events
from eventclip.simulation.camera import EventCamera, intensity_from_gray

Range = Sequence[float]
"""Lowest and highest value."""

MOTIONS = ("saccade", "line", "shake")
"""A gentle start and stop as of an eye or a pan-tilt unit; constant speed; the trembling of a hand."""

_KNOTS = 24
_PIXELS_A_STEP = 0.5
_ATTEMPTS = 6
_FEWEST = 20
"""Events below which a view shows nothing."""


@dataclass(frozen=True, kw_only=True)
class SimulationRanges:
    """What is drawn for each simulated view, and from where.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> from eventclip.simulation.ranges import SimulationRanges
        >>> picture = Image.fromarray(np.tile(np.uint8([40, 200]).repeat(20), (60, 2)))
        >>> events, sensor_hw = SimulationRanges(sensors=[(64, 80)]).simulate(picture, np.random.default_rng(0))
        >>> sensor_hw, len(events) > 20
        ((64, 80), True)

    Attributes:
        sensors: heights and widths [px], one is drawn; one that stands twice is drawn twice as often.
        threshold: ON threshold, in natural log intensity; drawn evenly in its logarithm.
        balance: OFF threshold as a share of the ON threshold; in its logarithm.
        spread: standard deviation of the thresholds from pixel to pixel, as a share of them.
        refractory_us: dead time of a pixel after an event [µs].
        shot_noise_hz: noise events of a pixel; in its logarithm.
        leak_hz: ON events of a pixel that sees no change.
        hot_pixel_fraction: share of pixels that fire on their own.
        log_eps: dark level, in units of white; in its logarithm.
        motions: of :data:`MOTIONS`, one is drawn.
        travel: way of the sensor over the picture, in units of the square root of its shorter side [px]: 0.5 is
            6.7 px on 180 rows, and 2.9 px on 34. In its logarithm.
        speed: mean speed in sides of the sensor a second; in its logarithm.
        size: share of the sensor that the picture fills.
        turn_degrees: the picture is turned by as much, either way.
        contrast: of the picture, 1 as it is, about its middle gray.
        gamma: exponent of its gray values; in its logarithm.
        inverted: probability that dark and bright are exchanged.
        window: share of the recording's events that the view has, a run of them anywhere in it.

    Raises:
        UserError: a range that is none, or values that there are not.
    """

    sensors: Sequence[Sequence[int]] = ((180, 240),)
    threshold: Range = (0.25, 0.6)
    balance: Range = (0.8, 1.25)
    spread: Range = (0.0, 0.1)
    refractory_us: Range = (0, 1500)
    shot_noise_hz: Range = (0.05, 2.0)
    leak_hz: Range = (0.0, 0.2)
    hot_pixel_fraction: Range = (0.0, 0.0015)
    log_eps: Range = (0.02, 0.05)
    motions: Sequence[str] = MOTIONS
    travel: Range = (0.3, 0.6)
    speed: Range = (0.2, 2.0)
    size: Range = (0.75, 1.0)
    turn_degrees: Range = (-5.0, 5.0)
    contrast: Range = (0.7, 1.05)
    gamma: Range = (0.85, 1.2)
    inverted: float = 0.1
    window: Range = (0.5, 1.0)

    def __post_init__(self) -> None:
        for name, (low, high, positive) in _ALLOWED.items():
            given = getattr(self, name)
            numbers = isinstance(given, Sequence) and len(given) == 2 and all(map(_is_number, given))
            if not numbers or not low <= given[0] <= given[1] <= high or (positive and given[0] <= 0):
                least = f"above {low:g}" if positive and not low else f"from {low:g}"
                raise UserError(
                    f"simulation.{name} must be a lowest and a highest value {least} to {high:g}, got {given!r}"
                )
        if not _is_number(self.inverted) or not 0 <= self.inverted <= 1:
            raise UserError(f"simulation.inverted must be a probability from 0 to 1, got {self.inverted!r}")
        unknown = [name for name in self.motions if name not in MOTIONS]
        if unknown or not self.motions:
            raise UserError(f"simulation.motions must name some of {', '.join(MOTIONS)}, got {list(self.motions)}")
        for sensor in self.sensors or [()]:
            sides = list(sensor) if isinstance(sensor, Sequence) else []
            if len(sides) != 2 or not all(type(side) is int and 16 <= side <= 4096 for side in sides):
                raise UserError(
                    f"simulation.sensors must list heights and widths of 16 to 4096 px, such as [[180,240],[34,34]], "
                    f"got {sensor!r}"
                )

    def simulate(self, picture: Image.Image, rng: np.random.Generator) -> tuple[Events, tuple[int, int]]:
        """Simulate one short recording of a picture.

        Args:
            picture: of mode "L", any size.
            rng: source of all choices and all noise.

        Returns:
            (N,) array of EVENT_DTYPE in order of time, and the height and width of its sensor [px].

        Raises:
            RecordingError: the picture gives no events, as where it is of one gray.
        """
        for _ in range(_ATTEMPTS):
            height, width = self.sensors[int(rng.integers(len(self.sensors)))]
            scene, window_hw = self._scene(picture, (height, width), rng)
            path = self._path(min(height, width), rng)
            camera = self._camera(path, rng)
            events = camera.simulate(scene, path, window_hw, rng)
            count = math.ceil(len(events) * _evenly(self.window, rng))
            start = int(rng.integers(len(events) - count + 1))
            if count >= _FEWEST:
                events = events[start : start + count]
                events["t"] -= events["t"][0]
                return events, (height, width)
        raise RecordingError("the picture gives no events, such as one of a single gray: take it out")

    def _camera(self, path: NDArray[np.float64], rng: np.random.Generator) -> EventCamera:
        threshold = _logarithmically(self.threshold, rng)
        way = float(np.abs(np.diff(path[:, 1:], axis=0)).sum())
        steps = max(math.ceil(way / _PIXELS_A_STEP), 2)
        return EventCamera(
            threshold_on=threshold,
            threshold_off=max(threshold * _logarithmically(self.balance, rng), 0.01),
            threshold_spread=threshold * _evenly(self.spread, rng),
            refractory_us=int(_evenly(self.refractory_us, rng)),
            shot_noise_hz=_logarithmically(self.shot_noise_hz, rng),
            leak_hz=_evenly(self.leak_hz, rng),
            hot_pixel_fraction=_evenly(self.hot_pixel_fraction, rng),
            log_eps=_logarithmically(self.log_eps, rng),
            step_us=float(path[-1, 0]) / steps,
        )

    def _path(self, side: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """(T, 3) knots of time [µs] and place [px] of one movement in a direction drawn at random."""
        travel = math.sqrt(side) * _logarithmically(self.travel, rng)
        duration = 1e6 * travel / (side * _logarithmically(self.speed, rng))
        angle = rng.uniform(0, 2 * math.pi)
        along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
        progress = np.linspace(0, 1, _KNOTS)
        motion = self.motions[int(rng.integers(len(self.motions)))]
        bend, turns, phase = rng.uniform(-0.3, 0.3), rng.uniform(0.5, 1.5), rng.uniform(0, 2 * math.pi)
        if motion == "saccade":
            ahead = progress - np.sin(2 * np.pi * progress) / (2 * np.pi)
            aside = bend * np.sin(np.pi * ahead)
        elif motion == "line":
            ahead, aside = progress, np.zeros(_KNOTS)
        else:
            ahead = 0.5 * np.sin(2 * np.pi * turns * progress + phase)
            aside = bend * np.sin(2 * np.pi * 1.7 * turns * progress)
        places = travel * (np.outer(ahead - ahead.mean(), along) + np.outer(aside, across))
        return np.column_stack([duration * progress, places])

    def _scene(
        self, picture: Image.Image, sensor_hw: tuple[int, int], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """The light of the picture as large as the sensor sees it, and the part of the sensor that looks at it."""
        width, height = picture.size
        scale = _evenly(self.size, rng) * min(sensor_hw[0] / height, sensor_hw[1] / width)
        scaled = (max(round(width * scale), 8), max(round(height * scale), 8))
        degrees = _evenly(self.turn_degrees, rng)
        small = picture.resize(scaled, Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR)
        turned = np.asarray(_turned(small, degrees))
        gray = np.arange(256, dtype=np.float32) / 255
        gray = (gray - 0.5) * np.float32(_evenly(self.contrast, rng)) + 0.5
        if rng.random() < self.inverted:
            gray = 1 - gray
        levels = np.rint(255 * np.clip(gray, 0, 1) ** _logarithmically(self.gamma, rng)).astype(np.uint8)
        light = intensity_from_gray(levels)[turned]  # 256 values in place of as many as pixels
        margin = 2 if min(light.shape) > 16 else 0
        window = tuple(max(side - margin, 4) for side in light.shape)
        return light, (min(window[0], sensor_hw[0]), min(window[1], sensor_hw[1]))


def _turned(picture: Image.Image, degrees: float) -> Image.Image:
    """Turn a picture about its middle and cut what it no longer fills."""
    width, height = picture.size
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # The turned window must lie in the picture: scaled so that its corners do.
    fill = 1 / max(abs(cos) + abs(sin) * height / width, abs(cos) + abs(sin) * width / height)
    x, y = width / 2, height / 2
    a, b, d, e = fill * cos, fill * sin, -fill * sin, fill * cos
    matrix = (a, b, x - a * x - b * y, d, e, y - d * x - e * y)
    return picture.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _evenly(given: Range, rng: np.random.Generator) -> float:
    return float(rng.uniform(given[0], given[1]))


def _logarithmically(given: Range, rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(math.log(given[0]), math.log(given[1])))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


_ALLOWED: dict[str, tuple[float, float, bool]] = {
    "threshold": (0.01, 10.0, True),
    "balance": (0.1, 10.0, True),
    "spread": (0.0, 1.0, False),
    "refractory_us": (0.0, 1e6, False),
    "shot_noise_hz": (0.0, 1000.0, True),
    "leak_hz": (0.0, 1000.0, False),
    "hot_pixel_fraction": (0.0, 0.1, False),
    "log_eps": (1e-6, 1.0, True),
    "travel": (0.0, 10.0, True),
    "speed": (0.0, 1000.0, True),
    "size": (0.0, 1.0, True),
    "turn_degrees": (-180.0, 180.0, False),
    "contrast": (0.0, 2.0, True),
    "gamma": (0.0, 5.0, True),
    "window": (0.0, 1.0, True),
}
"""Name of a range -> lowest and highest value allowed, and whether the lowest must be above 0."""
