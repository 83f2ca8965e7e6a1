"""Adapters that train a linear classifier on the support to the end: linear probes with and without a prior, LP++."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from eventclip.adapters.choosing import Values, folds_of, positive
from eventclip.adapters.newton import minimise
from eventclip.adapters.prompt_weighting import PromptWeighting, guided
from eventclip.adapters.support import FOLDS, Samples, Support, SupportAdapter
from eventclip.errors import UserError, whole
from eventclip.models.prompts import PromptFeatures

_MOMENTUM = 0.9
_LOOSENING = (1.0, 0.1, 0.01, 0.001, 0.0001)


class LinearProbeAdapter(SupportAdapter):
    """Logistic regression that starts from CLIP's text and is held to it: a maximum a posteriori (MAP) probe.

    Minimises the cross entropy summed over recordings plus prior_weight / 2 times the squared distance of the
    classifier W from W_0 = s T, s the logit scale. Convex: Newton's steps find the one minimum.

    Example:
        >>> import torch
        >>> from eventclip.adapters.probe import LinearProbeAdapter
        >>> adapter = LinearProbeAdapter(torch.eye(3, 16), logit_scale=100.0)
        >>> features, valid = torch.randn(6, 1, 4, 16), torch.ones(6, 1, 4, dtype=torch.bool)  # (n, P, V, D), (n, P, V)
        >>> adapter.fit_support(features, valid, torch.tensor([0, 0, 1, 1, 2, 2]))
        >>> adapter.weight.shape
        torch.Size([3, 16])

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        weights: how the prior's weight is set, "fixed", "support" or "validation", see :class:`SupportAdapter`.
        prior_weight: with "fixed": above 0; recordings count for themselves, so that more of them loosen it.
        class_weights: "uniform"; or "clap", where a class is held the more the likelier zero-shot finds its own
            recordings, by their mean probability over that of all classes (Silva-Rodríguez et al., CVPR 2024).
        prompt_features: those of each class's prompts; None: ``text_features`` are all there are.
        prompt_weighting: "mean"; or "timo" (Li et al., AAAI 2025): the text feature of a class with several prompts
            weighs them by how near they are to its recordings.
        gamma: with "fixed" and "timo": sharpness of that softmax, 0 is the mean.

    Raises:
        UserError: an option outside its range.
    """

    solved: ClassVar[tuple[str, ...]] = ("weight",)
    judged_by: ClassVar[int] = 1024
    weight: Tensor

    def __init__(
        self,
        text_features: Tensor,
        logit_scale: float,
        *,
        weights: str = "support",
        prior_weight: float = 0.003,
        class_weights: str = "uniform",
        prompt_features: PromptFeatures | None = None,
        prompt_weighting: str = "mean",
        gamma: float = 30.0,
    ) -> None:
        super().__init__(text_features, logit_scale, weights=weights, prompt_features=prompt_features)
        self.weighting = PromptWeighting(prompt_weighting, gamma, prompt_features)
        if class_weights not in ("uniform", "clap"):
            raise UserError(f"adapter.class_weights must be uniform or clap, got {class_weights!r}")
        self.prior_weight = positive(prior_weight, "prior_weight")
        self.class_weights = class_weights
        self._near: dict[tuple[float, ...], Tensor] = {}  # rough fits to folds, while free weights are chosen
        self.register_buffer("weight", torch.zeros_like(self.text_features))

    def constants(self, support: Support) -> Values:
        """As given."""
        return {"prior_weight": self.prior_weight, **self.weighting.constants()}

    def constant_temperature(self, values: Values) -> float:
        """1.4, whatever the shots: what training recordings that were left over of two data sets ask for."""
        return 1.4

    def candidates(self, support: Support) -> list[Values]:
        """Two a decade, 0.3 to 3e-4, the tightest first."""
        weights = [10.0 ** (power / 2) for power in range(-1, -8, -1)]
        return [{"prior_weight": weight, **own} for own in self.weighting.candidates() for weight in weights]

    def prior(self, support: Support) -> Tensor:
        """W_0 (K, D)."""
        return self.logit_scale * support.text

    def solve(self, support: Support, values: Values, seed: int) -> dict[str, Tensor]:
        """The classifier."""
        support = guided(support, values.get("gamma", 0.0))
        return {"weight": self._fit(support, values["prior_weight"]).float()}

    def judge(self, solution: Mapping[str, Tensor], features: Tensor, text: Tensor) -> Tensor:
        """Of a linear classifier without bias."""
        return features @ solution["weight"].T

    def free_weights(self, support: Support, held: Support | None, mode: str, seed: int) -> tuple[Values, float]:
        """The prior's weight from rough fits, and the temperature that goes with it from better ones."""
        values, temperature = super().free_weights(support, held, mode, seed)
        if mode == "support":
            values, temperature = self.chosen(support, held, seed, [values])
        self._near.clear()
        return values, temperature

    def left_out(self, support: Support, candidates: Sequence[Values], seed: int) -> Iterator[Tensor]:
        """By cross-validation; where there are many candidates in a few steps each, from the one before.

        The place where such a search stops depends on rounding: it serves to choose, not to be told.
        What is fitted to are recordings' mean features, as many times fewer as there are passes.
        """
        rough = len(candidates) > 1
        folds = folds_of(support.labels, min(FOLDS, support.shots))
        weights: dict[int, Tensor] = {}
        for values in candidates:
            logits = support.passes.new_zeros(*support.share.shape, len(support.text))
            for fold in range(int(folds.max()) + 1):
                rest = guided(support.take(folds != fold).merged(), values.get("gamma", 0.0))
                key = (fold, *values.values())
                weights[fold] = self._fit(
                    rest, values["prior_weight"], self._near.get(key, weights.get(fold)), rough=rough
                )
                if rough:
                    self._near[key] = weights[fold]
                logits[folds == fold] = support.passes[folds == fold] @ weights[fold].float().T
            yield logits

    def _fit(
        self, support: Support, prior_weight: float, start: Tensor | None = None, *, rough: bool = False
    ) -> Tensor:
        """The classifier (K, D): roughly in single precision, and from there to the minimum in double."""
        held = torch.ones(len(support.text), dtype=torch.float64, device=support.text.device)
        if self.class_weights == "clap":
            held *= clap_weights(support, self.logit_scale)
        prior = self.prior(support)
        samples = Samples.of(support, prior.dtype)
        looser = [] if start is not None else [weight for weight in _LOOSENING if weight > 2 * prior_weight]
        for weight in looser:  # what hardly holds is found soonest from what is held
            start = fit_linear(samples, prior, weight * held.float(), start, tolerance=1e-3)
        near = fit_linear(samples, prior, prior_weight * held.float(), start, tolerance=1e-4)
        if rough:
            return near
        return fit_linear(Samples.of(support, held.dtype), prior.double(), prior_weight * held, near.double())


class RandomProbeAdapter(LinearProbeAdapter):
    """Logistic regression that knows nothing of CLIP's text, the floor under all adapters that do.

    As :class:`LinearProbeAdapter` with W_0 = 0. Its one minimum is the same wherever the classifier starts.

    Example:
        >>> import torch
        >>> from eventclip.adapters.probe import RandomProbeAdapter
        >>> adapter = RandomProbeAdapter(torch.eye(3, 16), logit_scale=100.0)
        >>> features, valid = torch.randn(6, 1, 4, 16), torch.ones(6, 1, 4, dtype=torch.bool)  # (n, P, V, D), (n, P, V)
        >>> adapter.fit_support(features, valid, torch.tensor([0, 0, 1, 1, 2, 2]))
        >>> list(adapter.fitted)
        ['weights', 'prior_weight', 'temperature']

    Args:
        text_features: (K, D) text features of the classes; they tell how many there are.
        logit_scale: factor from cosine to logits, used before it is fitted.
        weights: how the weight of the prior at 0 is set, "fixed", "support" or "validation", see
            :class:`SupportAdapter`.
        prior_weight: with "fixed": above 0.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(
        self, text_features: Tensor, logit_scale: float, *, weights: str = "support", prior_weight: float = 0.003
    ) -> None:
        super().__init__(text_features, logit_scale, weights=weights, prior_weight=prior_weight)

    def constant_temperature(self, values: Values) -> float:
        """1.2, found as that of the probe that is held to the text."""
        return 1.2

    def prior(self, support: Support) -> Tensor:
        """Zero, (K, D)."""
        return torch.zeros_like(support.text)


class LPPlusPlusAdapter(SupportAdapter):
    """Linear probe beside the text, blended class by class (LP++, CVPR 2024).

    Logits are x w_k + b_k + alpha_k x t_k. w_k starts at the sum of the class's recordings, alpha_k at 2.5 s times
    their mean cosine to their text (250 times with the logit scale s = 100 of the authors); 300 steps of gradient
    descent on all recordings with momentum 0.9 and step sizes from the curvature of the loss, alpha every tenth step.
    Nothing is searched; with ``weights`` other than "fixed" the temperature is fitted.

    Example:
        >>> import torch
        >>> from eventclip.adapters.probe import LPPlusPlusAdapter
        >>> adapter = LPPlusPlusAdapter(torch.eye(3, 16), logit_scale=100.0)
        >>> features, valid = torch.randn(6, 1, 4, 16), torch.ones(6, 1, 4, dtype=torch.bool)  # (n, P, V, D), (n, P, V)
        >>> adapter.fit_support(features, valid, torch.tensor([0, 0, 1, 1, 2, 2]))
        >>> adapter.blend.shape
        torch.Size([3])

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        weights: how the temperature is set, "fixed" (1), "support" or "validation", see :class:`SupportAdapter`.
        steps: of gradient descent.

    Raises:
        UserError: an option outside its range.
    """

    solved: ClassVar[tuple[str, ...]] = ("weight", "bias", "blend")
    weight: Tensor
    bias: Tensor
    blend: Tensor

    def __init__(
        self, text_features: Tensor, logit_scale: float, *, weights: str = "support", steps: int = 300
    ) -> None:
        super().__init__(text_features, logit_scale, weights=weights)
        self.steps = whole(steps, "adapter.steps")
        self.register_buffer("weight", torch.zeros_like(self.text_features))
        self.register_buffer("bias", torch.zeros(len(self.text_features)))
        self.register_buffer("blend", torch.zeros(len(self.text_features)))

    def constants(self, support: Support) -> Values:
        """There is no free weight."""
        return {}

    def solve(self, support: Support, values: Values, seed: int) -> dict[str, Tensor]:
        """What the last step gives."""
        samples = Samples.of(support, torch.float32)
        cosines = samples.features @ support.text.T
        own = (support.means * support.text[support.labels]).sum(dim=1, keepdim=True)
        blend = 2.5 * self.logit_scale * support.class_means(own).squeeze(1)
        weight = support.class_means(support.means) * support.counts.unsqueeze(1)
        bias = torch.zeros_like(blend)
        gram = samples.features.T @ (samples.features * samples.share.unsqueeze(1))
        curved = (cosines.square() * samples.share.unsqueeze(1)).sum(dim=0).max().clamp(min=1e-9)
        rate = 4 * len(support) / float(torch.linalg.eigvalsh(gram.double())[-1])
        blend_rate = len(support) / (4 * float(curved))
        speeds = [torch.zeros_like(moved) for moved in (weight, bias, blend)]
        for step in range(self.steps):
            logits = samples.features @ weight.T + bias + blend * cosines
            errors = samples.slope(logits).gradient / len(support)
            parts = [(weight, errors.T @ samples.features, rate), (bias, errors.sum(dim=0), rate)]
            if step % 10 == 9:
                parts.append((blend, (errors * cosines).sum(dim=0), blend_rate))
            for (moved, gradient, own_rate), speed in zip(parts, speeds, strict=False):
                speed.mul_(_MOMENTUM).add_(gradient)
                moved.sub_(own_rate * speed)
        return {"weight": weight, "bias": bias, "blend": blend}

    def left_out(self, support: Support, candidates: Sequence[Values], seed: int) -> Iterator[Tensor]:
        """By cross-validation on mean features, as many times fewer as there are passes."""
        return super().left_out(support.merged(), candidates, seed)

    def judge(self, solution: Mapping[str, Tensor], features: Tensor, text: Tensor) -> Tensor:
        """Of the probe and the blended text."""
        return features @ solution["weight"].T + solution["bias"] + solution["blend"] * (features @ text.T)


def clap_weights(support: Support, logit_scale: float) -> Tensor:
    """Mean zero-shot probability of each class for its own recordings, over the mean of all classes: (K,), above 0."""
    zero_shot = (logit_scale * support.recordings @ support.text.T).softmax(dim=1)
    own = support.class_means(zero_shot.gather(1, support.labels.unsqueeze(1))).squeeze(1)
    return (own / own.mean()).clamp(min=1e-2)  # a class that zero-shot never finds would not be held at all


def fit_linear(
    samples: Samples, prior: Tensor, held: Tensor, start: Tensor | None = None, *, tolerance: float = 1e-11
) -> Tensor:
    """Minimise cross entropy summed over recordings + sum_k held_k / 2 |w_k - prior_k|^2 by Newton's steps.

    Args:
        samples: N samples.
        prior: (K, D).
        held: (K,), above 0.
        start: (K, D) where to begin; None begins at the prior.
        tolerance: see :func:`.minimise`.

    Returns:
        (K, D) the minimum.
    """
    return prior + minimise(
        samples.features,
        samples.features @ prior.T,
        samples.slope,
        held,
        None if start is None else start - prior,
        tolerance=tolerance,
    )
