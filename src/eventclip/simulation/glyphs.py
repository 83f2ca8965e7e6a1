"""Pictographs as geometry: the outlines that matplotlib's own fonts hold, and how ink is put on them.

A drawing is a tuple of closed contours, each (P, 2) float64 of x (right) and y (down). ``outline`` returns them
centred on the origin with the longer side of their box equal to one; every other function takes any such tuple,
so that a style is a chain: outline → wobble → project → fill, stroke or hatch.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from threading import Lock

import matplotlib as mpl
import numpy as np
from matplotlib.ft2font import FT2Font
from matplotlib.path import Path as Curve
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eventclip.errors import UserError

Contours = tuple[NDArray[np.float64], ...]

SUPERSAMPLING = 4  # PIL draws without antialiasing; 4x4 cells per pixel give 17 levels of ink
CURVE_STEP = 0.02  # of the glyph's box: fine enough for curves, coarse enough for two milliseconds per glyph

_ONE_AT_A_TIME = Lock()  # a font holds the glyph that was loaded last, whichever thread asked for it


@lru_cache(maxsize=32)
def _font(name: str) -> FT2Font:
    path = Path(mpl.get_data_path(), "fonts", "ttf", f"{name}.ttf")
    if not path.is_file():
        raise UserError(f"there is no font {name!r} among matplotlib's own; expected one of {path.parent}/*.ttf")
    font = FT2Font(str(path))
    font.set_size(1000, 72)  # large, so that hinting and curve flattening stay below a thousandth of the glyph
    return font


def has_glyph(code: int, font: str) -> bool:
    """Whether a font that travels with matplotlib draws a code point itself.

    Args:
        code: Unicode code point.
        font: file name without ``.ttf``, for example ``DejaVuSans``.

    Raises:
        UserError: matplotlib has no such font.
    """
    return code in _font(font).get_charmap()


@lru_cache(maxsize=4096)
def outline(code: int, font: str) -> Contours:
    """The contours of one glyph, centred on the origin, the longer side of its box one.

    Args:
        code: Unicode code point.
        font: file name without ``.ttf``.

    Returns:
        Closed contours whose last point is not the first one again. Cached: do not write into them.

    Raises:
        UserError: the font is not matplotlib's, or does not draw this code point.
    """
    if not has_glyph(code, font):
        raise UserError(f"font {font!r} has no glyph for code point U+{code:04X}; choose a font that draws it")
    face = _font(font)
    with _ONE_AT_A_TIME:
        face.load_char(code)
        vertices, codes = face.get_path()
    polygons = [np.asarray(p, np.float64) for p in Curve(vertices, codes).to_polygons(closed_only=True)]
    contours = [polygon[:-1] * (1.0, -1.0) for polygon in polygons if len(polygon) > 3]
    if not contours:
        raise UserError(f"the glyph for code point U+{code:04X} in font {font!r} is blank; choose another one")
    points = np.concatenate(contours)
    low, high = points.min(axis=0), points.max(axis=0)
    return tuple(resample((c - (low + high) / 2) / (high - low).max(), CURVE_STEP) for c in contours)


def resample(contour: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Add points to a closed contour until no two neighbours are farther apart than ``step``; corners stay."""
    following = np.roll(contour, -1, axis=0)
    pieces = np.maximum(1, np.ceil(np.hypot(*(following - contour).T) / step)).astype(np.int64)
    start = np.repeat(np.arange(len(contour)), pieces)
    part = (np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)) / pieces[start]
    dense: NDArray[np.float64] = contour[start] + part[:, None] * (following - contour)[start]
    return dense


def wobble(contours: Contours, rng: np.random.Generator, *, amplitude: float, wavelength: float = 0.25) -> Contours:
    """Bend a drawing as an unsteady hand does: a smooth random displacement that the whole drawing shares.

    Args:
        contours: drawing of about unit size.
        rng: where the bends come from.
        amplitude: standard deviation of the displacement, in the drawing's units.
        wavelength: shortest bend, in the drawing's units.

    Returns:
        New contours of the same shapes.
    """
    waves = 6
    direction = rng.uniform(0, 2 * np.pi, (2, waves))
    rate = 2 * np.pi / (wavelength * rng.uniform(1.0, 3.0, (2, waves)))
    phase = rng.uniform(0, 2 * np.pi, (2, waves))
    gain = amplitude * np.sqrt(2 / waves)

    def bend(points: NDArray[np.float64]) -> NDArray[np.float64]:
        along = points[:, 0, None, None] * np.cos(direction) + points[:, 1, None, None] * np.sin(direction)
        bent: NDArray[np.float64] = points + gain * np.sin(rate * along + phase).sum(axis=2)
        return bent

    return tuple(bend(c) for c in contours)


def project(contours: Contours, matrix: NDArray[np.float64]) -> Contours:
    """Apply a homography, (3, 3), to every point; the third row's tilt gives perspective."""

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        moved: NDArray[np.float64] = points @ matrix[:, :2].T + matrix[:, 2]
        return moved[:, :2] / moved[:, 2:]

    return tuple(move(c) for c in contours)


def _canvas(size: int) -> Image.Image:
    return Image.new("L", (size * SUPERSAMPLING, size * SUPERSAMPLING))


def _coverage(canvas: NDArray[np.uint8]) -> NDArray[np.float32]:
    size = len(canvas) // SUPERSAMPLING
    cells = canvas.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING)
    share: NDArray[np.float32] = cells.mean(axis=(1, 3), dtype=np.float32)
    return share


def fill(contours: Contours, size: int) -> NDArray[np.float32]:
    """Ink inside the contours (non-zero winding rule, as fonts mean it).

    Args:
        contours: drawing in pixels: x and y from 0 to ``size``.
        size: side of the square picture [px].

    Returns:
        (size, size) coverage in [0, 1].
    """
    winding = np.zeros((size * SUPERSAMPLING,) * 2, dtype=np.int8)
    for contour in contours:
        canvas = _canvas(size)
        ImageDraw.Draw(canvas).polygon([*(contour * SUPERSAMPLING).ravel()], fill=1)
        x, y = contour.T
        clockwise = np.dot(x, np.roll(y, -1)) > np.dot(y, np.roll(x, -1))
        winding += np.asarray(canvas, dtype=np.int8) * (1 if clockwise else -1)
    return _coverage((winding != 0).astype(np.uint8))


def stroke(
    contours: Contours,
    size: int,
    *,
    width: float,
    dash: tuple[float, float] | None = None,
    closed: bool = True,
) -> NDArray[np.float32]:
    """Ink along the contours.

    Args:
        contours: drawing in pixels: x and y from 0 to ``size``.
        size: side of the square picture [px].
        width: of the pen [px].
        dash: lengths of mark and gap along the line [px]; None draws through.
        closed: whether a line runs from a contour's last point back to its first.

    Returns:
        (size, size) coverage in [0, 1].
    """
    canvas = _canvas(size)
    draw = ImageDraw.Draw(canvas)
    pen = max(1, round(width * SUPERSAMPLING))
    for contour in contours:
        line = np.concatenate([contour, contour[:1]]) if closed else contour
        for mark in [line] if dash is None else _dashes(line, *dash):
            draw.line([*(mark * SUPERSAMPLING).ravel()], fill=1, width=pen, joint="curve")
    return _coverage(np.asarray(canvas))


def _dashes(line: NDArray[np.float64], mark: float, gap: float) -> list[NDArray[np.float64]]:
    """Cut an open line of points into marks; the cuts fall on points, so points must lie closer than a mark."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])
    period = length // (mark + gap)
    inked = length % (mark + gap) < mark
    return [
        line[inked & (period == number)]
        for number in np.unique(period)
        if np.count_nonzero(inked & (period == number)) > 1
    ]


def hatch(size: int, *, angle: float, spacing: float, width: float, bend: float = 0.0) -> NDArray[np.float32]:
    """Parallel lines over a whole square picture, to be multiplied with a fill.

    Args:
        size: side of the square picture [px].
        angle: of the lines [rad].
        spacing: distance from line to line [px].
        width: of the pen [px].
        bend: how far a line sways to either side [px].

    Returns:
        (size, size) coverage in [0, 1].
    """
    y, x = np.mgrid[:size, :size] + 0.5
    across = x * np.sin(angle) + y * np.cos(angle)
    along = x * np.cos(angle) - y * np.sin(angle)
    swayed = across + bend * np.sin(along * (2 * np.pi / (0.3 * size)))
    distance = np.abs((swayed / spacing) % 1.0 - 0.5) * spacing
    ink: NDArray[np.float32] = np.clip(width / 2 + 0.5 - distance, 0.0, 1.0).astype(np.float32)
    return ink
