"""What the demo's camera looks at: forty everyday pictographs as an unsteady hand would sketch them.

Drawn from DejaVu Sans Mono in trembling broken lines with hatched insides, seen at a slant, among scribbles. The
tiny CLIP that travels with the package was pre-trained on printed symbols of other fonts, in whole lines and flat
fills: the names are the same, the drawings are not, so that there is something to adapt to.

A drawing is geometry, the outline that one of matplotlib's own fonts holds: a tuple of closed contours, each (P, 2)
float64 of x (right) and y (down). ``outline`` returns them centred on the origin with the longer side of their box
equal to one; every other function takes any such tuple, so that a style is a chain: outline → wobble → project → fill,
stroke or hatch.
"""

from __future__ import annotations

from dataclasses import dataclass
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

FONT = "DejaVuSansMono"
MARGIN = 16  # of the picture around the sensor's field of view, which the saccades look into [px]

CLASSES: dict[str, tuple[int, ...]] = {
    "airplane": (0x2708,),
    "anchor": (0x2693,),
    "atom": (0x269B,),
    "biohazard sign": (0x2623,),
    "chess bishop": (0x2657, 0x265D),
    "chess king": (0x2654, 0x265A),
    "chess knight": (0x2658, 0x265E),
    "chess pawn": (0x2659, 0x265F),
    "chess queen": (0x2655, 0x265B),
    "chess rook": (0x2656, 0x265C),
    "cloud": (0x2601,),
    "comet": (0x2604,),
    "cross": (0x271D, 0x271F),
    "crossed swords": (0x2694,),
    "cup of coffee": (0x2615,),
    "envelope": (0x2709,),
    "flag": (0x2690, 0x2691),
    "flower": (0x2698, 0x273F, 0x2740),
    "gear": (0x2699,),
    "hammer": (0x2692,),
    "heart": (0x2661, 0x2665, 0x2764),
    "lightning": (0x26A1,),
    "moon": (0x263D, 0x263E),
    "musical note": (0x2669, 0x266A, 0x266B, 0x266C),
    "pencil": (0x270E, 0x270F, 0x2710),
    "pointing hand": (0x261A, 0x261B, 0x261C, 0x261D, 0x261E, 0x261F),
    "radioactive sign": (0x2622,),
    "recycling symbol": (0x2672, 0x267B),
    "scales": (0x2696,),
    "scissors": (0x2701, 0x2702, 0x2703, 0x2704),
    "skull": (0x2620,),
    "smiling face": (0x263A, 0x263B),
    "snowflake": (0x2744, 0x2745, 0x2746),
    "snowman": (0x2603,),
    "star": (0x2605, 0x2606),
    "sun": (0x2600, 0x263C),
    "telephone": (0x260E, 0x260F),
    "umbrella": (0x2602, 0x2614),
    "wheelchair": (0x267F,),
    "yin yang": (0x262F,),
}
"""Class name -> the code points that show it, all of which DejaVu Sans Mono draws."""


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


@dataclass(frozen=True)
class Hand:
    """How sketches vary: pairs are the ends of even distributions.

    Broken lines and hatching are the rule, not a chance: what adaptation can learn from a few recordings is what
    they all share. Lengths in px are meant on a 128 px sensor and grow with it.
    """

    scale: tuple[float, float] = (0.68, 0.85)  # of the sensor's side
    turn: float = 18.0  # to either side [degrees]
    aspect: tuple[float, float] = (0.9, 1.1)
    shear: float = 0.12  # to either side
    slant: float = 0.2  # perspective: how much nearer one side of the drawing may be, to either side
    shift: float = 8.0  # to either side [px]
    tremor: tuple[float, float] = (0.006, 0.015)  # standard deviation of the bends, of the drawing's side
    pen: tuple[float, float] = (1.2, 2.4)  # width [px]
    mark: tuple[float, float] = (6.0, 11.0)  # of a broken line [px]
    gap: tuple[float, float] = (3.0, 6.0)  # between two marks [px]
    spacing: tuple[float, float] = (5.0, 9.0)  # from one line of a hatch to the next [px]
    scribbles: tuple[int, int] = (2, 5)  # number of stray lines, both ends included
    contrast: tuple[float, float] = (0.5, 1.0)  # between paper and pen, natural log
    stains: float = 0.1  # standard deviation of the paper's brightness, natural log

    def sketch(self, name: str, side: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw one picture of a class, with :data:`MARGIN` px around the field of view.

        Args:
            name: one of :data:`CLASSES`.
            side: of the camera's square field of view [px].
            rng: source of every choice.

        Returns:
            (side + 2 MARGIN, side + 2 MARGIN) light intensity in [0, 1].

        Raises:
            UserError: there is no such class.
        """
        if name not in CLASSES:
            raise UserError(f"there is no symbol called {name!r}; expected one of {', '.join(CLASSES)}")
        size, unit = side + 2 * MARGIN, side / 128
        drawing = outline(int(rng.choice(CLASSES[name])), FONT)
        place = self._place(size, side, rng)
        ink = self._ink(drawing, place, size, unit, rng)
        return self._paper(ink, size, rng)

    def _place(self, size: int, side: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """(3, 3) homography from the drawing's own coordinates to the picture's."""
        angle = np.deg2rad(rng.uniform(-self.turn, self.turn))
        aspect, shear = np.sqrt(rng.uniform(*self.aspect)), rng.uniform(-self.shear, self.shear)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        placed, slanted = np.eye(3), np.eye(3)
        placed[:2, :2] = turn @ [[aspect, shear], [0.0, 1 / aspect]] * rng.uniform(*self.scale) * side
        placed[:2, 2] = size / 2 + rng.uniform(-self.shift, self.shift, 2) * side / 128
        slanted[2, :2] = rng.uniform(-self.slant, self.slant, 2)
        return placed @ slanted

    def _ink(
        self, drawing: Contours, place: NDArray[np.float64], size: int, unit: float, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """(size, size) ink in [0, 1]: the drawing's lines, its hatched inside, and scribbles."""
        tremor = rng.uniform(*self.tremor)
        lines = project(wobble(drawing, rng, amplitude=tremor, wavelength=0.2), place)
        pen = rng.uniform(*self.pen) * unit
        dash = (rng.uniform(*self.mark) * unit, rng.uniform(*self.gap) * unit)
        parallel = hatch(
            size,
            angle=rng.uniform(0, np.pi),
            spacing=rng.uniform(*self.spacing) * unit,
            width=rng.uniform(1.0, 2.0) * unit,
            bend=rng.uniform(0.0, 2.0) * unit,
        )
        low, high = self.scribbles
        stray = tuple(self._scribble(size, unit, rng) for _ in range(rng.integers(low, high + 1)))
        inks = (
            stroke(lines, size, width=pen, dash=dash),
            stroke(stray, size, width=pen, closed=False),
            fill(lines, size) * parallel,
        )
        together: NDArray[np.float32] = np.maximum.reduce(inks)
        return together

    @staticmethod
    def _scribble(size: int, unit: float, rng: np.random.Generator) -> NDArray[np.float64]:
        """(24, 2) points of one stray line."""
        along = np.linspace(0, 1, 24)[:, None]
        there, bent, swung = rng.normal(0, 18 * unit, (3, 2))
        line: NDArray[np.float64] = there * along + bent * along**2 + swung * np.sin(4 * along)
        return line + rng.uniform(0, size, 2)

    def _paper(self, ink: NDArray[np.float32], size: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """(size, size) light: dark on bright or bright on dark, on paper that is not evenly bright."""
        dark = rng.uniform(0.08, 0.35)
        bright = dark * np.exp(rng.uniform(*self.contrast))
        paper, pen = (bright, dark) if rng.random() < 0.5 else (dark, bright)
        stains = Image.fromarray(rng.normal(0, self.stains, (5, 5)).astype(np.float32))
        uneven = np.exp(np.asarray(stains.resize((size, size), Image.Resampling.BICUBIC)))
        light: NDArray[np.float32] = np.clip((paper + (pen - paper) * ink) * uneven, 0, 1).astype(np.float32)
        return light
