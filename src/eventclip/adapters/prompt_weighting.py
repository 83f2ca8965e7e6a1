"""A class's prompts weighed by its recordings, and its recordings by its text: TIMO's mutual guidance.

Li et al., "Text and Image are Mutually Beneficial: Enhancing Training-Free Few-Shot Classification with CLIP", AAAI
2025 (arXiv 2412.11375). A class with one prompt is left as it is.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from eventclip.adapters.choosing import Values
from eventclip.adapters.support import Support
from eventclip.errors import UserError
from eventclip.models.prompts import PromptFeatures

_GAMMAS = (0.0, 1.0, 10.0, 100.0)


class PromptWeighting:
    """How an adapter weighs a class's prompts, and the free number gamma that goes with it.

    Args:
        how: "mean" or "timo".
        gamma: where it is a constant.
        prompts: what there is to weigh.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, how: str, gamma: float, prompts: PromptFeatures | None) -> None:
        if how not in ("mean", "timo"):
            raise UserError(f"adapter.prompt_weighting must be mean or timo, got {how!r}")
        if not 0 <= float(gamma) < float("inf"):
            raise UserError(f"adapter.gamma must be a number of 0 or more, got {gamma}")
        self.gamma = float(gamma)
        self.weighs = how == "timo" and prompts is not None and bool((prompts.valid.sum(dim=1) > 1).any())

    def constants(self) -> Values:
        """Gamma as given; nothing where there is nothing to weigh."""
        return {"gamma": self.gamma} if self.weighs else {}

    def candidates(self) -> list[Values]:
        """Gammas to choose from, the mean first."""
        return [{"gamma": gamma} for gamma in _GAMMAS] if self.weighs else [{}]


def guided(support: Support, gamma: float) -> Support:
    """The support with text features that weigh each class's prompts by its recordings.

    Weights are the softmax over a class's prompts of gamma times their mean cosine to its recordings; the weighted sum
    is made unit. With gamma = 0 they are all alike, and the text feature is the mean.
    """
    if not gamma or support.prompts is None:
        return support
    prompts = support.prompts
    features = prompts.features.masked_fill(~prompts.valid.unsqueeze(-1), 0.0)
    cosines = torch.einsum("kmd,kd->km", features, support.class_means(support.recordings))
    weights = (gamma * cosines).masked_fill(~prompts.valid, -float("inf")).softmax(dim=1)
    weighted = F.normalize(torch.einsum("km,kmd->kd", weights, features), dim=-1)
    return replace(support, text=torch.where(_several(prompts).unsqueeze(1), weighted, support.text))


def recording_weights(support: Support, gamma: float) -> Tensor:
    """Weights of recordings by their cosine to their class's text, (n,), with mean 1 in each class.

    The softmax over a class's recordings of gamma times that cosine, times how many they are.
    """
    cosines = gamma * (support.recordings * support.text[support.labels]).sum(dim=1)
    highest = cosines.new_full((len(support.text),), -float("inf"))
    highest = highest.scatter_reduce(0, support.labels, cosines, "amax")
    raised = (cosines - highest[support.labels]).exp()
    mean = support.class_means(raised.unsqueeze(1)).squeeze(1)
    weights = raised / mean[support.labels]
    if support.prompts is None:
        return torch.ones_like(weights)
    return torch.where(_several(support.prompts)[support.labels], weights, 1.0)


def _several(prompts: PromptFeatures) -> Tensor:
    """Which classes have more than one prompt, (K,)."""
    return prompts.valid.sum(dim=1) > 1
