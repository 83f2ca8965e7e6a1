"""From the frames of a recording to the fixed number of square views that CLIP looks at."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import UserError
from eventclip.views.resize import Planes, frame_planes, resize_bicubic

FITS = ("crop", "pad", "stretch")


def views_per_recording(percentile_events: int, events_per_frame: int, limit: int) -> int:
    """Decide how many views a data set's recordings get (EventCLIP, arXiv 2306.06354).

    Args:
        percentile_events: 95th percentile of the number of events per recording.
        events_per_frame: events in one frame, N in the paper.
        limit: most views allowed: 2 in training and 10 at evaluation in the paper.

    Returns:
        percentile_events / events_per_frame rounded, at least 1 and at most ``limit``.

    Raises:
        UserError: a number below 1.
    """
    if min(percentile_events, events_per_frame, limit) < 1:
        raise UserError(
            f"the number of views needs percentile_events={percentile_events}, events_per_frame={events_per_frame} and "
            f"the limit of views={limit} to be 1 or more each"
        )
    return min(max(round(percentile_events / events_per_frame), 1), limit)


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


def clip_resize(frames: NDArray[np.uint8], size: int, *, fit: str = "crop", background: int = 255) -> NDArray[np.uint8]:
    """Bring frames to CLIP's square input, with CLIP's own preprocessing up to mean and standard deviation.

    Bicubic and antialiased as Pillow does it: 8-bit arithmetic, rounded after the horizontal and after the vertical
    pass. "crop" is what CLIP was trained with: the short side becomes ``size``, the long side
    int(size * long / short), and torchvision's centre crop follows.

    Args:
        frames: (V, H, W) gray or (V, H, W, 3) RGB frames.
        size: side S of CLIP's input [px].
        fit: "crop" cuts off what is beyond the middle square; "pad" shows the whole frame, its long side becoming
            ``size`` and the rest background; "stretch" brings both sides to ``size``, whatever the shape.
        background: gray level that pads, 0 to 255.

    Returns:
        (V, C, S, S) views; C is 1 for gray and 3 for RGB.

    Raises:
        UserError: an unknown ``fit``, or a size below 1.
    """
    if fit not in FITS:
        raise UserError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
    if size < 1:
        raise UserError(f"CLIP's input must be 1 or more pixels wide, got {size}")
    planes, channels = frame_planes(frames)
    height, width = frames.shape[1:3]
    short, long = min(height, width), max(height, width)
    top = left = 0
    resized_hw = size, size
    if fit == "crop":
        side = int(size * long / short)
        resized_hw = (size, side) if height <= width else (side, size)
        top, left = (round((resized - size) / 2) for resized in resized_hw)
    elif fit == "pad":
        side = max(int(size * short / long), 1)
        resized_hw = (side, size) if height <= width else (size, side)
    shown = min(resized_hw[0], size), min(resized_hw[1], size)
    views = resize_bicubic(planes, resized_hw, top=top, left=left, size=shown)
    if shown != (size, size):
        views = _padded(views, size, background)
    return views.reshape(len(frames), channels, size, size)


def pad_views(views: NDArray[Any], max_views: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Fill up to a fixed number of views, so that recordings form a batch.

    Args:
        views: (v, ...) views of any dtype, 1 <= v <= max_views.
        max_views: V.

    Returns:
        (V, ...) views, zeros for the missing ones, and (V,) True where there is a view.

    Raises:
        ValueError: more views than ``max_views``, or none.
    """
    count = len(views)
    if not 1 <= count <= max_views:
        raise ValueError(f"a recording needs 1 to {max_views} views, got {count}")
    valid = np.arange(max_views) < count
    if count == max_views:
        return views, valid
    filled = np.zeros((max_views, *views.shape[1:]), views.dtype)
    filled[:count] = views
    return filled, valid


def as_image(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One view (C, S, S) as (S, S), or (S, S, 3) in colour."""
    return view[0] if len(view) == 1 else np.moveaxis(view, 0, -1)


def _padded(planes: Planes, size: int, background: int) -> Planes:
    """Lay planes in the middle of squares of background."""
    height, width = planes.shape[1:]
    top, left = (size - height) // 2, (size - width) // 2
    squares = np.full((len(planes), size, size), background, np.uint8)
    squares[:, top : top + height, left : left + width] = planes
    return squares
