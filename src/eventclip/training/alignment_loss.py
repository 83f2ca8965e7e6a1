"""What draws the feature of an event view to the one that frozen CLIP gives the image it shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eventclip.errors import UserError

DISTANCES = ("cosine", "smooth_l1", "standardized")


@dataclass(frozen=True, kw_only=True)
class AlignmentLoss:
    """Weights of the terms, each a mean over its samples.

    Attributes:
        contrast: of InfoNCE (van den Oord et al., arXiv 1807.03748) both ways between the views of a batch and their
            images: cross entropy of the cosines times ``scale``, as CLIP itself was trained.
        scale: inverse temperature of it.
        regression: of the distance from each view's feature to its image's.
        distance: "cosine", 1 - cos; "smooth_l1", of the unit features times the square root of D; "standardized", the
            same of every dimension less its mean over the images and in units of its deviation.
        keep_images: of the distance from what the tower gives an image now to what it gave before.

    Raises:
        UserError: a weight below 0, none above it, or an unknown distance.
    """

    contrast: float = 1.0
    scale: float = 20.0
    regression: float = 2.0
    distance: str = "cosine"
    keep_images: float = 2.0

    def __post_init__(self) -> None:
        if min(self.contrast, self.regression, self.keep_images) < 0 or not self.scale > 0:
            raise UserError(
                f"loss.contrast={self.contrast}, loss.regression={self.regression} and loss.keep_images="
                f"{self.keep_images} must be 0 or more, and loss.scale={self.scale} above 0"
            )
        if not self.contrast and not self.regression:
            raise UserError("loss.contrast=0 and loss.regression=0 leave nothing to learn: raise one of them")
        if self.distance not in DISTANCES:
            raise UserError(f"loss.distance must be one of {', '.join(DISTANCES)}, got {self.distance!r}")

    def of_views(self, features: Tensor, targets: Tensor, spread: Spread) -> Tensor:
        """Loss of the views of a batch.

        Args:
            features: (B, D) raw features of the views.
            targets: (B, D) raw features of their images.
            spread: of the images' unit features.
        """
        seen, wanted = F.normalize(features, dim=-1), F.normalize(targets, dim=-1)
        loss = features.new_zeros(())
        if self.contrast:
            cosines, own = self.scale * seen @ wanted.T, torch.arange(len(seen), device=seen.device)
            both = F.cross_entropy(cosines, own) + F.cross_entropy(cosines.T, own)
            loss = loss + self.contrast * both / 2
        if self.regression:
            loss = loss + self.regression * distance(seen, wanted, self.distance, spread).mean()
        return loss

    def of_images(self, features: Tensor, targets: Tensor, spread: Spread, count: float) -> Tensor:
        """What images add to the loss: the sum of their distances over the number that is expected of a batch."""
        seen, wanted = F.normalize(features, dim=-1), F.normalize(targets, dim=-1)
        return self.keep_images * distance(seen, wanted, self.distance, spread).sum() / count


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of unit features.

    Attributes:
        mean: (D,).
        deviation: (D,), positive.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Spread:
        """Measure raw features (n, D)."""
        unit = F.normalize(features, dim=-1)
        deviation = unit.std(0) if len(unit) > 1 else torch.zeros_like(unit[0])
        return cls(unit.mean(0), deviation.clamp_min(1e-4))

    def to(self, device: torch.device) -> Spread:
        """The same on another device."""
        return Spread(self.mean.to(device), self.deviation.to(device))


def distance(seen: Tensor, wanted: Tensor, kind: str, spread: Spread) -> Tensor:
    """(n,) distances of unit features (n, D) from others; see :class:`AlignmentLoss`."""
    if kind == "cosine":
        return 1 - (seen * wanted).sum(-1)
    if kind == "smooth_l1":
        root = seen.shape[-1] ** 0.5
        return F.smooth_l1_loss(seen * root, wanted * root, reduction="none").mean(-1)
    here, there = (value.sub(spread.mean).div(spread.deviation) for value in (seen, wanted))
    return F.smooth_l1_loss(here, there, reduction="none").mean(-1)


def recall_at_1(features: Tensor, targets: Tensor) -> float:
    """Share of the views whose own image is the nearest of all.

    Args:
        features: (n, D) raw features of views.
        targets: (n, D) raw features of their images.
    """
    nearest = (F.normalize(features, dim=-1) @ F.normalize(targets, dim=-1).T).argmax(-1)
    return float((nearest == torch.arange(len(nearest), device=nearest.device)).float().mean())
