"""Adapters that train a linear classifier on the support to the end: linear probes with and without a prior, LP++."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from eventclip.adapters.choosing import Values, folds_of, positive
from eventclip.adapters.prompt_weighting import PromptWeighting, guided
from eventclip.adapters.support import FOLDS, Samples, Support, SupportAdapter
from eventclip.errors import UserError, whole
from eventclip.models.prompts import PromptFeatures

_MOMENTUM = 0.9


class LinearProbeAdapter(SupportAdapter):
    """Logistic regression that starts from CLIP's text and is held to it: a maximum a posteriori (MAP) probe.

    Minimises the cross entropy summed over recordings plus prior_weight / 2 times the squared distance of the
    classifier W from W_0 = s T, s the logit scale. Convex: L-BFGS finds the one minimum.

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
        return {"weight": self._fit(support, values["prior_weight"], torch.float64).float()}

    def judge(self, solution: Mapping[str, Tensor], features: Tensor, text: Tensor) -> Tensor:
        """Of a linear classifier without bias."""
        return features @ solution["weight"].T

    def free_weights(self, support: Support, held: Support | None, mode: str, seed: int) -> tuple[Values, float]:
        """The prior's weight from rough fits, and the temperature that goes with it from better ones."""
        values, temperature = super().free_weights(support, held, mode, seed)
        return self.chosen(support, held, seed, [values]) if mode == "support" else (values, temperature)

    def left_out(self, support: Support, candidates: Sequence[Values], seed: int) -> Iterator[Tensor]:
        """By cross-validation; where there are many candidates in a few steps each, from the one before.

        The place where such a search stops depends on rounding: it serves to choose, not to be told.
        What is fitted to are recordings' mean features, as many times fewer as there are passes.
        """
        dtype, steps = (torch.float32, 50) if len(candidates) > 1 else (torch.float64, 500)
        folds = folds_of(support.labels, min(FOLDS, support.shots))
        weights: dict[int, Tensor] = {}
        for values in candidates:
            logits = support.passes.new_zeros(*support.share.shape, len(support.text))
            for fold in range(int(folds.max()) + 1):
                rest = guided(support.take(folds != fold).merged(), values.get("gamma", 0.0))
                weights[fold] = self._fit(rest, values["prior_weight"], dtype, weights.get(fold), steps=steps)
                logits[folds == fold] = support.passes[folds == fold] @ weights[fold].float().T
            yield logits

    def _fit(
        self,
        support: Support,
        prior_weight: float,
        dtype: torch.dtype,
        start: Tensor | None = None,
        *,
        steps: int = 500,
    ) -> Tensor:
        prior = self.prior(support).to(dtype)
        held = torch.full((len(support.text),), prior_weight, dtype=dtype, device=prior.device)
        if self.class_weights == "clap":
            held *= clap_weights(support, self.logit_scale)
        return fit_linear(Samples.of(support, dtype), prior, held, start, steps=steps)


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
            _, errors = samples.errors(samples.features @ weight.T + bias + blend * cosines)
            errors /= len(support)
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
    samples: Samples, prior: Tensor, held: Tensor, start: Tensor | None = None, *, steps: int = 500
) -> Tensor:
    """Minimise cross entropy summed over recordings + sum_k held_k / 2 |w_k - prior_k|^2 by L-BFGS.

    Args:
        samples: N samples.
        prior: (K, D).
        held: (K,), above 0.
        start: (K, D) where to begin; None begins at the prior.
        steps: at most.

    Returns:
        (K, D) the minimum.
    """
    start = None if start is None else start - prior
    curvature = (samples.features.T @ (samples.features * samples.share.unsqueeze(1))) / len(prior)
    return prior + fit_outputs(
        samples.features, samples.features @ prior.T, samples.errors, held, curvature, start, steps
    )


def fit_outputs(
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
