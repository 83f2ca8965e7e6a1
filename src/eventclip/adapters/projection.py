"""The image tower's last projection learns, and nothing else: class names go on being a matter of words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from eventclip.adapters.choosing import Values, folds_of, positive
from eventclip.adapters.support import FOLDS, Samples, Support, SupportAdapter


class ProLIPAdapter(SupportAdapter):
    """CLIP's last projection W, held to what it was, W_0 (ProLIP, arXiv 2410.05270).

    Minimises the cross entropy of the logits s cos(h W + b, T) summed over recordings plus prior_weight / 2 times the
    squared distance of W from W_0, where h is what the tower's last projection takes; b, where there is one, stays.
    The authors go 300 steps of Adam that way; L-BFGS goes to the minimum. Text features have no part in what is
    learned: a fitted one can be given those of other classes.

    Example:
        >>> import torch
        >>> from eventclip.adapters.projection import ProLIPAdapter
        >>> projection = torch.randn(32, 16), torch.zeros(16)  # (H, D), (D,)
        >>> adapter = ProLIPAdapter(torch.eye(3, 16), logit_scale=100.0, projection=projection)
        >>> features, valid = torch.randn(6, 1, 4, 32), torch.ones(6, 1, 4, dtype=torch.bool)  # (n, P, V, H), (n, P, V)
        >>> adapter.fit_support(features, valid, torch.tensor([0, 0, 1, 1, 2, 2]))
        >>> adapter.learned.shape
        torch.Size([32, 16])

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        projection: W_0 (H, D) and b (D,), see :meth:`eventclip.models.encoder.ClipEncoder.take_projection`; features
            are what it takes, (…, H).
        weights: how the prior's weight is set, "fixed", "support" or "validation", see :class:`SupportAdapter`.
        prior_weight: with "fixed": above 0; recordings count for themselves, so that more of them loosen it.

    Raises:
        UserError: an option outside its range.
    """

    before_projection: ClassVar[bool] = True
    """It takes what the tower's last projection does; what it learned can be given back to a tower."""
    open_vocabulary: ClassVar[bool] = True
    solved: ClassVar[tuple[str, ...]] = ("learned",)
    judged_by: ClassVar[int] = 256
    original: Tensor
    bias: Tensor
    learned: Tensor

    def __init__(
        self,
        text_features: Tensor,
        logit_scale: float,
        *,
        projection: tuple[Tensor, Tensor],
        weights: str = "support",
        prior_weight: float = 0.003,
    ) -> None:
        super().__init__(text_features, logit_scale, weights=weights)
        self.prior_weight = positive(prior_weight, "prior_weight")
        weight, bias = projection
        self.register_buffer("original", weight.detach().clone().float(), persistent=False)
        self.register_buffer("bias", bias.detach().clone().float(), persistent=False)
        self.register_buffer("learned", self.original.clone())

    @property
    def width(self) -> int:
        """H, of what the projection takes."""
        return len(self.original)

    def project(self, features: Tensor) -> Tensor:
        """What the projection takes -> image features, as it has learned to: (..., H) -> (..., D)."""
        projected: Tensor = features @ self.learned + self.bias
        return projected

    def pool(self, features: Tensor, valid: Tensor) -> Tensor:
        """Mean over views, each as long as makes its unlearned image feature unit; and so a 1 for the bias: H + 1."""
        mask = valid.unsqueeze(-1)
        clean = features.masked_fill(~mask, 0.0).float()
        length = (clean @ self.original + self.bias).norm(dim=-1, keepdim=True).clamp(min=1e-12)
        scaled = torch.cat([clean, torch.ones_like(length)], dim=-1) / length
        mean: Tensor = (scaled * mask).sum(dim=-2) / mask.sum(dim=-2).clamp(min=1)
        return mean

    def constants(self, support: Support) -> Values:
        """As given."""
        return {"prior_weight": self.prior_weight}

    def constant_temperature(self, values: Values) -> float:
        """1.4, as of a probe that is held to the text."""
        return 1.4

    def candidates(self, support: Support) -> list[Values]:
        """One a decade, 3 to 0.003, the tightest first."""
        return [{"prior_weight": weight} for weight in (3.0, 0.3, 0.03, 0.003)]

    def solve(self, support: Support, values: Values, seed: int) -> dict[str, Tensor]:
        """The projection."""
        fit = self._fit(support)
        return {"learned": self.original + fit.at(values["prior_weight"]).float()}

    def judge(self, solution: Mapping[str, Tensor], features: Tensor, text: Tensor) -> Tensor:
        """The cosine to the text, times the logit scale."""
        image = features[..., :-1] @ solution["learned"] + features[..., -1:] * self.bias
        return self.logit_scale * F.normalize(image, dim=-1) @ text.T

    def left_out(self, support: Support, candidates: Sequence[Values], seed: int) -> Iterator[Tensor]:
        """By cross-validation; each candidate begins where the tighter one before it ended."""
        folds = folds_of(support.labels, min(FOLDS, support.shots))
        fits = [self._fit(support.take(folds != fold)) for fold in range(int(folds.max()) + 1)]
        for values in candidates:
            logits = support.passes.new_zeros(*support.share.shape, len(support.text))
            for fold, fit in enumerate(fits):
                learned = {"learned": self.original + fit.at(values["prior_weight"], steps=50).float()}
                logits[folds == fold] = self.judge(learned, support.passes[folds == fold], support.text)
            yield logits

    def _fit(self, support: Support) -> _Fit:
        dtype = torch.float64
        merged = Samples.of(support.merged(), dtype)
        taken, ones = merged.features[:, :-1], merged.features[:, -1:]
        offset = taken @ self.original.to(dtype) + ones * self.bias.to(dtype)
        # W moves by rows that are sums of what was seen: with few recordings, in fewer directions than there are.
        basis = torch.linalg.qr(taken.T).Q if len(taken) < self.width else torch.eye(self.width).to(taken)
        return _Fit(merged, support.text.to(dtype), self.logit_scale, offset, taken @ basis, basis)


@dataclass
class _Fit:
    """The problem for a support; remembers where it was solved last."""

    samples: Samples
    text: Tensor
    logit_scale: float
    offset: Tensor
    features: Tensor
    basis: Tensor
    moved: Tensor | None = None

    def at(self, prior_weight: float, *, steps: int = 200) -> Tensor:
        """What is added to the projection (H, D) under a weight of the prior."""
        held = self.offset.new_full((self.offset.shape[1],), prior_weight)
        # Of a class, about half of a logit's slope s / |z| turns into curvature, shared by the D outputs.
        slope = self.logit_scale**2 / self.offset.square().sum(dim=1).mean() / 2 / len(held)
        curvature = self.features.T @ self.features * slope
        self.moved = _fit_outputs(self.features, self.offset, self._errors, held, curvature, self.moved, steps)
        return self.basis @ self.moved.T

    def _errors(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        length = outputs.norm(dim=1, keepdim=True).clamp(min=1e-12)
        unit = outputs / length
        about = self.samples.slope(self.logit_scale * unit @ self.text.T)
        slope = self.logit_scale * about.gradient @ self.text
        return about.loss, (slope - unit * (unit * slope).sum(dim=1, keepdim=True)) / length


def _fit_outputs(
    features: Tensor,
    offset: Tensor,
    errors: Callable[[Tensor], tuple[Tensor, Tensor]],
    held: Tensor,
    curvature: Tensor,
    start: Tensor | None = None,
    steps: int = 500,
) -> Tensor:
    """Minimise loss(offset + X Mᵀ) + sum_o held_o / 2 |m_o|^2 over M by L-BFGS.

    Args:
        features: X (N, D).
        offset: (N, O).
        errors: outputs (N, O) -> the loss, and its gradient by them.
        held: (O,), above 0.
        curvature: (D, D) about how curved the loss is in M, the same for each output.
        start: (O, D) where to begin; None begins at 0.
        steps: at most.

    Returns:
        M (O, D).
    """
    # Features of a tower share most of their length: in coordinates where the loss is about as curved in all
    # directions, M = Z L^-1, a few dozen steps do where thousands would not.
    curvature = curvature.clone()
    curvature.diagonal().add_(held.mean())
    factor = torch.linalg.cholesky(curvature)
    whitened = torch.linalg.solve_triangular(factor, features.T, upper=False).T.contiguous()
    moved = offset.new_zeros(offset.shape[1], features.shape[1]) if start is None else start @ factor

    def away() -> Tensor:
        distance: Tensor = torch.linalg.solve_triangular(factor, moved, upper=False, left=False)
        return distance

    def closure() -> float:
        loss, gradient = errors(offset + whitened @ moved.T)
        distance = away()
        pull = torch.linalg.solve_triangular(factor.T, held.unsqueeze(1) * distance, upper=True, left=False)
        moved.grad = gradient.T @ whitened + pull
        return float(loss + 0.5 * (held * distance.square().sum(dim=1)).sum())

    optimizer = torch.optim.LBFGS(
        [moved],
        max_iter=steps,
        max_eval=2 * steps,
        history_size=20,
        tolerance_grad=1e-6 if steps > 50 else 1e-3,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return away()
