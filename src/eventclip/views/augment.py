"""What training changes at random: first the events of a recording, then the frames rendered from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from eventclip.errors import UserError, whole
from eventclip.events.array import Move

Frames = NDArray[np.uint8]
"""(V, H, W) gray or (V, H, W, 3) RGB frames of one recording."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What training changes at random in a recording (EventCLIP, arXiv 2306.06354, section 3).

    Example:
        >>> import numpy as np
        >>> from eventclip import Augmentation, FrameRenderer, ViewTransform, read_events
        >>> events, _ = read_events("star.npy")
        >>> changes = Augmentation(max_shift=10)
        >>> transform = ViewTransform(FrameRenderer(5_000), image_size=64, augmentation=changes)
        >>> views = transform(events, (128, 128), np.random.default_rng(0))  # the generator decides all of it
        >>> np.array_equal(views.pixels, transform(events, (128, 128), np.random.default_rng(0)).pixels)
        True

    Attributes:
        max_shift: largest shift of all events along x and along y [px], 0 = none; what leaves the sensor is dropped.
        flip_time: play half of the recordings backwards, polarity swapped.
        mirror: mirror half of the recordings left to right.
        image: :class:`RandAugment` on the rendered frames, the same draw for all frames of a recording.
    """

    max_shift: int = 0
    flip_time: bool = False
    mirror: bool = True
    image: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_shift", whole(self.max_shift, "max_shift", 0))

    def move(self, rng: np.random.Generator) -> Move:
        """Choose how the events of a recording move.

        All four choices are drawn whatever the options are, so that switching one off leaves the others as they were:
        backwards or not, a whole shift along x and one along y, uniform in [-max_shift, max_shift], mirrored or not.
        """
        flipped, mirrored = (rng.random(2) < 0.5).tolist()
        dx, dy = rng.integers(-self.max_shift, self.max_shift, size=2, endpoint=True).tolist()
        return Move(self.flip_time and flipped, dx, dy, self.mirror and mirrored)


class Operation(NamedTuple):
    """One operation on frames and how strong it is."""

    name: str
    """A key of :data:`OPERATIONS`."""
    magnitude: float
    """In the operation's own unit, see :func:`magnitude_of`."""


class RandAugment:
    """RandAugment (arXiv 1909.13719) with the operations and magnitudes of torchvision's, alike for all frames.

    The operations, one magnitude bin and the signs are drawn once per recording. Everything acts on 8-bit images as
    torchvision does to Pillow's, with bicubic interpolation; a gray frame comes out as any channel of the same frame
    in RGB would.

    Args:
        operations: number of operations, one after the other.
        magnitude_bins: number of strengths; one is drawn for a recording.
        fill: gray level of what comes in from outside the frame: 255 on white background, else 0.
    """

    def __init__(self, *, operations: int = 2, magnitude_bins: int = 30, fill: int = 255) -> None:
        if operations < 0 or magnitude_bins < 2 or not 0 <= fill <= 255:
            raise UserError(
                f"RandAugment needs 0 or more operations, 2 or more magnitude_bins and a fill of 0 to 255, got "
                f"operations={operations}, magnitude_bins={magnitude_bins}, fill={fill}"
            )
        self.operations = operations
        self.magnitude_bins = magnitude_bins
        self.fill = fill

    def __call__(self, frames: Frames, rng: np.random.Generator) -> Frames:
        """Change the frames of one recording.

        Args:
            frames: uint8 (V, H, W) or (V, H, W, 3).
            rng: generator of the choices.

        Returns:
            The same shape; the very array where every operation drawn leaves it as it is.
        """
        for operation in self.draw(rng, (frames.shape[1], frames.shape[2])):
            frames = apply_operation(frames, operation, fill=self.fill)
        return frames

    def draw(self, rng: np.random.Generator, frame_hw: tuple[int, int]) -> list[Operation]:
        """Choose the operations for one recording.

        Args:
            rng: generator of the choices.
            frame_hw: height and width of the frames [px]; translations are fractions of it.
        """
        strength = int(rng.integers(self.magnitude_bins)) / (self.magnitude_bins - 1)
        chosen = rng.integers(len(_NAMES), size=self.operations).tolist()
        signs = rng.choice((-1, 1), size=self.operations).tolist()
        return [
            Operation(_NAMES[i], magnitude_of(_NAMES[i], strength, frame_hw, sign=sign))
            for i, sign in zip(chosen, signs, strict=True)
        ]


def magnitude_of(name: str, strength: float, frame_hw: tuple[int, int], *, sign: int = 1) -> float:
    """Strength of an operation in its own unit, with the ranges of torchvision's RandAugment.

    Args:
        name: a key of :data:`OPERATIONS`.
        strength: 0, weakest, to 1, strongest.
        frame_hw: height and width of the frames [px].
        sign: 1 or -1, the direction of an operation that has two.

    Returns:
        Shear as a slope up to 0.3; translation up to 150/331 of the frame [px]; rotation up to 30 degrees;
        brightness, colour, contrast and sharpness up to 0.9 more or less; posterize 8 down to 4 bits; solarize a
        threshold of 1 down to 0; 0 for operations without a strength.
    """
    extent = {"TranslateX": 150.0 / 331.0 * frame_hw[1], "TranslateY": 150.0 / 331.0 * frame_hw[0]}
    largest = {**_LARGEST, **extent}
    if name in largest:
        return sign * strength * largest[name]
    if name == "Posterize":
        return float(8 - round(4 * strength))
    return 1.0 - strength if name == "Solarize" else 0.0


def apply_operation(frames: Frames, operation: Operation, *, fill: int = 255) -> Frames:
    """Apply one operation to all frames.

    Args:
        frames: uint8 (V, H, W) or (V, H, W, 3).
        operation: its name and magnitude.
        fill: gray level of what comes in from outside the frame, 0 to 255.

    Returns:
        The same shape; the very array where the operation leaves it as it is.
    """
    return OPERATIONS[operation.name](frames, operation.magnitude, fill)


def _shear_x(frames: Frames, slope: float, fill: int) -> Frames:
    return _moved(frames, (1.0, slope, 0.0, 0.0, 1.0, 0.0), fill)


def _shear_y(frames: Frames, slope: float, fill: int) -> Frames:
    return _moved(frames, (1.0, 0.0, 0.0, slope, 1.0, 0.0), fill)


def _rotate(frames: Frames, degrees: float, fill: int) -> Frames:
    """Rotate counterclockwise about the middle of the frame."""
    height, width = frames.shape[1:3]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    return _moved(frames, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y), fill)


def _moved(frames: Frames, matrix: tuple[float, float, float, float, float, float], fill: int) -> Frames:
    """Let the target pixel (x, y) show the source at (a x + b y + c, d x + e y + f), pixel centres at halves."""
    size, outside = (frames.shape[2], frames.shape[1]), fill if frames.ndim == 3 else (fill,) * 3
    return _each(
        frames,
        lambda image: image.transform(
            size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=outside
        ),
    )


def _translate_x(frames: Frames, pixels: float, fill: int) -> Frames:
    moved = np.full_like(frames, fill)
    offset = int(pixels)  # whole pixels, towards zero: bicubic interpolation would be the same copy
    moved[:, :, max(offset, 0) : frames.shape[2] + min(offset, 0)] = frames[
        :, :, max(-offset, 0) : frames.shape[2] - max(offset, 0)
    ]
    return moved


def _translate_y(frames: Frames, pixels: float, fill: int) -> Frames:
    moved: Frames = _translate_x(frames.swapaxes(1, 2), pixels, fill).swapaxes(1, 2)
    return moved


def _identity(frames: Frames, _magnitude: float, _fill: int) -> Frames:
    return frames


def _color(frames: Frames, more: float, _fill: int) -> Frames:
    if frames.ndim == 3:
        return frames  # gray has no saturation to change
    return _each(frames, lambda image: ImageEnhance.Color(image).enhance(1.0 + more))


def _brightness(frames: Frames, more: float, _fill: int) -> Frames:
    return _each(frames, lambda image: ImageEnhance.Brightness(image).enhance(1.0 + more))


def _contrast(frames: Frames, more: float, _fill: int) -> Frames:
    return _each(frames, lambda image: ImageEnhance.Contrast(image).enhance(1.0 + more))


def _sharpness(frames: Frames, more: float, _fill: int) -> Frames:
    return _each(frames, lambda image: ImageEnhance.Sharpness(image).enhance(1.0 + more))


def _posterize(frames: Frames, bits: float, _fill: int) -> Frames:
    return _each(frames, lambda image: ImageOps.posterize(image, int(bits)))


def _solarize(frames: Frames, threshold: float, _fill: int) -> Frames:
    return _each(frames, lambda image: ImageOps.solarize(image, math.ceil(255.0 * threshold)))


def _auto_contrast(frames: Frames, _magnitude: float, _fill: int) -> Frames:
    return _each(frames, ImageOps.autocontrast)


def _equalize(frames: Frames, _magnitude: float, _fill: int) -> Frames:
    return _each(frames, ImageOps.equalize)


def _each(frames: Frames, change: Callable[[Image.Image], Image.Image]) -> Frames:
    """Change frame by frame: several operations look at the levels of their image."""
    return np.stack([np.asarray(change(Image.fromarray(frame))) for frame in frames])


OPERATIONS: dict[str, Callable[[Frames, float, int], Frames]] = {
    "Identity": _identity,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
    "Brightness": _brightness,
    "Color": _color,
    "Contrast": _contrast,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
}
"""Operations by torchvision's names, called with (frames, magnitude, fill)."""

_NAMES = tuple(OPERATIONS)
_LARGEST = {
    "ShearX": 0.3,
    "ShearY": 0.3,
    "Rotate": 30.0,
    "Brightness": 0.9,
    "Color": 0.9,
    "Contrast": 0.9,
    "Sharpness": 0.9,
}
