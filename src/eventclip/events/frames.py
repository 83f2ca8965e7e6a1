"""From events to pictures: the event frames of EventCLIP (arXiv 2306.06354, section 3.2), to the last bit.

A recording is cut into windows of equally many events; each window becomes one picture of how often every pixel
fired. Arithmetic is float64 in the order written here, because a reordered sum shifts single gray levels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import UserError
from eventclip.events.array import Events, check_events
from eventclip.events.kernels import kernel

COLORS = ("gray", "rgb")

_SMALL, _LARGE = (180 * 240, 20_000), (480 * 640, 70_000)


def events_per_frame_for(sensor_hw: tuple[int, int]) -> int:
    """Choose the number of events in a frame by the size of the sensor, for recordings nobody has tuned it on.

    The power law through the paper's two: 20,000 on N-Caltech101's 180x240 pixels and 70,000 on N-ImageNet's 480x640,
    which is pixels to the 0.64. Between the length of an edge (pixels to the 0.5) and the area that it sweeps (1.0), as
    one would expect. It gives 2,000 for 34x34, 10,800 for 128x128, 32,000 for 260x346 and 141,000 for 720x1280.

    Args:
        sensor_hw: height and width of the sensor [px].

    Returns:
        N, at least 1, to three digits.
    """
    exponent = math.log(_LARGE[1] / _SMALL[1]) / math.log(_LARGE[0] / _SMALL[0])
    chosen = _SMALL[1] * (sensor_hw[0] * sensor_hw[1] / _SMALL[0]) ** exponent
    return max(int(float(f"{chosen:.3g}")), 1)


class FrameRenderer:
    """Turn the events of one recording into frames; safe to call from several threads at once.

    Args:
        events_per_frame: events in one window, N in the paper.
        hot_pixel_std: counts more than this many standard deviations above the mean are hot pixels and become 0;
            0 keeps all. Where every count would be hot, none is.
        count_non_zero: mean and standard deviation over the counts above 0 only, not over all (N-Cars).
        white_background: fade pixels with few events to white, 255; otherwise pixels without events are 0 (N-Cars).
        color: "gray", one channel, ON and OFF alike; or "rgb", ON in red and OFF in blue.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(
        self,
        events_per_frame: int,
        *,
        hot_pixel_std: float = 10.0,
        count_non_zero: bool = False,
        white_background: bool = True,
        color: str = "gray",
    ) -> None:
        if events_per_frame < 1:
            raise UserError(f"events_per_frame must be at least 1, got {events_per_frame}.")
        if not 0.0 <= hot_pixel_std < math.inf:
            raise UserError(f"hot_pixel_std must be 0 (keep all) or a positive number, got {hot_pixel_std}.")
        if color not in COLORS:
            raise UserError(f"color must be one of {', '.join(COLORS)}, got {color!r}.")
        self.events_per_frame = events_per_frame
        self.hot_pixel_std = float(hot_pixel_std)
        self.count_non_zero = count_non_zero
        self.white_background = white_background
        self.color = color

    def describe(self) -> dict[str, int | float | bool | str]:
        """Its options as plain values."""
        return {
            "events_per_frame": self.events_per_frame,
            "hot_pixel_std": self.hot_pixel_std,
            "count_non_zero": self.count_non_zero,
            "white_background": self.white_background,
            "color": self.color,
        }

    def windows(self, count: int) -> NDArray[np.int64]:
        """Cut a recording into windows of ``events_per_frame`` events.

        Args:
            count: number of events of the recording, 0 or more.

        Returns:
            (V, 2) first and past-the-end event of each window, V at least 1. A remainder of more than half a window
            becomes the last window, filled up with the events before it. A recording shorter than one window is
            one window.
        """
        size = self.events_per_frame
        if count < size:
            return np.array([[0, count]], np.int64)
        starts = np.arange(0, count - size + 1, size, dtype=np.int64)
        if 2 * (count % size) > size:
            starts = np.append(starts, count - size)
        return np.stack([starts, starts + size], axis=1)

    def __call__(
        self, events: Events, sensor_hw: tuple[int, int], windows: NDArray[np.int64] | None = None
    ) -> NDArray[np.uint8]:
        """Render one frame per window.

        Args:
            events: (N,) array of EVENT_DTYPE in order of time; N may be 0, which gives one frame without events.
            sensor_hw: height and width of the sensor [px].
            windows: (V, 2) first and past-the-end event of each frame; None takes ``self.windows(N)``.

        Returns:
            (V, H, W) gray or (V, H, W, 3) RGB frames.

        Raises:
            UserError: an event outside the sensor, or a window outside the recording.
        """
        check_events(events, sensor_hw)
        windows = self.windows(len(events)) if windows is None else _checked_windows(windows, len(events))
        paint = _paint_gray if self.color == "gray" else _paint_rgb
        frames = np.empty((len(windows), *sensor_hw, *(() if self.color == "gray" else (3,))), np.uint8)
        counts = np.empty((2, *sensor_hw), np.int32)
        for frame, (start, end) in zip(frames, windows.tolist(), strict=True):
            _count(events, start, end, counts)
            peak = max(self._peak(counts, end - start), 1)
            paint(counts[0].ravel(), counts[1].ravel(), peak, self.white_background, frame)
        return frames

    def _peak(self, counts: NDArray[np.int32], total: int) -> int:
        """Find the largest count that is not hot: those above it are hot, and painted as if they were 0.

        Decides ``count > hot_pixel_std * np.std(counts) + np.mean(counts)`` as numpy does, at less cost.

        Args:
            counts: (2, H, W) events per polarity and pixel.
            total: their sum.
        """
        squares, peak = _squares_and_largest(counts.ravel())
        cells = int(np.count_nonzero(counts)) if self.count_non_zero else counts.size
        spread = cells * squares - total * total  # (cells * std)²; whole numbers, therefore exact
        if self.hot_pixel_std == 0.0 or spread == 0:
            return peak
        threshold = self.hot_pixel_std * (math.sqrt(spread) / cells) + total / cells
        if threshold > peak + 1:
            return peak
        if abs(threshold - round(threshold)) < 1e-9 * threshold:
            # Whether a count on the threshold exceeds it hangs on the rounding inside np.std, which depends on the
            # order of its sum; only numpy can say.
            used = counts[counts > 0] if self.count_non_zero else counts
            threshold = float(self.hot_pixel_std * np.std(used) + np.mean(used))
        if threshold >= peak:
            return peak
        return _largest(counts.ravel(), math.floor(threshold)) or peak


def _checked_windows(windows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Refuse windows that do not lie inside a recording of ``count`` events."""
    windows = np.asarray(windows)
    if windows.ndim != 2 or windows.shape[1] != 2 or windows.dtype.kind not in "iu":
        raise UserError(f"windows must be whole numbers of shape (V, 2), got {windows.dtype} {windows.shape}.")
    for number, (start, end) in enumerate(windows.tolist()):  # a few of them: array arithmetic takes ten times as long
        if not 0 <= start <= end <= count:
            raise UserError(f"Window {number} [{start}, {end}) does not lie in the {count} events.")
    return windows


@kernel
def _count(events: Events, start: int, end: int, counts: NDArray[np.int32]) -> None:
    """Count events [start, end) per polarity and pixel into ``counts`` (2: ON, OFF; H; W), whatever it held.

    Indices are unsigned here and below, because numba tests signed ones for being negative at every use.
    """
    counts[:] = 0
    for i in range(np.uint64(start), np.uint64(end)):
        event = events[i]
        counts[np.uint64(event.p == 0), np.uint64(event.y), np.uint64(event.x)] += 1


@kernel
def _squares_and_largest(counts: NDArray[np.int32]) -> tuple[int, int]:
    """The sum of the squares of the counts, and the largest of them."""
    squares, largest = 0, np.int32(0)
    for i in range(np.uint64(len(counts))):
        count = counts[i]
        squares += np.int64(count) * np.int64(count)
        largest = max(largest, count)
    return squares, np.int64(largest)


@kernel
def _largest(counts: NDArray[np.int32], limit: int) -> int:
    """The largest count that does not exceed the limit, 0 where all but 0 do."""
    most, largest = np.int32(limit), np.int32(0)
    for i in range(np.uint64(len(counts))):
        largest = max(largest, counts[i] if counts[i] <= most else np.int32(0))
    found: int = np.int64(largest)
    return found


@kernel
def _share(count: int, peak: int) -> float:
    """A count relative to the peak; 0 for a hot pixel, which exceeds it. Here, so that no pass has to remove them."""
    share: float = (count if count <= peak else np.int32(0)) / peak
    return share


@kernel
def _level(value: float, share: float, white: bool) -> np.uint8:
    """One channel of one pixel: laid over white by its share where asked, rounded half to even."""
    if white:
        value = value * share + 255.0 * (1.0 - share)
    level: np.uint8 = np.uint8(np.rint(value))
    return level


@kernel
def _paint_gray(
    on: NDArray[np.int32], off: NDArray[np.int32], peak: int, white: bool, frame: NDArray[np.uint8]
) -> None:
    """Paint counts (H*W,) relative to their peak into a frame (H, W)."""
    pixels, most = frame.ravel(), np.int32(peak)  # as wide as the counts: more of them are compared at once
    for i in range(np.uint64(len(pixels))):
        bright, dark = _share(on[i], most), _share(off[i], most)
        pixels[i] = _level(127.0 * bright + 127.0 * dark, min(bright + dark, 1.0), white)


@kernel
def _paint_rgb(on: NDArray[np.int32], off: NDArray[np.int32], peak: int, white: bool, frame: NDArray[np.uint8]) -> None:
    """Paint counts (H*W,) relative to their peak into a frame (H, W, 3): ON red, OFF blue."""
    pixels, most = frame.reshape(-1, 3), np.int32(peak)
    for i in range(np.uint64(len(pixels))):
        bright, dark = _share(on[i], most), _share(off[i], most)
        share = min(bright + dark, 1.0)
        pixels[i, 0] = _level(255.0 * bright, share, white)
        pixels[i, 1] = _level(0.0, share, white)
        pixels[i, 2] = _level(255.0 * dark, share, white)
