"""What we recommend where only recordings and names are there: three adapters that err differently, averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from eventclip.adapters.choosing import Values
from eventclip.adapters.gaussian import GDAAdapter
from eventclip.adapters.kernel import ProKeRAdapter
from eventclip.adapters.probe import LinearProbeAdapter
from eventclip.adapters.support import Support, SupportAdapter

_MEMBERS: dict[str, type[ProKeRAdapter | GDAAdapter | LinearProbeAdapter]] = {
    "kernel": ProKeRAdapter,
    "gaussian": GDAAdapter,
    "probe": LinearProbeAdapter,
}
_NAMES = {"kernel": "ProKeR", "gaussian": "GDA", "probe": "linear probe"}
_SHARES = {1: (0.5, 0.0, 0.5), 2: (0.5, 0.25, 0.25)}
"""Shots -> share of each member, from there on: chosen on training recordings, docs/guide/adapters.md."""

T = TypeVar("T")


class BestAdapter(SupportAdapter):
    """The mean of what ProKeR, Gaussians and a linear probe held to the text say, each at its own temperature.

    Logits are the members' log probabilities, weighted by constant shares: 0.5 of
    :class:`~eventclip.adapters.kernel.ProKeRAdapter`, 0.25 of :class:`~eventclip.adapters.gaussian.GDAAdapter`, 0.25 of
    :class:`~eventclip.adapters.probe.LinearProbeAdapter`; with one shot, which tells Gaussians nothing, half of the
    first and half of the last. The members' free weights are set as always. No single one of them is good at every
    number of shots and with every CLIP; their mean is.

    Example:
        >>> import torch
        >>> from eventclip.adapters.best import BestAdapter
        >>> adapter = BestAdapter(torch.eye(3, 16), logit_scale=100.0)
        >>> features, valid = torch.randn(6, 1, 4, 16), torch.ones(6, 1, 4, dtype=torch.bool)  # (n, P, V, D), (n, P, V)
        >>> adapter.fit_support(features, valid, torch.tensor([0, 0, 1, 1, 2, 2]))
        >>> adapter.fitted["probe"], adapter.fitted["gaussian"]
        (0.25, 0.25)

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        weights: how the members' free weights are set, "fixed", "support" or "validation", see
            :class:`SupportAdapter`.

    Raises:
        UserError: an option outside its range.
    """

    solved: ClassVar[tuple[str, ...]] = (
        *(f"{name}_{part}" for name, kind in _MEMBERS.items() for part in kind.solved),
        *("shares", "temperatures"),
    )
    support_sized: ClassVar[tuple[str, ...]] = tuple(
        f"{name}_{part}" for name, kind in _MEMBERS.items() for part in kind.support_sized
    )
    shares: Tensor
    temperatures: Tensor

    def __init__(self, text_features: Tensor, logit_scale: float, *, weights: str = "support") -> None:
        super().__init__(text_features, logit_scale, weights=weights)
        # In a plain dict: no part of the module, whose own buffers hold what each of them fitted.
        self._members = {name: kind(text_features, logit_scale, weights=weights) for name, kind in _MEMBERS.items()}
        for name, member in self._members.items():
            for part in member.solved:
                self.register_buffer(f"{name}_{part}", torch.zeros_like(getattr(member, part)))
        self.register_buffer("shares", torch.zeros(len(_MEMBERS)))
        self.register_buffer("temperatures", torch.ones(len(_MEMBERS)))

    def constants(self, support: Support) -> Values:
        """Those of its members."""
        return self.free_weights(support, None, "fixed", 0)[0]

    def check_size(self, support: Support) -> None:
        """Refuse a Gram matrix that does not fit memory."""
        self._members["kernel"].check_size(support)

    def free_weights(self, support: Support, held: Support | None, mode: str, seed: int) -> tuple[Values, float]:
        """Those of each member, as ``<member>_<name>``, and its share as ``<member>``.

        A temperature of the mean's own was tried: it costs as much as all else, and calibrates no better.
        """
        values: Values = {}
        for (name, member), share in zip(self._members.items(), _shares(support), strict=True):
            values[name] = share
            if share:
                own, temperature = member.free_weights(support, held, mode, seed)
                own = {**own, "temperature": temperature}
                values |= {f"{name}_{key}": value for key, value in own.items()}
        return values, 1.0

    def solve(self, support: Support, values: Values, seed: int) -> dict[str, Tensor]:
        """The members' solutions."""
        text = support.text
        solution = {name: torch.zeros_like(getattr(self, name)) for name in self.solved}
        solution["shares"] = text.new_tensor([values[name] for name in _MEMBERS])
        solution["temperatures"] = text.new_tensor([values.get(f"{name}_temperature", 1.0) for name in _MEMBERS])
        for name, member in self._members.items():
            if values[name]:
                solved = member.solve(support, _own(values, name), seed)
                solution |= {f"{name}_{part}": value for part, value in solved.items()}
        return solution

    def judge(self, solution: Mapping[str, Tensor], features: Tensor, text: Tensor) -> Tensor:
        """The members' log probabilities, averaged."""
        total = features.new_zeros(*features.shape[:-1], len(text))
        parts = zip(self._members.items(), solution["shares"], solution["temperatures"], strict=True)
        for (name, member), share, temperature in parts:
            logits = member.judge(_own(solution, name), features, text) / temperature
            total = total + share * logits.log_softmax(dim=-1)
        return total

    def explain(self) -> str:
        """What it is a mean of, and why."""
        shares = [f"{known} ({self.fitted[name]:.0%})" for name, known in _NAMES.items() if self.fitted.get(name)]
        why = "no one of them is always best" if self.fitted.get("gaussian") else "one shot tells Gaussians nothing"
        return f"mean of {', '.join(shares)}: {why}"


def _own(values: Mapping[str, T], name: str) -> dict[str, T]:
    """What belongs to a member, without its name."""
    return {key.removeprefix(f"{name}_"): value for key, value in values.items() if key.startswith(f"{name}_")}


def _shares(support: Support) -> tuple[float, ...]:
    """Of each member, where a class has at least so many shots."""
    return _SHARES[max(shots for shots in _SHARES if shots <= max(support.shots, 1))]
