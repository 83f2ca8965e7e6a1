"""Adapters that describe a class by its mean: prototypes, and Gaussians of one common covariance (GDA)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from eventclip.adapters.choosing import Values, at_shots, positive
from eventclip.adapters.prompt_weighting import PromptWeighting, guided, recording_weights
from eventclip.adapters.support import Support, SupportAdapter, across_folds
from eventclip.models.prompts import PromptFeatures

_ALPHA = {1: 0.03, 2: 0.3, 4: 1.0}  # shots -> weight of the Gaussians; on the demo's symbols
_NIL = 1e-9
_NEAREST, _TEXT_SHARE = 64, 0.25  # of a new class; the share was chosen on left-over training recordings
_SAME = 1e-6  # a class's text, told by its cosine


class PrototypeAdapter(SupportAdapter):
    """Each class's text feature and the mean of its recordings, blended by how many recordings there are.

    w_k = (1 - a) t_k + a unit(mean of class k), a = S / (S + text_shots); logits are the cosine to w_k times the logit
    scale. What any other adapter has to beat.

    Example:
        >>> import torch
        >>> from eventclip.adapters.gaussian import PrototypeAdapter
        >>> adapter = PrototypeAdapter(torch.eye(3, 16), logit_scale=100.0)
        >>> features, valid = torch.randn(6, 1, 4, 16), torch.ones(6, 1, 4, dtype=torch.bool)  # (n, P, V, D), (n, P, V)
        >>> adapter.fit_support(features, valid, torch.tensor([0, 0, 1, 1, 2, 2]))
        >>> adapter(features[:, 0], valid[:, 0]).shape
        torch.Size([6, 4, 3])

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        weights: how ``text_shots`` is set, "fixed", "support" or "validation", see :class:`SupportAdapter`.
        text_shots: with "fixed": how many recordings the text counts for, above 0.

    Raises:
        UserError: an option outside its range.
    """

    solved: ClassVar[tuple[str, ...]] = ("weight",)
    weight: Tensor

    def __init__(
        self, text_features: Tensor, logit_scale: float, *, weights: str = "support", text_shots: float = 1.0
    ) -> None:
        super().__init__(text_features, logit_scale, weights=weights)
        self.text_shots = positive(text_shots, "text_shots")
        self.register_buffer("weight", self.text_features.clone())

    def constants(self, support: Support) -> Values:
        """As given."""
        return {"text_shots": self.text_shots}

    def candidates(self, support: Support) -> list[Values]:
        """From next to nothing to far more than any support has."""
        return [{"text_shots": 2.0**power} for power in range(-5, 10)]

    def solve(self, support: Support, values: Values, seed: int) -> dict[str, Tensor]:
        """The blended prototypes."""
        counts = support.counts.unsqueeze(1)
        return {"weight": _blend(support.text, support.class_means(support.recordings), counts, values["text_shots"])}

    def judge(self, solution: Mapping[str, Tensor], features: Tensor, text: Tensor) -> Tensor:
        """Cosine to the prototypes times the logit scale."""
        return self.logit_scale * features @ solution["weight"].T


class GDAAdapter(SupportAdapter):
    """Zero-shot logits plus Gaussian discriminant analysis (Wang et al., ICLR 2024).

    Classes are Gaussians about their means mu_k with one covariance S, that of passes about their class's mean, shrunk
    as the authors do: Q = M ((M - 1) S + tr(S) I)^-1. Logits are s x t_k + alpha (x Q mu_k - mu_k Q mu_k / 2), so that
    alpha = 1 is Bayes' rule; the authors' alpha is M / D times this one. M counts recordings, however many passes they
    have. Good from about three recordings a class on; with one, S knows of nothing but augmentation.

    Once fitted, it takes the text features of other classes, too. One of its own stays as it was; a new one has S and,
    for a mean, that of the 64 recordings nearest to its text and of the text itself, which counts for a quarter of them
    and is moved by what lies between the means of recordings and of text.

    Example:
        >>> import torch
        >>> from eventclip.adapters.gaussian import GDAAdapter
        >>> adapter = GDAAdapter(torch.eye(3, 16), logit_scale=100.0, weights="fixed")
        >>> features, valid = torch.randn(6, 1, 4, 16), torch.ones(6, 1, 4, dtype=torch.bool)  # (n, P, V, D), (n, P, V)
        >>> adapter.fit_support(features, valid, torch.tensor([0, 0, 1, 1, 2, 2]))
        >>> adapter.fitted["weights"]
        'fixed'

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        weights: how ``alpha`` is set, "fixed", "support" or "validation", see :class:`SupportAdapter`.
        alpha: with "fixed": weight of the Gaussians' logits beside the text's, above 0; None grows it with the
            recordings of a class, from 0.03 for one to 1 for four and more.
        prompt_features: those of each class's prompts; None: ``text_features`` are all there are.
        prompt_weighting: "mean"; or "timo" (Li et al., AAAI 2025), where a class has several prompts: its text feature
            weighs them by how near they are to its recordings, and its mean weighs recordings by how near they are to
            that text feature.
        gamma: with "fixed" and "timo": sharpness of both softmaxes, 0 is the mean.
        prompt_samples: whether a class's prompts are one more recording of it, in as many passes as there are prompts,
            moved by what lies between the means of recordings and of text.

    Raises:
        UserError: an option outside its range.
    """

    open_vocabulary: ClassVar[bool] = True
    solved: ClassVar[tuple[str, ...]] = ("weight", "bias")
    support_sized: ClassVar[tuple[str, ...]] = ("recordings",)
    weight: Tensor
    bias: Tensor
    class_text: Tensor
    recordings: Tensor
    precision: Tensor
    shift: Tensor

    def __init__(
        self,
        text_features: Tensor,
        logit_scale: float,
        *,
        weights: str = "support",
        alpha: float | None = None,
        prompt_features: PromptFeatures | None = None,
        prompt_weighting: str = "mean",
        gamma: float = 1.0,
        prompt_samples: bool = False,
    ) -> None:
        super().__init__(text_features, logit_scale, weights=weights, prompt_features=prompt_features)
        self.weighting = PromptWeighting(prompt_weighting, gamma, prompt_features)
        self.prompt_samples = bool(prompt_samples)
        self.alpha = None if alpha is None else positive(alpha, "alpha")
        self.register_buffer("weight", torch.zeros_like(self.text_features))
        self.register_buffer("bias", torch.zeros(len(self.text_features)))
        width = self.text_features.shape[1]
        self.register_buffer("class_text", self.text_features.clone())
        self.register_buffer("recordings", torch.zeros(0, width))
        self.register_buffer("precision", torch.zeros(width, width))
        self.register_buffer("shift", torch.zeros(width))
        self._others: tuple[tuple[int, ...], dict[str, Tensor]] = ((), {})

    def constants(self, support: Support) -> Values:
        """As given, or from the shots."""
        return {"alpha": self.alpha or at_shots(support.mean_shots, _ALPHA), **self.weighting.constants()}

    def constant_temperature(self, values: Values) -> float:
        """The more the Gaussians count, the more: they know nothing of how little they were fitted to."""
        return 1 + 3 * values["alpha"]

    def candidates(self, support: Support) -> list[Values]:
        """Four a decade about the constant for the shots; the largest leaves nothing of the text."""
        middle = at_shots(support.mean_shots, _ALPHA)
        alphas = [middle * 10.0 ** (power / 4) for power in range(-6, 6)]
        return [{"alpha": alpha, **own} for own in self.weighting.candidates() for alpha in alphas]

    def solve(self, support: Support, values: Values, seed: int) -> dict[str, Tensor]:
        """The linear classifier that both parts make together."""
        support = guided(support, values.get("gamma", 0.0))
        weight, bias = gaussian_classifier(*self._gaussians(support, values.get("gamma", 0.0)))
        return {
            "weight": (self.logit_scale * support.text + values["alpha"] * weight).float(),
            "bias": (values["alpha"] * bias).float(),
        }

    def remembered(self, support: Support, values: Values) -> dict[str, Tensor]:
        """Recordings, the common precision times alpha, and how far recordings lie from text."""
        gamma = values.get("gamma", 0.0)
        _, covariance = self._gaussians(guided(support, gamma), gamma)
        return {
            "class_text": support.text.clone(),  # a tensor of its own, or a module names it once alone
            "recordings": support.means,
            "precision": values["alpha"] * torch.cholesky_inverse(torch.linalg.cholesky(covariance)),
            "shift": support.class_means(support.means).mean(dim=0) - support.text.mean(dim=0),
        }

    def resize_for(self, state: Mapping[str, Tensor]) -> None:
        """As for all; and for the classes that it was fitted to, be they those of the text features or not."""
        super().resize_for(state)
        for name in ("weight", "bias", "class_text"):
            if name in state and state[name].ndim:
                setattr(self, name, getattr(self, name).new_zeros(len(state[name]), *getattr(self, name).shape[1:]))

    def solution(self) -> Mapping[str, Tensor]:
        """The classifier for the classes of ``text_features``; that for others is kept until something changes."""
        text, own = self.text_features, super().solution()
        if not self.is_fitted or (text.shape == self.class_text.shape and torch.equal(text, self.class_text)):
            return own
        tensors = (text, self.class_text, self.recordings, self.precision, self.shift, self.weight, self.bias)
        state = tuple(number for tensor in tensors for number in (id(tensor), tensor._version))  # noqa: SLF001
        if self._others[0] != state:
            self._others = state, self._for_others()
        return self._others[1]

    def _for_others(self) -> dict[str, Tensor]:
        """Weight and bias of any classes: those that it was fitted to keep theirs."""
        text = self.text_features
        nearness = F.normalize(self.recordings, dim=-1) @ text.T
        nearest = nearness.topk(min(_NEAREST, len(nearness)), dim=0).indices.T
        near = torch.stack([self.recordings[rows].mean(dim=0) for rows in nearest])
        means = (near + _TEXT_SHARE * (text + self.shift)) / (1 + _TEXT_SHARE)
        gaussians = means @ self.precision
        weight, bias = self.logit_scale * text + gaussians, -0.5 * (gaussians * means).sum(dim=1)
        likeness, own = (text @ self.class_text.T).max(dim=1)
        known = likeness > 1 - _SAME
        weight[known], bias[known] = self.weight[own[known]], self.bias[own[known]]
        return {"weight": weight, "bias": bias}

    def judge(self, solution: Mapping[str, Tensor], features: Tensor, text: Tensor) -> Tensor:
        """Of a linear classifier."""
        return features @ solution["weight"].T + solution["bias"]

    def left_out(self, support: Support, candidates: Sequence[Values], seed: int) -> Iterator[Tensor]:
        """By cross-validation; a fold has fewer shots, and takes as much less of its Gaussians as the constants do."""
        all_shots = at_shots(support.mean_shots, _ALPHA)

        for gamma, own in itertools.groupby(candidates, key=lambda values: values.get("gamma", 0.0)):

            def judge(rest: Support, left: Support, gamma: float = gamma) -> Tensor:
                weight, bias = gaussian_classifier(*self._gaussians(guided(rest, gamma), gamma))
                logits = (left.passes.double() @ weight.T + bias).float()
                return logits * (at_shots(rest.mean_shots, _ALPHA) / all_shots)

            def read(rest: Support, left: Support, gamma: float = gamma) -> Tensor:
                return self.logit_scale * left.passes @ guided(rest, gamma).text.T

            gaussian = across_folds(support, judge)
            plain = self.logit_scale * support.passes @ support.text.T
            zero_shot = across_folds(support, read) if gamma else plain
            for values in own:
                yield zero_shot + values["alpha"] * gaussian

    def _gaussians(self, support: Support, gamma: float) -> tuple[Tensor, Tensor]:
        """Means (K, D) and covariance (D, D) of the Gaussians, in double precision."""
        features = support.means.double()
        if gamma:
            features = features * recording_weights(support, gamma).double().unsqueeze(1)
        means = support.class_means(features)
        if self.prompt_samples:
            counts, support = support.counts.unsqueeze(1), _with_prompts(support, means)
            own = support.means[-len(means) :].double()
            means = (counts * means + own) / (counts + 1)
        return means, _shrunk_scatter(support, means) / len(support)


def _with_prompts(support: Support, means: Tensor) -> Support:
    """The support and one more recording of each class, the last ones: its prompts, moved to where recordings lie."""
    prompts = support.prompts
    features = support.text.unsqueeze(1) if prompts is None else prompts.features
    valid = torch.ones_like(features[..., 0], dtype=torch.bool) if prompts is None else prompts.valid
    share = valid.to(support.share.dtype) / valid.sum(dim=1, keepdim=True)
    centre = (features.masked_fill(~valid.unsqueeze(-1), 0.0) * share.unsqueeze(-1)).sum(dim=1).mean(dim=0)
    moved = features + (means.mean(dim=0).to(features.dtype) - centre)
    moved = moved.masked_fill(~valid.unsqueeze(-1), 0.0)
    most = max(support.share.shape[1], share.shape[1])

    def wide(rows: Tensor) -> Tensor:
        lacking = most - rows.shape[1]
        return torch.cat([rows, rows.new_zeros(len(rows), lacking, *rows.shape[2:])], dim=1)

    return replace(
        support,
        passes=torch.cat([wide(support.passes), wide(moved)]),
        share=torch.cat([wide(support.share), wide(share)]),
        labels=torch.cat([support.labels, torch.arange(len(means), device=support.labels.device)]),
    )


def gaussian_classifier(means: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Log odds of Gaussians with one covariance: means (K, D), (D, D) -> weight (K, D) and bias (K,)."""
    weight = torch.cholesky_solve(means.T, torch.linalg.cholesky(covariance)).T
    return weight, -0.5 * (weight * means).sum(dim=1)


def _blend(text: Tensor, means: Tensor, counts: Tensor, text_shots: float) -> Tensor:
    share = counts / (counts + text_shots)
    return torch.lerp(text, F.normalize(means, dim=-1), share)


def _shrunk_scatter(support: Support, means: Tensor) -> Tensor:
    """(M - 1) S + tr(S) I, (D, D).

    Where every class has one recording in one pass, S is nil: that about the mean of all stands in.
    """
    scatter = _scatter(support, means)
    trace = torch.trace(scatter)
    if trace < _NIL:
        scatter = _scatter(support, support.means.double().mean(dim=0).expand_as(means))
        trace = torch.trace(scatter).clamp(min=_NIL)
    scatter.diagonal().add_(trace / (len(support) - 1))
    return scatter


def _scatter(support: Support, means: Tensor) -> Tensor:
    """Sum over recordings of the mean over passes of (x - mu)(x - mu)', a pass after the other to save memory."""
    total = means.new_zeros(means.shape[1], means.shape[1])
    own = means[support.labels]
    for features, share in zip(support.passes.unbind(1), support.share.unbind(1), strict=True):
        weighted = (features - own) * share.double().sqrt().unsqueeze(1)
        total += weighted.T @ weighted
    return total
