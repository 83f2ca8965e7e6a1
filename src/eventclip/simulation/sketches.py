"""Forty everyday pictographs as an unsteady hand would sketch them: what the demo's camera films.

Drawn from DejaVu Sans Mono in trembling broken lines with hatched insides, seen at a slant, among scribbles. The
tiny CLIP that travels with the package was pre-trained on printed symbols of other fonts, in whole lines and flat
fills: the names are the same, the drawings are not, so that there is something to adapt to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eventclip.errors import UserError
from eventclip.simulation.glyphs import Contours, fill, hatch, outline, project, stroke, wobble

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
