"""From events to pictures: the event frames of EventCLIP (arXiv 2306.06354, section 3.2), to the last bit.

A recording is cut into windows of equally many events; each window becomes one picture of how often every pixel
fired. Arithmetic is float64 in the order written here, because a reordered sum shifts single gray levels.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import UserError, whole
from eventclip.events.array import Events, as_events, check_events, check_sensor
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


@dataclass(frozen=True)
class FrameRenderer:
    """Turn the events of one recording into frames; safe to call from several threads at once.

    With ``sensor_hw`` it is a step of a torchvision or tonic chain.

    Example:
        >>> from eventclip import FrameRenderer, read_events
        >>> events, _ = read_events("star.npy")
        >>> frames = FrameRenderer(5_000, sensor_hw=(128, 128))(events)
        >>> frames.shape[1:], frames.dtype
        ((128, 128), dtype('uint8'))

    Attributes:
        events_per_frame: events in one window, N in the paper.
        sensor_hw: height and width of the sensor [px], for calls that do not give it.
        hot_pixel_std: counts more than this many standard deviations above the mean are hot pixels and become 0;
            0 keeps all. Where every count would be hot, none is.
        count_non_zero: mean and standard deviation over the counts above 0 only, not over all (N-Cars).
        white_background: fade pixels with few events to white, 255; otherwise pixels without events are 0 (N-Cars).
        color: "gray", one channel, ON and OFF alike; or "rgb", ON in red and OFF in blue.

    Raises:
        UserError: an option outside its range.
    """

    events_per_frame: int
    _: KW_ONLY
    sensor_hw: tuple[int, int] | None = None
    hot_pixel_std: float = 10.0
    count_non_zero: bool = False
    white_background: bool = True
    color: str = "gray"

    def __post_init__(self) -> None:
        object.__setattr__(self, "events_per_frame", whole(self.events_per_frame, "events_per_frame"))
        check_sensor(self.sensor_hw)
        if self.sensor_hw is not None:
            height, width = self.sensor_hw
            object.__setattr__(self, "sensor_hw", (int(height), int(width)))
        if not 0.0 <= self.hot_pixel_std < math.inf:
            raise UserError(f"hot_pixel_std must be 0 (keep all) or a positive number, got {self.hot_pixel_std}.")
        if self.color not in COLORS:
            raise UserError(f"color must be one of {', '.join(COLORS)}, got {self.color!r}.")
        object.__setattr__(self, "hot_pixel_std", float(self.hot_pixel_std))

    def describe(self) -> dict[str, int | float | bool | str]:
        """What decides the frames of given events on a given sensor, as plain values."""
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
        self,
        events: NDArray[np.void],
        sensor_hw: tuple[int, int] | None = None,
        windows: NDArray[np.int64] | None = None,
    ) -> NDArray[np.uint8]:
        """Check events, and render one frame per window.

        Args:
            events: (N,) array of EVENT_DTYPE, or of other types with fields t [µs], x, y and p, in order of time.
            sensor_hw: height and width of the sensor [px]; None takes the renderer's.
            windows: (V, 2) as :meth:`windows` gives them, or some of them; None renders all.

        Returns:
            (V, H, W) gray or (V, H, W, 3) RGB frames.

        Raises:
            UserError: an event outside the sensor or without a polarity, no sensor, or a window outside the recording.
        """
        hw = self.sensor_hw if sensor_hw is None else sensor_hw
        if hw is None:
            raise UserError("the sensor's size is not known: give it, FrameRenderer(..., sensor_hw=(H, W)).")
        events = as_events(events)
        check_events(events, hw)
        hw = (int(hw[0]), int(hw[1]))
        windows = self.windows(len(events)) if windows is None else _checked_windows(windows, len(events))
        return self.render(events, hw, windows)

    def render(self, events: Events, sensor_hw: tuple[int, int], windows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Render one frame per window, as :meth:`__call__`, of events that are known to lie inside the sensor."""
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


def choose_windows(windows: NDArray[np.int64], max_views: int, rng: np.random.Generator | None) -> NDArray[np.int64]:
    """Choose which windows of a recording become views.

    Args:
        windows: (W, 2) first and past-the-end event of each window, in order of time.
        max_views: most windows to keep, 1 or more.
        rng: generator of a random choice without replacement, in training; None spreads the choice evenly over the
            recording, the same each time, for evaluation.

    Returns:
        (V, 2) windows in order of time; all of them where W <= max_views, else V = max_views.
    """
    count = len(windows)
    if count <= max_views:
        return windows
    if rng is None:
        # The middle window of each of V equal parts, which for V = 1 is the middle of the recording.
        chosen = (2 * np.arange(max_views) + 1) * count // (2 * max_views)
    else:
        chosen = np.sort(rng.choice(count, max_views, replace=False))
    return windows[chosen]


def views_per_recording(p95_events: int, events_per_frame: int, limit: int) -> int:
    """Decide how many views a data set's recordings get (EventCLIP, arXiv 2306.06354).

    Args:
        p95_events: 95th percentile of the number of events per recording.
        events_per_frame: events in one frame, N in the paper.
        limit: most views allowed: 2 in training and 10 at evaluation in the paper.

    Returns:
        p95_events / events_per_frame rounded, at least 1 and at most ``limit``.

    Raises:
        UserError: a number below 1.
    """
    if min(p95_events, events_per_frame, limit) < 1:
        raise UserError(
            f"the number of views needs p95_events={p95_events}, events_per_frame={events_per_frame} and "
            f"the limit of views={limit} to be 1 or more each"
        )
    return min(max(round(p95_events / events_per_frame), 1), limit)


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
