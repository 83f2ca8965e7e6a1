"""Events of one recording -> the views CLIP looks at: every step of design's first row, for training or evaluation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import UserError
from eventclip.events.array import centre, flip_time, mirror
from eventclip.events.frames import FrameRenderer
from eventclip.views.augment import RandAugment, augment_events
from eventclip.views.square import choose_windows, clip_resize, pad_views

REVISION = 1
"""Of everything from a recording's events to its views: raise it whenever the same events, options and seed would give
other views (centring, windows, frames, colours, RandAugment, resize), so that features are encoded anew."""

VERSIONS = ("as_is", "mirrored", "flipped", "both")
"""Test-time versions: as recorded; mirrored left to right; flipped in time; flipped in time and mirrored."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training changes at random in a recording (EventCLIP, section 3; spec of each step in `augment`).

    Args:
        max_shift: largest shift of the events along x and along y [px], 0 = none.
        flip_time: play half of the recordings backwards, polarity swapped.
        mirror: mirror half of the recordings left to right.
        image: RandAugment on the rendered frames, the same draw for all frames of a recording.
    """

    max_shift: int = 0
    flip_time: bool = False
    mirror: bool = True
    image: bool = True

    def __post_init__(self) -> None:
        if self.max_shift < 0:
            raise UserError(f"max_shift must be 0 or more pixels, got {self.max_shift}")


class ViewMaker:
    """Render a recording's events and prepare the frames for CLIP.

    Args:
        renderer: events -> frames.
        image_size: side S of CLIP's square input [px].
        max_views: V, views per sample; fewer frames are padded, more are thinned out.
        fit: how a frame becomes square: "crop" (the paper's), "pad" or "stretch".
        augmentation: random changes; None for evaluation, which is deterministic.
        version: test-time version that evaluation shows, one of :data:`VERSIONS`.
    """

    def __init__(
        self,
        renderer: FrameRenderer,
        *,
        image_size: int,
        max_views: int,
        fit: str = "crop",
        augmentation: Augmentation | None = None,
        version: str = "as_is",
    ) -> None:
        if version not in VERSIONS or (augmentation is not None and version != "as_is"):
            raise ValueError(f"version must be one of {', '.join(VERSIONS)}, without augmentation, got {version!r}")
        self.renderer = renderer
        self.image_size = image_size
        self.max_views = max_views
        self.fit = fit
        self.augmentation = augmentation
        self.version = version
        self.background = 255 if renderer.white_background else 0
        self.rand_augment = RandAugment(fill=self.background) if augmentation and augmentation.image else None

    def describe(self) -> dict[str, Any]:
        """Plain values that decide the views of given events."""
        return {
            "revision": REVISION,
            "frames": self.renderer.describe(),
            "image_size": self.image_size,
            "max_views": self.max_views,
            "fit": self.fit,
            "version": self.version,
            "augmentation": None if self.augmentation is None else asdict(self.augmentation),
        }

    def windows(self, count: int, rng: np.random.Generator | None = None) -> NDArray[np.int64]:
        """Which events of a recording of ``count`` each view shows: (v, 2) first and past-the-end, v <= max_views."""
        return choose_windows(self.renderer.windows(count), self.max_views, rng)

    def __call__(
        self, events: NDArray[np.void], sensor_hw: tuple[int, int], rng: np.random.Generator | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]] | None:
        """Make the views of one recording.

        Args:
            events: (N,) array of EVENT_DTYPE inside the sensor.
            sensor_hw: sensor height and width [px].
            rng: generator of all random choices; needed if and only if there is an augmentation.

        Returns:
            Views, uint8 (V, C, S, S) with C = 1 for gray, and valid, bool (V,). None where the recording is
            empty, or the random shift left nothing of it.
        """
        if (rng is None) != (self.augmentation is None):
            raise ValueError("training views need a generator and evaluation views must not have one")
        events = centre(events, sensor_hw)
        if self.version in ("flipped", "both"):
            events = flip_time(events)
        if self.version in ("mirrored", "both"):
            events = mirror(events, sensor_hw[1])
        if self.augmentation is not None and rng is not None:
            events = augment_events(
                events,
                sensor_hw,
                rng,
                max_shift=self.augmentation.max_shift,
                flip_time=self.augmentation.flip_time,
                mirror=self.augmentation.mirror,
            )
        if len(events) == 0:
            return None
        windows = self.windows(len(events), rng)
        frames = self.renderer(events, sensor_hw, windows)
        if self.rand_augment is not None and rng is not None:
            frames = self.rand_augment(frames, rng)
        views = clip_resize(frames, self.image_size, fit=self.fit, background=self.background)
        return pad_views(views, self.max_views)
