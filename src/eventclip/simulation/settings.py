"""How still images become recordings: the sensor's view of one image, and which split it goes to."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eventclip.errors import UserError
from eventclip.events.array import Events
from eventclip.rng import generator
from eventclip.simulation.camera import EventCamera, intensity_from_gray, saccades

REVISION = 1  # of the simulation: raise it whenever the same settings would give other recordings
SPLITS = ("training", "testing", "validation")  # in the order in which they get an image where there are few


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filming:
    """How images are filmed and split: everything that decides the recordings.

    Args:
        camera: the sensor.
        sensor_hw: its height and width [px].
        amplitude_px: height of the saccades' triangle [px].
        saccade_us: time of one of the three saccades [µs].
        fit: "inside": the whole picture is shown on the sensor, as N-Caltech101 does it, and events come from the
            part of it that never leaves the window (151×173 px for a 290×334 picture on a 240×180 sensor); "cover":
            the sensor sees nothing but picture, of which the rest is lost.
        split: share of each class in each of training, validation and testing; together 1.
        seed: of the split, the sensors and all noise.

    Raises:
        UserError: a value outside its range.
    """

    camera: EventCamera
    sensor_hw: Sequence[int] = (180, 240)
    amplitude_px: float = 6.5
    saccade_us: int = 100_000
    fit: str = "inside"
    split: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"training": 0.6, "validation": 0.2, "testing": 0.2}
    )
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fit not in ("inside", "cover"):
            raise UserError(f"fit must be 'inside' or 'cover', got {self.fit!r}")
        sides = self.sensor_hw if isinstance(self.sensor_hw, (tuple, list)) else ()
        if len(sides) != 2 or not all(isinstance(side, int) and side >= 16 for side in sides):
            raise UserError(f"sensor_hw must be a height and a width of at least 16 px, got {self.sensor_hw}")
        most = min(self.sensor_hw) / 4
        if not isinstance(self.amplitude_px, (int, float)) or not 0 <= self.amplitude_px <= most:
            raise UserError(
                f"amplitude_px must lie between 0 and a quarter of the sensor's shorter side ({most:g}), got "
                f"{self.amplitude_px!r}"
            )
        if not isinstance(self.saccade_us, int) or self.saccade_us < 1000:
            raise UserError(f"saccade_us must be a whole number of at least 1000 µs, got {self.saccade_us!r}")
        if not isinstance(self.seed, int):
            raise UserError(f"seed must be a whole number, got {self.seed!r}")
        shares = list(self.split.values()) if isinstance(self.split, Mapping) else []
        positive = len(shares) == len(SPLITS) and all(isinstance(x, (int, float)) and x >= 0 for x in shares)
        if not positive or not math.isclose(sum(shares), 1) or not self.split.get("training"):
            raise UserError(
                f"split must give {', '.join(SPLITS)} shares that add up to 1, and training more than 0, got "
                f"{self.split}"
            )
        if set(self.split) != set(SPLITS):
            raise UserError(f"split must name {', '.join(SPLITS)}, got {', '.join(map(str, self.split))}")

    def film(self, image: Image.Image, rng: np.random.Generator) -> Events:
        """Film one image with three saccades.

        Args:
            image: of mode "L", any size.
            rng: source of the sensor's spread and noise.

        Returns:
            (N,) array of EVENT_DTYPE in order of time.
        """
        path = saccades(self.amplitude_px, self.saccade_us)
        margin_hw = np.ceil(np.ptp(path[:, :0:-1], axis=0)).astype(int)
        sensor_hw, image_hw = np.array(self.sensor_hw), np.array(image.size[::-1])
        if self.fit == "inside":
            scaled_hw = np.rint(image_hw * np.min(sensor_hw / image_hw)).astype(int)
            window_hw = np.maximum(scaled_hw - margin_hw, 1)
        else:
            scaled_hw = np.rint(image_hw * np.max((sensor_hw + margin_hw) / image_hw)).astype(int)
            window_hw = sensor_hw
        height, width = np.maximum(scaled_hw, 1).tolist()
        gray = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
        return self.camera.film(intensity_from_gray(gray), path, (int(window_hw[0]), int(window_hw[1])), rng)

    def split_of(self, class_folder: str, count: int) -> list[str]:
        """Decide the splits of a class's images: drawn by the seed and the class's name, in the shares asked for.

        Shares are rounded by the largest remainder. A split whose share is not 0 gets at least one image as long as
        there are enough, training first, then testing, then validation.

        Args:
            class_folder: the class's name.
            count: number of its images, in the order of their names.

        Returns:
            The split of each image.
        """
        exact = [self.split[split] * count for split in SPLITS]
        counts = [math.floor(share + 1e-9) for share in exact]
        by_remainder = sorted(range(len(SPLITS)), key=lambda part: counts[part] - exact[part])
        for part in by_remainder[: count - sum(counts)]:
            counts[part] += 1
        wanting = [part for part in range(len(SPLITS)) if exact[part] > 0][:count]
        for part in wanting:
            if counts[part] == 0:
                # Of the largest the last: what an earlier split has just been given stays there.
                counts[max(range(len(SPLITS)), key=lambda other: (counts[other], other))] -= 1
                counts[part] += 1
        splits = np.repeat(SPLITS, counts)
        order = generator(self.seed, f"split {class_folder!a}").permutation(count)
        return [str(split) for split in splits[np.argsort(order)]]

    def header(self, stills: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
        """Plain values that are equal exactly when the same recordings would be made."""
        # Another image in a class deals out the splits anew, and some would be filmed twice. (!a: any name on disk.)
        listing = [f"{name!a}/{path.name!a} {path.stat().st_size}" for name, paths in stills.items() for path in paths]
        settings = dataclasses.asdict(self) | {"sensor_hw": list(self.sensor_hw), "split": dict(self.split)}
        images = {"count": len(listing), "sha256": hashlib.sha256("\n".join(listing).encode()).hexdigest()}
        plain: dict[str, Any] = json.loads(json.dumps({"revision": REVISION, **settings, "images": images}))
        return plain
