"""From frames to CLIP's square input, by Pillow's bicubic resize: the same bytes, several times faster.

CLIP's preprocessing is defined by what Pillow does to 8-bit images (its ``Resample.c``), whose rounding an ordinary
float implementation misses. All planes of a stack are treated at once; a colour is a plane of its own. Pillow built
with fused multiply-adds (ARM) may differ in single gray levels.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import UserError
from eventclip.events.kernels import kernel

Planes = NDArray[np.uint8]
"""(P, H, W) stack of gray planes."""

RESIZE_MODES = ("crop", "pad", "stretch")

_PRECISION = 22
"""Fractional bits of Pillow's weights: 32 less 8 for the pixel less 2 for sums above 1."""


def clip_resize(
    frames: NDArray[np.uint8], size: int, *, mode: str = "crop", background: int = 255
) -> NDArray[np.uint8]:
    """Bring frames to CLIP's square input, with CLIP's own preprocessing up to mean and standard deviation.

    Bicubic and antialiased as Pillow does it: 8-bit arithmetic, rounded after the horizontal and after the vertical
    pass. "crop" is what CLIP was trained with: the short side becomes ``size``, the long side
    int(size * long / short), and torchvision's centre crop follows.

    Args:
        frames: (V, H, W) gray or (V, H, W, 3) RGB frames.
        size: side S of CLIP's input [px].
        mode: "crop" cuts off what is beyond the middle square; "pad" shows the whole frame, its long side becoming
            ``size`` and the rest background; "stretch" brings both sides to ``size``, whatever the shape.
        background: gray level that pads, 0 to 255.

    Returns:
        (V, C, S, S) views; C is 1 for gray and 3 for RGB.

    Raises:
        UserError: an unknown ``mode``, or a size below 1.
    """
    if mode not in RESIZE_MODES:
        raise UserError(f"resize_mode must be one of {', '.join(RESIZE_MODES)}, got {mode!r}")
    if size < 1:
        raise UserError(f"CLIP's input must be 1 or more pixels wide, got {size}")
    planes, channels = frame_planes(frames)
    height, width = frames.shape[1:3]
    short, long = min(height, width), max(height, width)
    top = left = 0
    resized_hw = size, size
    if mode == "crop":
        side = int(size * long / short)
        resized_hw = (size, side) if height <= width else (side, size)
        top, left = (round((resized - size) / 2) for resized in resized_hw)
    elif mode == "pad":
        side = max(int(size * short / long), 1)
        resized_hw = (side, size) if height <= width else (size, side)
    shown = min(resized_hw[0], size), min(resized_hw[1], size)
    views = resize_bicubic(planes, resized_hw, top=top, left=left, size=shown)
    if shown != (size, size):
        views = _padded(views, size, background)
    return views.reshape(len(frames), channels, size, size)


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


def frame_planes(frames: NDArray[np.uint8]) -> tuple[Planes, int]:
    """Take frames apart into planes.

    Args:
        frames: uint8 (V, H, W) gray or (V, H, W, 3) RGB frames.

    Returns:
        (V C, H, W) planes, a view of gray frames and a copy of RGB ones, and C, the planes per frame: 1 or 3.

    Raises:
        ValueError: another shape or dtype, or nothing in it.
    """
    rgb = frames.ndim == 4 and frames.shape[3] == 3
    if frames.dtype != np.uint8 or not (frames.ndim == 3 or rgb) or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 (V, H, W) or (V, H, W, 3), got {frames.dtype} {frames.shape}")
    if not rgb:
        return np.ascontiguousarray(frames), 1
    return np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).reshape(-1, *frames.shape[1:3]), 3


def resize_bicubic(planes: Planes, full_hw: tuple[int, int], *, top: int, left: int, size: tuple[int, int]) -> Planes:
    """Resize with Pillow's antialiased bicubic filter and cut a rectangle out, computing no more than that.

    Across first, then down, each pass rounded to bytes: the order CLIP was trained with. Pillow does so too, but
    from version 13 on goes down first where the height shrinks more than the width; for CLIP's crop that concerns
    frames in portrait format only, which here do not depend on Pillow's version.

    Args:
        planes: (P, H, W) planes.
        full_hw: height and width of the whole resized plane [px].
        top: first row of the rectangle in the resized plane.
        left: first column of the rectangle.
        size: height h and width w of the rectangle [px]; it must lie inside the resized plane.

    Returns:
        (P, h, w), byte for byte Pillow's resize of the width, then of the height, then its crop.
    """
    rows = _taps(planes.shape[1], full_hw[0], top, size[0])
    columns = _taps(planes.shape[2], full_hw[1], left, size[1])
    # One kernel weighs whole rows, which vectorises; columns are rows of the transposed plane.
    needed = planes[:, rows.start : rows.stop, columns.start : columns.stop]
    return _resampled(_transposed(_resampled(_transposed(needed), columns)), rows)


class _Taps(NamedTuple):
    """Which source pixels, weighed how, make up each of n neighbouring pixels of a resized line."""

    start: int
    """First source pixel in use."""
    stop: int
    """End of the source pixels in use."""
    first: NDArray[np.int32]
    """(n,) first source pixel of each, from ``start``."""
    used: NDArray[np.int32]
    """(n,) number of source pixels of each."""
    weights: NDArray[np.int32]
    """(n, taps) their weights, fixed-point."""
    most: int
    """The largest number in ``used``."""


@lru_cache(maxsize=64)  # frames have one or a few sizes, parts of images many
def _taps(source: int, target: int, offset: int, length: int) -> _Taps:
    """Taps of the pixels [offset, offset + length) of a line resized from ``source`` to ``target`` pixels."""
    first, used, weights = (part[offset : offset + length] for part in _weights(source, target))
    start, stop = int(first[0]), int(first[-1] + used[-1])
    return _Taps(start, stop, first - np.int32(start), used, weights, int(used.max()))


def _weights(source: int, target: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Pillow's fixed-point weights for resizing a line: first source pixel, number of pixels, weights of each."""
    scale = source / target
    stretch = max(scale, 1.0)
    reach = 2.0 * stretch
    centre = (np.arange(target) + 0.5) * scale
    low = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    used = np.minimum((centre + reach + 0.5).astype(np.int64), source) - low
    taps = np.arange(2 * math.ceil(reach) + 1)
    # The very order of Pillow's operations: another one shifts weights by a unit in the last place.
    line = _cubic((taps + low[:, None] - centre[:, None] + 0.5) * (1.0 / stretch))
    line[taps >= used[:, None]] = 0.0
    total = np.zeros(target)
    for weight in line.T:
        total += weight
    fixed = line / total[:, None] * (1 << _PRECISION)
    weights = np.where(line < 0, fixed - 0.5, fixed + 0.5).astype(np.int32)
    return low.astype(np.int32), used.astype(np.int32), weights


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5, as Pillow evaluates it."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _resampled(planes: Planes, taps: _Taps) -> Planes:
    """Resample the rows of planes (P, H, W) to (P, n, W)."""
    resampled = np.empty((len(planes), len(taps.first), planes.shape[2]), np.uint8)
    if taps.most <= 4:
        _weigh_four_rows(planes, taps.first, taps.weights, resampled)
    else:
        _weigh_rows(planes, taps.first, taps.used, taps.weights, resampled)
    return resampled


def _transposed(planes: Planes) -> Planes:
    """Copy (P, H, W) to (P, W, H)."""
    copy = np.empty((planes.shape[0], planes.shape[2], planes.shape[1]), np.uint8)
    for start in range(0, planes.shape[1], 128):  # strips that stay in the cache: half the time at 480x640
        copy[:, :, start : start + 128] = planes[:, start : start + 128].transpose(0, 2, 1)
    return copy


@kernel
def _weigh_rows(
    planes: Planes,
    first: NDArray[np.int32],
    used: NDArray[np.int32],
    weights: NDArray[np.int32],
    weighed: Planes,
) -> None:
    """Fill each row of ``weighed`` with the weighted sum of ``used`` rows of ``planes``, rounded and clamped."""
    sums = np.empty(planes.shape[2], np.int32)
    for plane in range(planes.shape[0]):
        for y in range(weighed.shape[1]):
            sums[:] = 1 << (_PRECISION - 1)
            for tap in range(used[y]):
                row, weight = planes[plane, first[y] + tap], weights[y, tap]
                for x in range(len(sums)):
                    sums[x] += np.int32(row[x]) * weight
            target = weighed[plane, y]
            for x in range(len(sums)):
                target[x] = min(max(sums[x] >> np.int32(_PRECISION), np.int32(0)), np.int32(255))


@kernel
def _weigh_four_rows(planes: Planes, first: NDArray[np.int32], weights: NDArray[np.int32], weighed: Planes) -> None:
    """The same where no more than four rows are used, as in a plane that grows: half the time without stored sums."""
    half, last = np.int32(1 << (_PRECISION - 1)), planes.shape[1] - 1
    for plane in range(planes.shape[0]):
        for y in range(weighed.shape[1]):
            i = first[y]  # rows beyond those in use have weight 0, whichever they are
            a, b = planes[plane, i], planes[plane, min(i + 1, last)]
            c, d = planes[plane, min(i + 2, last)], planes[plane, min(i + 3, last)]
            of_a, of_b, of_c, of_d = weights[y, 0], weights[y, 1], weights[y, 2], weights[y, 3]
            target = weighed[plane, y]
            for x in range(np.uint64(len(target))):
                near = np.int32(a[x]) * of_a + np.int32(b[x]) * of_b
                far = np.int32(c[x]) * of_c + np.int32(d[x]) * of_d
                total = np.int32(half + near + far) >> np.int32(_PRECISION)
                target[x] = min(max(total, np.int32(0)), np.int32(255))
