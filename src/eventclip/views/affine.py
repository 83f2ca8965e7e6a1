"""Pillow's bicubic affine transform on stacks of gray planes: the same bytes, several times faster.

The geometric operations of RandAugment are what Pillow's ``Geometry.c`` does to 8-bit images. All planes of a stack are
treated at once. Pillow built with fused multiply-adds (ARM) may differ in single gray levels.
"""

from __future__ import annotations

import math

import numpy as np

from eventclip.events.kernels import kernel
from eventclip.views.resize import Planes


def affine_bicubic(planes: Planes, matrix: tuple[float, float, float, float, float, float], fill: int) -> Planes:
    """Transform with Pillow's bicubic interpolation (4x4 neighbours, a = -1, truncated to bytes).

    Args:
        planes: (P, H, W) planes.
        matrix: a, b, c, d, e, f: the target pixel (x, y) shows the source at (a x + b y + c, d x + e y + f), pixel
            centres at halves.
        fill: gray level of targets whose source lies outside the plane, 0 to 255.

    Returns:
        (P, H, W), byte for byte ``image.transform(size, AFFINE, matrix, BICUBIC, fillcolor=fill)``.
    """
    transformed = np.full_like(planes, fill)
    _affine(planes, matrix, transformed)
    return transformed


@kernel
def _affine(planes: Planes, matrix: tuple[float, float, float, float, float, float], transformed: Planes) -> None:
    """Overwrite the pixels of ``transformed`` whose source lies inside the planes."""
    height, width = planes.shape[1:]
    a, b, c, d, e, f = matrix
    for y in range(height):
        for x in range(width):
            source_x = a * (x + 0.5) + b * (y + 0.5) + c
            source_y = d * (x + 0.5) + e * (y + 0.5) + f
            if source_x < 0.0 or source_x >= width or source_y < 0.0 or source_y >= height:
                continue
            left, top = math.floor(source_x - 0.5), math.floor(source_y - 0.5)
            dx, dy = source_x - 0.5 - left, source_y - 0.5 - top
            columns, rows = _four(left, width), _four(top, height)
            for plane in range(len(planes)):
                if dy == 0.0:  # sheared along x
                    value = _along_row(planes, plane, rows[1], columns, dx)
                elif dx == 0.0:  # sheared along y
                    y0, y1, y2, y3 = rows
                    x1 = columns[1]
                    value = _between_levels(
                        planes[plane, y0, x1], planes[plane, y1, x1], planes[plane, y2, x1], planes[plane, y3, x1], dy
                    )
                else:
                    value = _between(
                        _along_row(planes, plane, rows[0], columns, dx),
                        _along_row(planes, plane, rows[1], columns, dx),
                        _along_row(planes, plane, rows[2], columns, dx),
                        _along_row(planes, plane, rows[3], columns, dx),
                        dy,
                    )
                transformed[plane, y, x] = np.uint8(min(max(value, 0.0), 255.0))


@kernel
def _four(second: int, length: int) -> tuple[int, int, int, int]:
    """Places of the four neighbours, the border repeated; unsigned, so that indexing skips negative indices."""
    last = length - 1
    return (
        np.uint64(max(second - 1, 0)),
        np.uint64(max(second, 0)),
        np.uint64(min(second + 1, last)),
        np.uint64(min(second + 2, last)),
    )


@kernel
def _along_row(planes: Planes, plane: int, row: int, columns: tuple[int, int, int, int], t: float) -> float:
    """Interpolate between the second and the third of four pixels of a row."""
    x0, x1, x2, x3 = columns
    return _between_levels(
        planes[plane, row, x0], planes[plane, row, x1], planes[plane, row, x2], planes[plane, row, x3], t
    )


@kernel
def _between_levels(v0: int, v1: int, v2: int, v3: int, t: float) -> float:
    """:func:`_between` for gray levels: differences in 32-bit whole numbers are as exact as in doubles, and faster."""
    w0, w1, w2, w3 = np.int32(v0), np.int32(v1), np.int32(v2), np.int32(v3)
    slope = float(np.int32(w2 - w0))
    bend = float(np.int32(2 * (w0 - w1) + w2 - w3))
    twist = float(np.int32(w1 - w0 + w3 - w2))
    return float(w1) + t * (slope + t * (bend + t * twist))


@kernel
def _between(v0: float, v1: float, v2: float, v3: float, t: float) -> float:
    """Cubic through four values, between v1 (t = 0) and v2 (t = 1), with operations in Pillow's order."""
    return v1 + t * ((v2 - v0) + t * ((2.0 * (v0 - v1) + v2 - v3) + t * (-v0 + v1 - v2 + v3)))
