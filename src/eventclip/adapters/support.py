"""Adapters that are fitted from a support, labelled recordings' features, in one go."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from eventclip.errors import UserError

WEIGHTS = ("fixed", "support", "validation")
"""How a free number is set: a constant, by cross-validation in the support, or on the validation split."""

Features = tuple[Tensor, Tensor, Tensor]
"""Features (m, 1, V, D), valid (m, 1, V) and labels (m,) of recordings that are looked at once."""


class SupportAdapter(nn.Module):
    """What every fitted adapter is; before it is fitted it is zero-shot.

    What was fitted lies in persistent buffers, so that ``state_dict()`` is all of it.

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        weights: how free numbers are set, one of :data:`WEIGHTS`.

    Attributes:
        fitted: once it is: ``weights`` as they were really set, and the values chosen.
    """

    support_sized: ClassVar[tuple[str, ...]] = ()
    """Buffers whose shape depends on the support."""

    text_features: Tensor

    def __init__(self, text_features: Tensor, logit_scale: float, *, weights: str = "fixed") -> None:
        super().__init__()
        if weights not in WEIGHTS:
            raise UserError(f"adapter.weights must be one of {', '.join(WEIGHTS)}, got {weights!r}")
        self.logit_scale, self.weights = float(logit_scale), weights
        self.fitted: dict[str, float | str] = {}
        self.register_buffer("text_features", F.normalize(text_features.detach().float(), dim=-1), persistent=False)

    @abstractmethod
    def fit_support(
        self, features: Tensor, valid: Tensor, labels: Tensor, *, validation: Features | None = None, seed: int = 0
    ) -> None:
        """Fit.

        Args:
            features: (n, P, V, D) raw features of n recordings in P copies, V views padded.
            valid: (n, P, V) bool.
            labels: (n,) int64.
            validation: what ``weights="validation"`` looks at.
            seed: of whatever is random.
        """

    def resize_for(self, state: Mapping[str, Tensor]) -> None:
        """Give buffers that depend on the support the shapes that they have in a ``state_dict()``."""
        for name in self.support_sized:
            if name in state:
                setattr(self, name, self.get_buffer(name).new_zeros(state[name].shape))
