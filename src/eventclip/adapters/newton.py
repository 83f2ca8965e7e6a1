"""The minimum of a loss of linear outputs: Newton's steps by conjugate gradients (Nocedal and Wright, chapter 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_CONJUGATE = 200  # gradients at most in a step
_HALVINGS = 30


class Slope(NamedTuple):
    """A loss of outputs (N, O) about where it was taken."""

    loss: Tensor
    """Its value."""
    gradient: Tensor
    """(N, O)."""
    curve: Callable[[Tensor], Tensor]
    """(N, O) -> (N, O): the product with its curvature, or with a part of it that has no negative direction."""
    mean_curvature: Tensor
    """(N,) about how curved it is in an output of each sample, the mean over outputs: it only decides the speed."""


def minimise(
    features: Tensor,
    offset: Tensor,
    slope: Callable[[Tensor], Slope],
    held: Tensor,
    start: Tensor | None = None,
    *,
    tolerance: float,
    steps: int = 50,
) -> Tensor:
    """Minimise loss(offset + X Mᵀ) + sum_o held_o / 2 |m_o|^2 over M.

    Args:
        features: X (N, D).
        offset: (N, O).
        slope: outputs (N, O) -> the loss about them.
        held: (O,), above 0.
        start: (O, D) where to begin; None begins at 0.
        tolerance: ends where a step would gain less than this part of the value; that step is taken, too.
        steps: at most.

    Returns:
        M (O, D).
    """
    holding = held.unsqueeze(1)
    moved = offset.new_zeros(offset.shape[1], features.shape[1]) if start is None else start
    outputs = offset + features @ moved.T
    here = slope(outputs)
    value = here.loss + 0.5 * (holding * moved.square()).sum()
    first = None
    for _ in range(steps):
        # Features of a tower share most of their length: in directions where the loss is hardly curved, gradients
        # alone would take thousands of steps.
        curvature = features.T @ (features * here.mean_curvature.unsqueeze(1))
        curvature.diagonal().add_(held.mean())
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(curvature))
        gradient = here.gradient.T @ features + holding * moved
        size = float((gradient * (gradient @ inverse)).sum())
        first = size if first is None else first
        if size <= 0.0:
            break
        precise = min(0.25, (size / first) ** 0.25) ** 2
        direction, along = _conjugate(features, here.curve, holding, inverse, gradient, precise)
        gain = -float((gradient * direction).sum())
        share = 1.0
        for _ in range(_HALVINGS):
            there = slope(outputs + share * along)
            reached = moved + share * direction
            found = there.loss + 0.5 * (holding * reached.square()).sum()
            if found <= value - 1e-4 * share * gain:
                break
            share /= 2
        else:  # rounding hides what is left to gain
            break
        moved, outputs, here, value = reached, outputs + share * along, there, found
        if gain <= tolerance * (1.0 + abs(float(value))):
            break
    return moved


def _conjugate(
    features: Tensor,
    curve: Callable[[Tensor], Tensor],
    holding: Tensor,
    inverse: Tensor,
    gradient: Tensor,
    precise: float,
) -> tuple[Tensor, Tensor]:
    """The step d with H d = -gradient, nearly; and what it adds to the outputs."""
    step, left = torch.zeros_like(gradient), -gradient
    along = features.new_zeros(len(features), len(gradient))
    eased = left @ inverse
    towards, product = eased, (left * eased).sum()
    enough = precise * product
    for _ in range(_CONJUGATE):
        outputs = features @ towards.T
        turned = curve(outputs).T @ features + holding * towards
        length = product / (towards * turned).sum()
        step, along, left = step + length * towards, along + length * outputs, left - length * turned
        eased = left @ inverse
        before, product = product, (left * eased).sum()
        if product <= enough:
            break
        towards = eased + product / before * towards
    return step, along
