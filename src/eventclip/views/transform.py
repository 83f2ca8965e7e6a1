"""Events of one recording -> the views that CLIP looks at: the only way, in training and after it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError, UserError, whole
from eventclip.events.array import Events, Move, centre, moved
from eventclip.events.frames import FrameRenderer, choose_windows
from eventclip.views.augment import Augmentation, RandAugment
from eventclip.views.resize import RESIZE_MODES, clip_resize

REVISION = 1
"""Of everything from a recording's events to its views: raise it whenever the same events, options and seed would give
other views (centring, windows, frames, colours, RandAugment, resize), so that feature caches are filled anew."""

TTA = {
    "as_is": Move(),
    "mirrored": Move(mirrored=True),
    "flipped": Move(flipped=True),
    "both": Move(flipped=True, mirrored=True),
}
"""Test-time augmentation: as recorded; mirrored left to right; flipped in time; flipped in time and mirrored."""

_TO_LAST = np.array([0, 1])  # from the ends of a window to its first and last event

_DRAWS = 10
"""Draws of one recording before giving up: a shift of 20 px empties none that fills a sensor."""


@dataclass(frozen=True, eq=False)
class Views:
    """What CLIP gets of a recording, v views in order of time.

    Example:
        >>> from eventclip import FrameRenderer, ViewTransform, read_events
        >>> events, _ = read_events("star.npy")
        >>> views = ViewTransform(FrameRenderer(5_000), image_size=64, max_views=3)(events, (128, 128))
        >>> type(views).__name__, len(views), views.times.shape
        ('Views', 3, (3, 2))

    Attributes:
        pixels: (v, C, S, S) uint8, C = 1 for gray.
        spans: (v, 2) first and past-the-end event of each.
        times: (v, 2) time of its first and of its last event [µs]; flipped in time, as they come then.
    """

    pixels: NDArray[np.uint8]
    spans: NDArray[np.int64]
    times: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pixels)


class ViewTransform:
    """Render a recording's events and prepare the frames for CLIP.

    Example:
        >>> from eventclip import FrameRenderer, ViewTransform, read_events
        >>> events, _ = read_events("star.npy")
        >>> transform = ViewTransform(FrameRenderer(5_000), image_size=224, max_views=3)
        >>> transform(events, (128, 128)).pixels.shape
        (3, 1, 224, 224)

    Args:
        renderer: events -> frames.
        image_size: side S of CLIP's square input [px].
        max_views: most views of a recording; of a longer one so many are chosen, evenly or, where augmented, at random.
        resize_mode: how a frame becomes square: "crop" (the paper's), "pad" or "stretch".
        augmentation: random changes; None for evaluation, which is deterministic.
        tta: what evaluation shows, one of :data:`TTA`.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(
        self,
        renderer: FrameRenderer,
        *,
        image_size: int,
        max_views: int = 10,
        resize_mode: str = "crop",
        augmentation: Augmentation | None = None,
        tta: str = "as_is",
    ) -> None:
        if tta not in TTA or (augmentation is not None and tta != "as_is"):
            raise UserError(f"tta must be one of {', '.join(TTA)}, without augmentation, got {tta!r}")
        if resize_mode not in RESIZE_MODES:
            raise UserError(f"resize_mode must be one of {', '.join(RESIZE_MODES)}, got {resize_mode!r}")
        self.renderer, self.max_views = renderer, whole(max_views, "max_views")
        self.image_size = whole(image_size, "image_size")
        self.resize_mode, self.augmentation, self.tta = resize_mode, augmentation, tta
        self.background = 255 if renderer.white_background else 0
        self.rand_augment = RandAugment(fill=self.background) if augmentation and augmentation.image else None

    def describe(self) -> dict[str, Any]:
        """Plain values that decide the views of given events."""
        return {
            "revision": REVISION,
            "frames": self.renderer.describe(),
            "image_size": self.image_size,
            "max_views": self.max_views,
            "resize_mode": self.resize_mode,
            "tta": self.tta,
            "augmentation": None if self.augmentation is None else asdict(self.augmentation),
        }

    def __call__(
        self, events: Events, sensor_hw: tuple[int, int] | None = None, rng: np.random.Generator | None = None
    ) -> Views:
        """Make the views of one recording.

        Args:
            events: (N,) array of EVENT_DTYPE in order of time, inside the sensor, as reading gives them.
            sensor_hw: height and width of the sensor [px]; None takes the renderer's.
            rng: generator of all random choices; needed if and only if there is an augmentation.

        Returns:
            At least one view.

        Raises:
            RecordingError: there are no events, or ten random shifts in a row left none.
            UserError: no sensor, or events that need a larger one, or are none of EVENT_DTYPE.
        """
        if (rng is None) != (self.augmentation is None):
            raise ValueError("training views need a generator and evaluation views must not have one")
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise UserError(f"rng must be a generator such as np.random.default_rng(0), got {type(rng).__name__}")
        hw = self.renderer.sensor_hw if sensor_hw is None else sensor_hw
        if hw is None:
            raise UserError("the sensor's size is not known: give sensor_hw=(H, W)")
        move = TTA[self.tta] if self.augmentation is None or rng is None else self.augmentation.move(rng)
        centred = centre(events, hw, must_fit=True)  # kernels rely on it
        hw = (int(hw[0]), int(hw[1]))
        if not len(events):
            raise RecordingError("the recording holds no events: remove it or record it again")
        shown = moved(centred, hw, move)
        if not len(shown):
            shown = self._moved_again(centred, hw, rng)
        windows = choose_windows(self.renderer.windows(len(shown)), self.max_views, rng)
        frames = self.renderer.render(shown, hw, windows)
        if self.rand_augment is not None and rng is not None:
            frames = self.rand_augment(frames, rng)
        pixels = clip_resize(frames, self.image_size, mode=self.resize_mode, background=self.background)
        start = int(events["t"][0]) - int(centred["t"][0])
        times = shown["t"][windows - _TO_LAST] + start
        return Views(pixels, windows, times)

    def _moved_again(self, centred: Events, hw: tuple[int, int], rng: np.random.Generator | None) -> Events:
        """The first of some further random moves that leaves events on the sensor."""
        for _ in range(_DRAWS - 1):
            if self.augmentation is not None and rng is not None:
                shown = moved(centred, hw, self.augmentation.move(rng))
                if len(shown):
                    return shown
        raise RecordingError(
            f"none of {len(centred)} events was left on the {hw[0]}x{hw[1]} sensor after {_DRAWS} random shifts: lower "
            f"data.augmentation.max_shift or leave the recording out"
        )
