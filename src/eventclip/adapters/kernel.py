"""Adapters that compare a recording with each one of the support: ProKeR and Tip-Adapter."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from eventclip.adapters.choosing import Values, folds_of, positive
from eventclip.adapters.support import Samples, Support, SupportAdapter
from eventclip.errors import UserError, whole
from eventclip.rng import generator

_GAIN = 20.0  # logits that it may add
_BATCH = 256


class ProKeRAdapter(SupportAdapter):
    """Kernel ridge regression about CLIP's zero-shot answer (ProKeR, CVPR 2025).

    With k(u, v) = exp(-beta (1 - u v)), f(x) = x T and R = Y - f(S): logits are the logit scale times
    f(x) + blend k(x, S) (K + regularization I)^-1 R. The textbook's blend is 1; the authors' is the regularization
    itself, and far from CLIP's own images too little. Theirs for 1, 2, 4, 8 and 16 shots: beta 3, 2.6, 1.5, 1.66 and
    1.7, regularization and blend 0.05, 0.05, 0.05, 0.07 and 0.1. Needs a matrix of n x n numbers, and its factor.

    Example:
        >>> import torch
        >>> from eventclip.adapters.kernel import ProKeRAdapter
        >>> adapter = ProKeRAdapter(torch.eye(3, 16), logit_scale=100.0)
        >>> features, valid = torch.randn(6, 1, 4, 16), torch.ones(6, 1, 4, dtype=torch.bool)  # (n, P, V, D), (n, P, V)
        >>> adapter.fit_support(features, valid, torch.tensor([0, 0, 1, 1, 2, 2]))
        >>> sorted(adapter.fitted)
        ['beta', 'blend', 'regularization', 'temperature', 'weights']

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        weights: how beta, regularization and blend are set, "fixed", "support" or "validation", see
            :class:`SupportAdapter`.
        beta: with "fixed": sharpness of the kernel, above 0.
        regularization: with "fixed": above 0.
        blend: with "fixed": above 0; None takes as much as adds up to 20 logits, at most 1.

    Raises:
        UserError: an option outside its range.
    """

    solved: ClassVar[tuple[str, ...]] = ("keys", "coefficients", "sharpness")
    support_sized: ClassVar[tuple[str, ...]] = ("keys", "coefficients")
    judged_by: ClassVar[int] = 1024
    keys: Tensor
    coefficients: Tensor
    sharpness: Tensor

    def __init__(
        self,
        text_features: Tensor,
        logit_scale: float,
        *,
        weights: str = "support",
        beta: float = 2.0,
        regularization: float = 0.1,
        blend: float | None = None,
    ) -> None:
        super().__init__(text_features, logit_scale, weights=weights)
        self.beta = positive(beta, "beta")
        self.regularization = positive(regularization, "regularization")
        self.blend = min(1.0, _GAIN / self.logit_scale) if blend is None else positive(blend, "blend")
        classes, width = self.text_features.shape
        self.register_buffer("keys", torch.zeros(0, width))
        self.register_buffer("coefficients", torch.zeros(0, classes))
        self.register_buffer("sharpness", torch.tensor(self.beta))

    def constants(self, support: Support) -> Values:
        """As given."""
        return {"beta": self.beta, "regularization": self.regularization, "blend": self.blend}

    def constant_temperature(self, values: Values) -> float:
        """1.3, whatever the shots: what training recordings that were left over of two data sets ask for."""
        return 1.3

    def candidates(self, support: Support) -> list[Values]:
        """Wide and narrow kernels, from the authors' blends up to the textbook's."""
        return [
            {"beta": beta, "regularization": regularization, "blend": blend}
            for beta in (1.0, 2.0, 4.0)
            for regularization in (1.0, 0.3, 0.1, 0.03)
            for blend in (1.0, 0.3, 0.1, 0.03)
        ]

    def check_size(self, support: Support) -> None:
        """Refuse a Gram matrix that does not fit memory."""
        needed = 3 * 8 * len(support) ** 2  # the matrix, its factor, and what is copied on the way
        there = memory_of(support.labels.device)
        if needed > there:
            raise UserError(
                f"the Gram matrix of {len(support)} recordings needs about {needed / 1e9:.1f} GB and there are "
                f"{there / 1e9:.1f} GB: give fewer fewshot.shots, or take the GDA adapter, whose matrix is as wide as "
                f"a feature"
            )

    def solve(self, support: Support, values: Values, seed: int) -> dict[str, Tensor]:
        """Keys and the coefficients of each class."""
        gram = kernel(support.recordings.double(), support.recordings.double(), values["beta"])
        gram.diagonal().add_(values["regularization"])
        residual = (support.targets - support.recordings @ support.text.T).double()
        coefficients = torch.cholesky_solve(residual, torch.linalg.cholesky(gram)) * values["blend"]
        return {
            "keys": support.recordings,
            "coefficients": coefficients.float(),
            "sharpness": support.text.new_tensor(values["beta"]),
        }

    def judge(self, solution: Mapping[str, Tensor], features: Tensor, text: Tensor) -> Tensor:
        """Zero-shot cosine and what the keys add, times the logit scale."""
        added = kernel(features, solution["keys"], solution["sharpness"]) @ solution["coefficients"]
        return self.logit_scale * (features @ text.T + added)

    def left_out(self, support: Support, candidates: Sequence[Values], seed: int) -> Iterator[Tensor]:
        """Exact: what the others' regression says of the recordings of a fold, one of each class."""
        own = support.recordings.double()
        zero_shot = (own @ support.text.double().T).float()
        residual = support.targets.double() - zero_shot
        folds = folds_of(support.labels, support.shots)
        solved: tuple[float, float] | None = None
        for values in candidates:
            if solved != (values["beta"], values["regularization"]):
                solved = values["beta"], values["regularization"]
                added = ridge_left_out(kernel(own, own, solved[0]), solved[1], residual, folds).float()
            yield self.logit_scale * (zero_shot + values["blend"] * added).unsqueeze(1)


def kernel(features: Tensor, keys: Tensor, beta: float | Tensor) -> Tensor:
    """exp(-beta (1 - cosine)) of unit features (..., D) and keys (n, D): (..., n)."""
    return (features @ keys.T).sub_(1).mul_(beta).exp_()


def ridge_left_out(gram: Tensor, regularization: float, residual: Tensor, groups: Tensor) -> Tensor:
    """What kernel ridge regression predicts for each group of samples when fitted to all other groups.

    With G = (K + regularization I)^-1 the prediction for a group b is R_b - G_bb^-1 (G R)_b, without another fit.

    Args:
        gram: K, (n, n), changed.
        regularization: above 0.
        residual: R, (n, K), the targets.
        groups: (n,) int64 from 0 on, each at least once; samples of one number are left out together.

    Returns:
        (n, K) predictions.
    """
    gram.diagonal().add_(regularization)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    solved = inverse @ residual
    predicted = torch.empty_like(residual)
    for group in range(int(groups.max()) + 1):
        own = (groups == group).nonzero().flatten()
        predicted[own] = residual[own] - torch.linalg.solve(inverse[own][:, own], solved[own])
    return predicted


class TipAdapter(SupportAdapter):
    """Zero-shot logits plus alpha times the similarity to each class's recordings (Tip-Adapter, ECCV 2022).

    Logits are s x T + alpha exp(-beta (1 - x Q)) Y, with the recordings' mean features as keys Q.

    Example:
        >>> import torch
        >>> from eventclip.adapters.kernel import TipAdapter
        >>> adapter = TipAdapter(torch.eye(3, 16), logit_scale=100.0)
        >>> features, valid = torch.randn(6, 1, 4, 16), torch.ones(6, 1, 4, dtype=torch.bool)  # (n, P, V, D), (n, P, V)
        >>> adapter.fit_support(features, valid, torch.tensor([0, 0, 1, 1, 2, 2]))
        >>> adapter.keys.shape
        torch.Size([6, 16])

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        weights: how alpha and beta are set, "fixed", "support" or "validation", see :class:`SupportAdapter`.
        alpha: with "fixed": weight of the keys, above 0; the authors' is 0.39.
        beta: with "fixed": sharpness of the keys, above 0; the authors' is 3.57.

    Raises:
        UserError: an option outside its range.
    """

    solved: ClassVar[tuple[str, ...]] = ("keys", "key_labels", "height", "sharpness")
    support_sized: ClassVar[tuple[str, ...]] = ("keys", "key_labels")
    keys: Tensor
    key_labels: Tensor
    height: Tensor
    sharpness: Tensor

    def __init__(
        self,
        text_features: Tensor,
        logit_scale: float,
        *,
        weights: str = "support",
        alpha: float = 0.39,
        beta: float = 3.57,
    ) -> None:
        super().__init__(text_features, logit_scale, weights=weights)
        self.alpha, self.beta = positive(alpha, "alpha"), positive(beta, "beta")
        self.register_buffer("keys", torch.zeros(0, self.text_features.shape[1]))
        self.register_buffer("key_labels", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("height", torch.tensor(self.alpha))
        self.register_buffer("sharpness", torch.tensor(self.beta))

    def constants(self, support: Support) -> Values:
        """As given."""
        return {"alpha": self.alpha, "beta": self.beta}

    def candidates(self, support: Support) -> list[Values]:
        """About the published ones, and up to keys that outweigh the text."""
        return [
            {"alpha": alpha, "beta": beta}
            for beta in (1.0, 2.0, 3.57, 5.5, 9.0, 15.0)
            for alpha in (0.1, 0.39, 1.0, 3.0, 10.0, 30.0, 100.0)
        ]

    def solve(self, support: Support, values: Values, seed: int) -> dict[str, Tensor]:
        """Keys and their labels."""
        alpha, beta = (support.text.new_tensor(values[name]) for name in ("alpha", "beta"))
        return {
            "keys": support.recordings,
            "key_labels": support.labels,
            "height": alpha,
            "sharpness": beta,
        }

    def judge(self, solution: Mapping[str, Tensor], features: Tensor, text: Tensor) -> Tensor:
        """Zero-shot logits and what the keys add."""
        keys, labels = solution["keys"], solution["key_labels"]
        added = _votes(kernel(features, keys, solution["sharpness"]), labels, len(text))
        return self.logit_scale * features @ text.T + solution["height"] * added

    def left_out(self, support: Support, candidates: Sequence[Values], seed: int) -> Iterator[Tensor]:
        """Exact: keys of the recording's own fold, one of each class, are silent."""
        own, labels = support.recordings, support.labels
        folds = folds_of(labels, support.shots)
        heard = (folds.unsqueeze(1) != folds).float()
        zero_shot = self.logit_scale * own @ support.text.T
        beta: float | None = None
        for values in candidates:
            if beta != values["beta"]:
                beta = values["beta"]
                votes = _votes(kernel(own, own, beta) * heard, labels, len(support.text))
            yield (zero_shot + values["alpha"] * votes).unsqueeze(1)


class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys learn (Tip-Adapter-F, ECCV 2022).

    AdamW at 1e-3, falling as a cosine, 20 epochs over batches of 256 recordings with all their passes; alpha and beta
    are chosen before the keys learn, the temperature after.

    Example:
        >>> import torch
        >>> from eventclip.adapters.kernel import TipAdapterF
        >>> adapter = TipAdapterF(torch.eye(3, 16), logit_scale=100.0, weights="fixed")
        >>> features, valid = torch.randn(6, 1, 4, 16), torch.ones(6, 1, 4, dtype=torch.bool)  # (n, P, V, D), (n, P, V)
        >>> adapter.fit_support(features, valid, torch.tensor([0, 0, 1, 1, 2, 2]), seed=0)
        >>> adapter(features[:, 0], valid[:, 0]).shape
        torch.Size([6, 4, 3])

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        weights: how alpha and beta are set, "fixed", "support" or "validation", see :class:`SupportAdapter`.
        alpha: with "fixed": weight of the keys, above 0; the authors' is 0.39.
        beta: with "fixed": sharpness of the keys, above 0; the authors' is 3.57.
        epochs: over the support.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(
        self,
        text_features: Tensor,
        logit_scale: float,
        *,
        weights: str = "support",
        alpha: float = 0.39,
        beta: float = 3.57,
        epochs: int = 20,
    ) -> None:
        super().__init__(text_features, logit_scale, weights=weights, alpha=alpha, beta=beta)
        self.epochs = whole(epochs, "adapter.epochs")

    def free_weights(self, support: Support, held: Support | None, mode: str, seed: int) -> tuple[Values, float]:
        """Alpha and beta of keys that have not learned, the temperature of those that have."""
        still = TipAdapter(support.text, self.logit_scale, weights=self.weights, alpha=self.alpha, beta=self.beta)
        values, temperature = still.free_weights(support, held, mode, seed)
        return (values, temperature) if mode == "fixed" else self.chosen(support, held, seed, [values])

    def solve(self, support: Support, values: Values, seed: int) -> dict[str, Tensor]:
        """Keys after the last epoch."""
        solution = super().solve(support, values, seed)
        keys, labels = solution["keys"].clone(), support.labels
        optimizer = torch.optim.AdamW([keys], lr=1e-3, eps=1e-4)
        batches = -(-len(support) // _BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs * batches)
        for epoch in range(self.epochs):
            order = generator(seed, "order of the support", epoch=epoch).permutation(len(support))
            for chosen in torch.split(torch.from_numpy(order).to(labels.device), _BATCH):
                samples = Samples.of(support.take(chosen), keys.dtype)
                similar = kernel(samples.features, keys, values["beta"])
                logits = self.logit_scale * samples.features @ support.text.T
                errors = samples.slope(logits + values["alpha"] * _votes(similar, labels, len(support.text))).gradient
                pull = similar.mul_(errors[:, labels]).mul_(values["alpha"] * values["beta"] / len(chosen))
                keys.grad = pull.T @ samples.features
                optimizer.step()
                schedule.step()
        return solution | {"keys": keys}

    def left_out(self, support: Support, candidates: Sequence[Values], seed: int) -> Iterator[Tensor]:
        """By cross-validation on mean features: keys that learned of a recording cannot be silenced."""
        return SupportAdapter.left_out(self, support.merged(), candidates, seed)


def _votes(similarities: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Sum similarities (..., n) over the keys of each class: (..., K)."""
    votes = similarities.new_zeros(*similarities.shape[:-1], classes)
    return votes.index_add_(-1, labels, similarities)


def memory_of(device: torch.device) -> int:
    """Bytes of memory of a device."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
