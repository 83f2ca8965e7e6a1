"""RGB pictures with captions: named symbols, printed in four plain styles, warped, coloured, blurred and noised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from concepts import concepts
from torch import Tensor

from eventclip.simulation.drawings import CLASSES, fill, has_glyph, outline, stroke

FONTS = ("DejaVuSans", "DejaVuSerif", "STIXGeneral", "STIXGeneralBol")  # the demo draws from DejaVuSansMono
SIDE = 64  # of a picture [px]; a cached glyph's is half as large again
FILL, THIN, THICK = range(3)
DEMO_WEIGHT = 3.0  # the demo's classes are drawn three times as often as the others
TEMPLATES = ("a picture of a {}", "a drawing of a {}", "a photo of a {}", "an image of a {}", "{}", "the symbol {}")
OUTLINE_TEMPLATES = ("a sketch of a {}", "a sketch image of a {}")


@dataclass(frozen=True)
class Batch:
    """Pictures (B, 3, S, S) in [0, 1], the concept of each (B,), and whether it is drawn as an outline (B,)."""

    images: Tensor
    concept: np.ndarray
    sketched: np.ndarray


class Pictures:
    """Draws batches; every random choice comes from the generator that the caller hands over.

    Args:
        fonts: that the symbols are printed in.
        side: S of the pictures [px].
    """

    def __init__(self, fonts: tuple[str, ...] = FONTS, *, side: int = SIDE) -> None:
        self.side, mask = side, side * 3 // 2
        glyphs: dict[str, list[tuple[int, str]]] = {}
        for name, codes in concepts().items():
            drawn = [(code, font) for code in codes for font in fonts if has_glyph(code, font)]
            if drawn:
                glyphs[name] = drawn
        self.names = list(glyphs)
        drawings = [outline(code, font) for name in self.names for code, font in glyphs[name]]
        centred = [tuple(c * 0.8 * mask + mask / 2 for c in drawing) for drawing in drawings]
        thin, thick = 1.8 * side / SIDE, 4.5 * side / SIDE
        masks = [(fill(c, mask), stroke(c, mask, width=thin), stroke(c, mask, width=thick)) for c in centred]
        self.masks = torch.from_numpy((np.asarray(masks) * 255).astype(np.uint8))  # (G, 3, 3S/2, 3S/2)
        counts = np.asarray([len(glyphs[name]) for name in self.names])
        self.first, self.count = np.cumsum(counts) - counts, counts
        weight = np.asarray([DEMO_WEIGHT if name in CLASSES else 1.0 for name in self.names])
        self.weight = weight / weight.sum()

    def draw(
        self, rng: np.random.Generator, size: int, *, warp: float = 1.0, distinct: bool = False,
        among: np.ndarray | None = None,
    ) -> Batch:  # fmt: skip
        """Draw ``size`` pictures.

        Args:
            rng: source of every choice.
            size: number of pictures.
            warp: strength of warps and noise in [0, 1]; pre-training raises it slowly.
            distinct: no concept twice, as the contrastive loss wants it.
            among: concepts to draw from, evenly; None draws from all of them by their weight.
        """
        if among is None:
            concept = rng.choice(len(self.names), size, replace=not distinct, p=self.weight)
        else:
            concept = rng.choice(among, size)
        glyph = self.first[concept] + rng.integers(0, self.count[concept])
        style = rng.choice(4, size, p=(0.45, 0.2, 0.15, 0.2))  # fill, thin, thick, fill with an outline around it
        layers = self._warped(rng, torch.from_numpy(glyph), warp)
        ink = layers[torch.arange(size), torch.from_numpy(np.minimum(style, THICK))]
        inside = torch.where(torch.from_numpy(style == 3)[:, None, None], layers[:, FILL], torch.zeros(()))
        images = self._coloured(rng, ink, inside, warp)
        return Batch(images, concept, (style == 1) | (style == 2))

    def _warped(self, rng: np.random.Generator, glyph: Tensor, warp: float) -> Tensor:
        size = len(glyph)

        def spread(low: float, high: float) -> np.ndarray:
            middle = (low + high) / 2
            return middle + (rng.uniform(low, high, size) - middle) * warp

        angle, scale, aspect = np.deg2rad(spread(-20, 20)), spread(0.62, 1.08), np.sqrt(spread(0.85, 1.18))
        shear, tilt = spread(-0.2, 0.2), rng.uniform(-0.12, 0.12, (size, 2)) * warp
        shift = rng.uniform(-0.2, 0.2, (size, 2)) * warp
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = np.zeros((size, 3, 3))  # from picture to glyph, both in [-1, 1]
        matrix[:, 0, 0], matrix[:, 0, 1] = cos / (scale * aspect), (sin + shear) / (scale * aspect)
        matrix[:, 1, 0], matrix[:, 1, 1] = -sin * aspect / scale, cos * aspect / scale
        matrix[:, :2, 2] = -np.einsum("bij,bj->bi", matrix[:, :2, :2], shift)
        matrix[:, 2, :2], matrix[:, 2, 2] = tilt, 1.0
        axis = torch.linspace(-1, 1, self.side)
        grid = torch.stack([*torch.meshgrid(axis, axis, indexing="xy"), torch.ones(self.side, self.side)], dim=-1)
        moved = torch.einsum("bij,hwj->bhwi", torch.from_numpy(matrix).float(), grid)
        return F.grid_sample(self.masks[glyph].float() / 255, moved[..., :2] / moved[..., 2:], align_corners=False)

    def _coloured(self, rng: np.random.Generator, ink: Tensor, inside: Tensor, warp: float) -> Tensor:
        size = len(ink)
        paper, pen, body = (torch.from_numpy(c).float() for c in self._colours(rng, size))
        texture = torch.from_numpy(rng.normal(0, 0.12, (size, 3, 4, 4)) * warp).float()
        textured = torch.from_numpy(rng.random(size) < 0.5)[:, None, None, None]
        image = paper[:, :, None, None] + textured * F.interpolate(texture, self.side, mode="bicubic")
        ghost = ink[torch.from_numpy(rng.permutation(size))]
        faint = torch.from_numpy((rng.random(size) < 0.25) * rng.uniform(0, 0.3, size) * warp).float()
        far = 24 * self.side // SIDE
        ghost = torch.roll(ghost, (int(rng.integers(-far, far + 1)), int(rng.integers(-far, far + 1))), (1, 2))
        for layer, colour in ((ghost * faint[:, None, None], pen), (inside, body), (ink, pen)):
            image = torch.lerp(image, colour[:, :, None, None].expand_as(image), layer[:, None])
        blurred = torch.from_numpy(rng.random(size) < 0.45)[:, None, None, None]
        image = torch.where(blurred, F.avg_pool2d(image, 3, 1, 1, count_include_pad=False), image)
        noise = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
        level = (rng.random(size) < 0.6) * rng.uniform(0, 0.12, size) * warp
        image = image + noise * torch.from_numpy(level).float()[:, None, None, None]
        gray = torch.from_numpy(rng.random(size) < 0.25)[:, None, None, None]
        return torch.where(gray, image.mean(dim=1, keepdim=True), image).clamp(0, 1)

    @staticmethod
    def _colours(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Paper, pen and body colours, (B, 3) each; paper and pen differ in brightness by at least 0.22."""
        paper = rng.random((size, 3))
        paper[rng.random(size) < 0.2] = 0.97
        bright = paper.mean(axis=1)
        gap = rng.uniform(0.22, 0.9, size)
        darker = rng.random(size) < bright
        target = np.clip(np.where(darker, bright - gap, bright + gap), 0, 1)
        short = np.abs(target - bright) < 0.22
        target[short] = np.where(bright[short] > 0.5, bright[short] - 0.3, bright[short] + 0.3)
        tint = rng.normal(0, 0.12, (size, 3))
        pen = np.clip(target[:, None] + tint - tint.mean(axis=1, keepdims=True), 0, 1)
        return paper, pen, np.clip(pen + rng.uniform(-0.5, 0.5, (size, 3)), 0, 1)

    def caption(self, rng: np.random.Generator, concept: int, sketched: bool) -> str:
        """A caption that fits a picture; outlines are called sketches half of the time."""
        templates = OUTLINE_TEMPLATES if sketched and rng.random() < 0.5 else TEMPLATES
        return templates[rng.integers(len(templates))].format(self.names[concept])
