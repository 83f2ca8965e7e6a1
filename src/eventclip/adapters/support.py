"""What all adapters have in common that a few labelled recordings, the support, fit at once; no epochs, no optimizer.

They see a recording as its mean feature: the mean of its valid views' unit features, made unit again. In the support
a recording may come in several passes (augmented copies), which share its weight: giving all of them twice changes
nothing. Neither does the order of recordings, which are put into an order of their own first.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eventclip.adapters.choosing import Values, check_weights, choose, folds_of
from eventclip.adapters.newton import Slope
from eventclip.errors import UserError
from eventclip.models.prompts import PromptFeatures

FOLDS = 5
_SORTED_BY = 16  # coordinates


@dataclass(frozen=True)
class Support:
    """Labelled recordings as mean features, and the classes' text features.

    Attributes:
        passes: (n, P, D) unit mean feature of each pass, zero where a pass has no view.
        share: (n, P) weight of a pass, summing to 1 in each recording.
        labels: (n,) int64.
        text: (K, D) unit text features.
        prompts: those of each class's prompts; None where the class's one is all that is known.
    """

    passes: Tensor
    share: Tensor
    labels: Tensor
    text: Tensor
    prompts: PromptFeatures | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def recordings(self) -> Tensor:
        """(n, D) unit mean feature of each recording over its passes."""
        return F.normalize(self.means, dim=-1)

    @cached_property
    def means(self) -> Tensor:
        """(n, D) mean over passes, as it is."""
        return (self.passes * self.share.unsqueeze(-1)).sum(dim=1)

    @cached_property
    def counts(self) -> Tensor:
        """(K,) recordings of each class."""
        return torch.bincount(self.labels, minlength=len(self.text))

    @cached_property
    def targets(self) -> Tensor:
        """(n, K) float32 one-hot labels."""
        return F.one_hot(self.labels, len(self.text)).to(self.passes.dtype)

    @property
    def shots(self) -> int:
        """Recordings of the class that has fewest."""
        return int(self.counts.min())

    @property
    def mean_shots(self) -> float:
        """Recordings per class."""
        return len(self) / len(self.text)

    def class_means(self, features: Tensor) -> Tensor:
        """Means of (n, D) over each class's recordings: (K, D)."""
        sums = features.new_zeros(len(self.text), features.shape[1]).index_add_(0, self.labels, features)
        return sums / self.counts.clamp(min=1).unsqueeze(1)

    def take(self, chosen: Tensor) -> Support:
        """Some of the recordings: a mask or indices (n,)."""
        return replace(self, passes=self.passes[chosen], share=self.share[chosen], labels=self.labels[chosen])

    def merged(self) -> Support:
        """Recordings in one pass, their mean feature over the passes there are."""
        return replace(self, passes=self.recordings.unsqueeze(1), share=self.share.new_ones(len(self), 1))

    def thinned(self, most: int) -> Support:
        """About ``most`` of the recordings, or two of each class, evenly of all classes."""
        ranks = folds_of(self.labels, max(len(self), 1))
        return self.take((ranks % max(1, round(len(self) / most)) == 0) | (ranks < 2))

    def of_classes(self, classes: Tensor) -> Support:
        """The recordings of some classes, numbered anew in the order given."""
        numbers = torch.full((len(self.text),), -1, dtype=torch.int64, device=classes.device)
        numbers[classes] = torch.arange(len(classes), device=classes.device)
        kept = self.take(numbers[self.labels] >= 0)
        prompts = None if self.prompts is None else self.prompts.of_classes(classes)
        return replace(kept, labels=numbers[kept.labels], text=self.text[classes], prompts=prompts)


@dataclass(frozen=True)
class Samples:
    """All passes as samples: features (N, D), the part of a recording that each is (N,), labels (N,)."""

    features: Tensor
    share: Tensor
    labels: Tensor

    @classmethod
    def of(cls, support: Support, dtype: torch.dtype) -> Samples:
        """Those passes of a support that have a view."""
        seen = support.share > 0
        labels = support.labels.unsqueeze(1).expand_as(support.share)[seen]
        return cls(support.passes[seen].to(dtype), support.share[seen].to(dtype), labels)

    def slope(self, logits: Tensor) -> Slope:
        """Cross entropy summed over recordings about logits (N, K)."""
        index, share = self.labels.unsqueeze(1), self.share.unsqueeze(1)
        logarithms = logits.log_softmax(dim=1)
        loss = -(logarithms.gather(1, index) * share).sum()
        probabilities = logarithms.exp_()
        errors = (probabilities * share).scatter_add_(1, index, -share)

        def curve(moved: Tensor) -> Tensor:
            weighed = probabilities * moved
            return (weighed - probabilities * weighed.sum(dim=1, keepdim=True)) * share

        spread = (1 - probabilities.square().sum(dim=1)) * self.share / logits.shape[1]
        return Slope(loss, errors, curve, spread)


def mean_features(features: Tensor, valid: Tensor) -> Tensor:
    """Mean of the valid views' unit features, made unit: raw (..., V, D), (..., V) -> (..., D), zero without a view."""
    unit = F.normalize(features.masked_fill(~valid.unsqueeze(-1), 0.0).float(), dim=-1)
    return F.normalize(unit.sum(dim=-2), dim=-1)


def across_folds(support: Support, judge: Callable[[Support, Support], Tensor]) -> Tensor:
    """Judge each recording after a fit to others, in at most five folds in which all classes are alike.

    Leaving out single recordings would show each one its own class with one recording fewer than all other classes,
    and at two or three of them choose far too much of the text.

    Args:
        support: at least two recordings of each class.
        judge: (those to fit to, those to judge) -> logits (b, P, K) of the latter.

    Returns:
        (n, P, K) logits.
    """
    folds = folds_of(support.labels, min(FOLDS, support.shots))
    logits = support.passes.new_zeros(*support.share.shape, len(support.text))
    for fold in range(int(folds.max()) + 1):
        logits[folds == fold] = judge(support.take(folds != fold), support.take(folds == fold))
    return logits


class SupportAdapter(nn.Module):
    """Base of the adapters that labelled recordings fit: CLIP's zero-shot until :meth:`fit_support` was called.

    A further one implements :meth:`solve`, :meth:`judge`, :meth:`constants` and, where it has free weights,
    :meth:`candidates`; and names the buffers that hold its solution in ``solved``.

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        weights: how free weights are set: "fixed", by constants that saw no recording of this data set; "support", by
            leaving out recordings of the support, from two recordings a class on ("fixed" below); "validation", on
            the validation set that :meth:`fit_support` is given. All but "fixed" fit a temperature, too.
        prompt_features: those of each class's prompts, for adapters that look at them one by one.

    Attributes:
        fitted: how it was fitted: "weights", which of the three was used in the end, and each free weight's value.

    Raises:
        UserError: an option outside its range.
    """

    open_vocabulary: ClassVar[bool] = False
    """Whether it can be given the text features of other classes once it was fitted."""
    solved: ClassVar[tuple[str, ...]] = ()
    """Names of the buffers that hold the solution."""
    support_sized: ClassVar[tuple[str, ...]] = ()
    """Those of them with a row for each recording of the support."""
    judged_by: ClassVar[int] = 2048
    """About how many recordings of the support free weights are judged by: of more, those of some classes, and of
    two classes with more still, some."""

    text_features: Tensor
    is_fitted: Tensor
    temperature: Tensor

    def __init__(
        self,
        text_features: Tensor,
        logit_scale: float,
        *,
        weights: str = "support",
        prompt_features: PromptFeatures | None = None,
    ) -> None:
        super().__init__()
        self.logit_scale = float(logit_scale)
        self.weights = check_weights(weights)
        self.fitted: dict[str, float | str] = {}
        unit = F.normalize(text_features.detach().float(), dim=-1)
        self._prompts = prompt_features
        self.register_buffer("text_features", unit, persistent=False)
        self.register_buffer("is_fitted", torch.tensor(False))
        self.register_buffer("temperature", torch.tensor(1.0))

    @abstractmethod
    def constants(self, support: Support) -> Values:
        """Free weights that were published, or chosen on other data, for a support of this size."""

    def candidates(self, support: Support) -> list[Values]:
        """Free weights to choose from; of equals, the first is taken."""
        return [self.constants(support)]

    def constant_temperature(self, values: Values) -> float:
        """What divides the logits where the free weights are constants."""
        return 1.0

    @abstractmethod
    def solve(self, support: Support, values: Values, seed: int) -> dict[str, Tensor]:
        """Fit to a support: the contents of the buffers ``solved``."""

    @abstractmethod
    def judge(self, solution: Mapping[str, Tensor], features: Tensor, text: Tensor) -> Tensor:
        """Logits of unit mean features under a solution: (..., D), (K, D) -> (..., K)."""

    def left_out(self, support: Support, candidates: Sequence[Values], seed: int) -> Iterator[Tensor]:
        """Logits (n, P or 1, K) of each recording from a fit to others, for each candidate.

        Here by cross-validation in at most five folds of recordings. Adapters whose algebra tells what a fit to all
        other recordings would say take that.
        """
        for values in candidates:

            def judge(rest: Support, left: Support, values: Values = values) -> Tensor:
                return self.judge(self.solve(rest, values, seed), left.passes, left.text)

            yield across_folds(support, judge)

    @torch.no_grad()
    def fit_support(
        self,
        features: Tensor,
        valid: Tensor,
        labels: Tensor,
        *,
        validation: tuple[Tensor, Tensor, Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        """Fit to labelled recordings.

        Args:
            features: (n, P, V, D) raw image features of n recordings in P passes of up to V views; what invalid views
                hold does not matter, NaN included.
            valid: (n, P, V) bool; each recording has a valid view in one of its passes.
            labels: (n,) int64, 0 to K - 1, each class at least once.
            validation: features (m, 1, V, D), valid (m, 1, V) and labels (m,) that free weights are chosen on, where
                ``weights`` is "validation"; not looked at otherwise.
            seed: of what is drawn.

        Raises:
            UserError: shapes that do not fit together, labels that are no classes, one class only, a class without
                recordings, a valid view that is not finite, no validation set, or a support that does not fit memory.
        """
        support = self.gathered(features, valid, labels, "support")
        _check_classes(support)
        held = None
        mode = "fixed" if self.weights == "support" and support.shots < 2 else self.weights
        if mode == "validation":
            if validation is None or not len(validation[2]):
                raise UserError(
                    "adapter.weights=validation needs validation recordings, and there are none: give the data set "
                    "a validation split, or set adapter.weights=support"
                )
            held = self.gathered(*validation, "validation set")
        self.check_size(support)
        values, temperature = self.free_weights(support, held, mode, seed)
        for name, value in {**self.solve(support, values, seed), **self.remembered(support, values)}.items():
            setattr(self, name, value.to(getattr(self, name)).contiguous())
        self.temperature.fill_(temperature)
        self.is_fitted.fill_(True)
        self.fitted = {"weights": mode, **values, "temperature": temperature}

    def remembered(self, support: Support, values: Values) -> dict[str, Tensor]:
        """What is needed of the support once other classes are asked for: the contents of further buffers."""
        return {}

    def solution(self) -> Mapping[str, Tensor]:
        """What :meth:`judge` needs for the classes of ``text_features``, those that it was fitted to or others."""
        return {name: getattr(self, name) for name in self.solved}

    def explain(self) -> str:
        """Say in words why it was fitted so, where there is more to say than the values of free weights."""
        return ""

    def check_size(self, support: Support) -> None:
        """Refuse a support that does not fit memory; here, any fits."""

    @property
    def width(self) -> int:
        """D of the features that it takes."""
        return self.text_features.shape[1]

    def project(self, features: Tensor) -> Tensor:
        """Raw features -> CLIP's image features; here they are that already."""
        return features

    def pool(self, features: Tensor, valid: Tensor) -> Tensor:
        """What it sees of a recording: raw (..., V, D), (..., V) -> (..., D), of any length, zero without a view."""
        return mean_features(features, valid)

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """View logits of raw view features: every valid view of a recording has those of its mean feature.

        Args:
            features: (B, V, D) raw image features; what invalid views hold does not matter, NaN included.
            valid: (B, V) bool.

        Returns:
            (B, V, K) logits, zero for invalid views.
        """
        mask = valid.unsqueeze(-1)
        with torch.autocast(features.device.type, enabled=False):
            clean = features.masked_fill(~mask, 0.0).float()
            zero_shot = self.logit_scale * F.normalize(self.project(clean), dim=-1) @ self.text_features.T
            judged = self.judge(self.solution(), self.pool(clean, valid), self.text_features) / self.temperature
            logits = torch.where(self.is_fitted, judged.unsqueeze(1), zero_shot)
        return logits.masked_fill(~mask, 0.0)

    def resize_for(self, state: Mapping[str, Tensor]) -> None:
        """Give the buffers with a row for each recording of the support as many rows as stored ones have.

        Args:
            state: stored tensors by the names they have in this module's ``state_dict``.
        """
        for name in self.support_sized:
            if name in state and state[name].ndim:
                own = getattr(self, name)
                setattr(self, name, own.new_zeros(len(state[name]), *own.shape[1:]))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        self.resize_for({name.removeprefix(prefix): state_dict[name] for name in state_dict if name.startswith(prefix)})
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def free_weights(self, support: Support, held: Support | None, mode: str, seed: int) -> tuple[Values, float]:
        """Choose free weights and the temperature that goes with them.

        Args:
            support: what is fitted to.
            held: the validation set; None without one.
            mode: "fixed", "support" or "validation".
            seed: of what is drawn.
        """
        if mode == "fixed":
            constants = self.constants(support)
            return constants, self.constant_temperature(constants)
        return self.chosen(support, held, seed)

    def chosen(
        self, support: Support, held: Support | None, seed: int, candidates: Sequence[Values] | None = None
    ) -> tuple[Values, float]:
        """Choose by recordings that were not fitted to: of the validation set, or without one those left out.

        Args:
            support: what is fitted to.
            held: the validation set; None without one.
            seed: of what is drawn.
            candidates: to choose from; None takes this adapter's own.
        """
        if len(support) > self.judged_by:
            present = (support if held is None else held).counts.nonzero().flatten()
            count = max(2, round(self.judged_by * len(support.text) / len(support)))
            some = present[torch.linspace(0, len(present) - 1, min(count, len(present))).round().long()]
            support, held = support.of_classes(some), None if held is None else held.of_classes(some)
            support = support.thinned(self.judged_by)
        candidates = self.candidates(support) if candidates is None else candidates
        if held is None:
            scored = self.left_out(support, candidates, seed)
        else:
            scored = self._on_validation(support, held, candidates, seed)
        told = support if held is None else held
        return choose(zip(candidates, scored, strict=True), told.labels, told.share)

    def _on_validation(
        self, support: Support, held: Support, candidates: Sequence[Values], seed: int
    ) -> Iterator[Tensor]:
        for values in candidates:
            yield self.judge(self.solve(support, values, seed), held.passes, support.text)

    def gathered(self, features: Tensor, valid: Tensor, labels: Tensor, what: str) -> Support:
        """Check recordings, and put them into an order that does not depend on the one they came in."""
        width, place = self.width, self.text_features.device
        if (
            features.ndim != 4
            or 0 in features.shape[1:3]
            or valid.shape != features.shape[:3]
            or labels.shape != features.shape[:1]
            or features.shape[3] != width
        ):
            raise UserError(
                f"the {what} has features {tuple(features.shape)}, valid {tuple(valid.shape)} and labels "
                f"{tuple(labels.shape)}, where features (n, P, V, {width}), valid (n, P, V) and labels (n,) are "
                f"needed: give raw features of the CLIP whose text features this adapter has"
            )
        valid = valid.bool()
        if not valid.flatten(1).any(dim=1).all():
            empty = int((~valid.flatten(1).any(dim=1)).nonzero()[0])
            raise UserError(f"recording {empty} of the {what} has no valid view: leave it out")
        classes = len(self.text_features)
        if labels.is_floating_point() or (len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes):
            raise UserError(
                f"labels of the {what} must be whole numbers from 0 to {classes - 1}, one for each text feature, got "
                f"{labels.dtype} from {labels.min().item()} to {labels.max().item()}"
            )
        passes = torch.stack([self.pool(features[:, p], valid[:, p]) for p in range(features.shape[1])], dim=1)
        if not passes.isfinite().all():
            broken = int((~passes.flatten(1).isfinite().all(dim=1)).nonzero()[0])
            raise UserError(
                f"recording {broken} of the {what} has features that are not finite: check clip.pretrained, or set "
                f"features.dtype=fp32"
            )
        seen = valid.any(dim=2).float()
        told = Support(passes, seen / seen.sum(dim=1, keepdim=True), labels.long(), self.text_features)
        # By numbers, not by bytes: a last bit that rounding moves must not move a recording.
        keys = told.means[:, :_SORTED_BY].cpu().numpy()
        order = np.lexsort((*keys.T[::-1], told.labels.cpu().numpy()))
        ordered = told.take(torch.from_numpy(order))
        prompts = None if self._prompts is None else self._prompts.to(place)
        return Support(ordered.passes.to(place), ordered.share.to(place), ordered.labels.to(place), told.text, prompts)


def _check_classes(support: Support) -> None:
    """Refuse a support that does not show every class."""
    if len(support.text) < 2:
        raise UserError("there is one class only, and nothing to tell it from: give two or more")
    missing = (support.counts == 0).nonzero().flatten().tolist()
    if missing:
        further = f" and {len(missing) - 1} more have" if len(missing) > 1 else " has"
        raise UserError(
            f"class {missing[0]}{further} no recording in the support: give at least one of each class, or leave the "
            f"class out"
        )
