"""Free weights of a fitted adapter: candidates judged by the mean log likelihood of recordings it was not fitted on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from eventclip.errors import UserError

WEIGHTS = ("fixed", "support", "validation")
"""How free weights are set: by constants that saw no recording of this data set, by leaving out recordings of the
support, or on a validation set."""

Values = dict[str, float]
"""Free weights by name."""

_LEAST_GAIN = 1e-6  # in mean log likelihood: below it, rounding chooses
_SHARPEST, _FLATTEST = 0.01, 10_000.0


def check_weights(how: str) -> str:
    """Return ``how`` if it is a way to set free weights; UserError otherwise."""
    if how not in WEIGHTS:
        raise UserError(f"adapter.weights must be one of {', '.join(WEIGHTS)}, got {how!r}")
    return how


def positive(value: float, name: str) -> float:
    """Return an option of an adapter if it is a number above 0; UserError otherwise."""
    if not 0 < float(value) < float("inf"):
        raise UserError(f"adapter.{name} must be a number above 0, got {value}")
    return float(value)


def at_shots(shots: float, table: Mapping[int, float]) -> float:
    """Read a table of shots -> value, on straight lines between the logarithms of both; its ends reach on."""
    return float(np.exp(np.interp(np.log(shots), np.log(list(table)), np.log(list(table.values())))))


def mean_log_likelihood(logits: Tensor, labels: Tensor, share: Tensor) -> float:
    """Mean over recordings of the log probability of their class.

    One label in n + 2 is taken to be another class's, each as likely (Platt, 1999): that a few recordings are all
    recognised makes no classifier certain.

    Args:
        logits: (n, Q, K), of Q passes.
        labels: (n,) int64.
        share: (n, Q) weight of a pass, summing to 1 in each recording.
    """
    told = _expected(logits, labels) - logits.logsumexp(dim=-1)
    return float((told.double() * share).sum() / len(labels))


def fit_temperature(logits: Tensor, labels: Tensor, share: Tensor, *, start: float = 1.0) -> float:
    """Find the temperature T, 0.01 to 10,000, for which logits / T are the likeliest (Guo et al., ICML 2017).

    The mean log likelihood is concave in 1 / T: Newton's steps within a bracket find its one maximum.

    Args:
        logits: (n, Q, K), of Q passes.
        labels: (n,) int64.
        share: (n, Q) weight of a pass, summing to 1 in each recording.
        start: where the search begins.
    """
    logits = logits - logits.amax(dim=-1, keepdim=True)
    own = _expected(logits, labels)
    least, most, sharpness = 1 / _FLATTEST, 1 / _SHARPEST, 1 / start
    for _ in range(60):
        probabilities = (sharpness * logits).softmax(dim=-1)
        expected = (probabilities * logits).sum(dim=-1)
        spread = (probabilities * logits.square()).sum(dim=-1) - expected.square()
        slope = float(((own - expected).double() * share).sum())
        curvature = float((spread.double() * share).sum())
        least, most = (sharpness, most) if slope > 0 else (least, sharpness)
        step = sharpness + slope / curvature if curvature > 0 else most
        following = step if least < step < most else (least * most) ** 0.5
        if abs(following - sharpness) <= 1e-5 * sharpness:
            break
        sharpness = following
    return 1 / sharpness


def _expected(logits: Tensor, labels: Tensor) -> Tensor:
    """Expected logit of a recording's class, (n, Q), where one label in n + 2 is another class's."""
    doubt = 1 / (len(labels) + 2)
    own = logits.gather(-1, labels[:, None, None].expand(-1, logits.shape[1], 1)).squeeze(-1)
    return (1 - doubt) * own + doubt * (logits.sum(dim=-1) - own) / (logits.shape[-1] - 1)


def choose(scored: Iterable[tuple[Values, Tensor]], labels: Tensor, share: Tensor) -> tuple[Values, float]:
    """Choose the candidate under which held-out recordings are the likeliest, each at its own best temperature.

    Args:
        scored: candidates, each with the (n, Q, K) logits of the held-out recordings.
        labels: (n,) int64.
        share: (n, Q) weight of a pass, summing to 1 in each recording.

    Returns:
        The first of the best candidates, and its temperature.
    """
    best: tuple[Values, float] | None = None
    highest, temperature = -float("inf"), 1.0
    for values, logits in scored:
        temperature = fit_temperature(logits, labels, share, start=temperature)  # neighbours have similar ones
        likelihood = mean_log_likelihood(logits / temperature, labels, share)
        if best is None or likelihood > highest + _LEAST_GAIN:
            best, highest = (values, temperature), likelihood
    if best is None:
        raise ValueError("there is no candidate to choose from")
    return best


def folds_of(labels: Tensor, count: int) -> Tensor:
    """Folds of a cross-validation in which each class is spread evenly: labels (n,) -> (n,) numbers 0 .. count - 1.

    The r-th recording of a class goes into fold r modulo ``count``; who comes first is the caller's order.
    """
    order = torch.argsort(labels, stable=True)
    ordered = labels[order]
    firsts = torch.searchsorted(ordered, ordered)
    folds = torch.empty_like(labels)
    folds[order] = (torch.arange(len(labels), device=labels.device) - firsts) % count
    return folds
