"""From logits of views to logits and probabilities of recordings, and the two losses (EventCLIP, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from eventclip.errors import UserError

POOLINGS = ("mean", "sum", "max")


def check_pooling(how: str) -> str:
    """Return ``how`` if it is a pooling; UserError otherwise."""
    if how not in POOLINGS:
        raise UserError(f"classifier.pooling must be one of {', '.join(POOLINGS)}, got {how!r}")
    return how


def _check_valid(valid: Tensor) -> None:
    if not valid.any(dim=1).all():
        raise ValueError("every recording needs at least one valid view")


def pool_logits(view_logits: Tensor, valid: Tensor, how: str) -> Tensor:
    """Aggregate the logits of the valid views.

    Args:
        view_logits: (B, V, K); what invalid views hold does not matter.
        valid: (B, V) bool, at least one per recording.
        how: "mean", "sum" or "max".

    Returns:
        (B, K) logits.
    """
    _check_valid(valid)
    mask = valid.unsqueeze(-1)
    if how == "max":
        return view_logits.masked_fill(~mask, -torch.inf).amax(dim=1)
    total = view_logits.masked_fill(~mask, 0.0).sum(dim=1)
    return total if how == "sum" else total / valid.sum(dim=1, keepdim=True)


def pool_probabilities(view_logits: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid views of each view's softmax: (B, V, K), (B, V) -> (B, K), rows summing to 1."""
    _check_valid(valid)
    probabilities = view_logits.softmax(dim=-1).masked_fill(~valid.unsqueeze(-1), 0.0)
    return probabilities.sum(dim=1) / valid.sum(dim=1, keepdim=True)


def logits_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy on pooled logits (B, K) and labels (B,)."""
    return F.cross_entropy(logits, labels)


def probability_loss(probabilities: Tensor, labels: Tensor) -> Tensor:
    """-log(p + 1e-6) of the true class's pooled probability, averaged: (B, K), (B,)."""
    return -(probabilities.gather(1, labels.unsqueeze(1)) + 1e-6).log().mean()
