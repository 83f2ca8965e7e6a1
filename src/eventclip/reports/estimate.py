"""A mean over seeds and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Estimate(NamedTuple):
    """A mean and the half width of its 95 % interval, which a single value does not have (None)."""

    mean: float
    half_width: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent values with Student's 95 % interval: mean ± t s / √n, s with n − 1 degrees of freedom.

    Raises:
        ValueError: no values.
    """
    count = len(values)
    if not count:
        raise ValueError("a mean needs at least one value")
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return Estimate(mean, t_quantile(count - 1) * spread / math.sqrt(count))


def t_quantile(degrees: int, level: float = 0.95) -> float:
    """The t that a Student variable exceeds in absolute value with probability 1 − level, found by bisection.

    Args:
        degrees: of freedom, 1 or more.
        level: in (0, 1).
    """
    low, high = 0.0, math.pi / 2  # angle whose tangent is t / √degrees
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < level else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def _within(angle: float, degrees: int) -> float:
    """P(|T| < √degrees tan(angle)) by the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    odd = degrees % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0 if degrees == 1 else term
    for factor in range(2 + odd, degrees - 1, 2):
        term *= math.cos(angle) ** 2 * (factor - 1) / factor
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
