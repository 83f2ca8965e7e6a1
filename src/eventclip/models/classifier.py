"""Views of recordings in, class probabilities out: encoder, adapter, pooling. No Lightning needed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from eventclip.errors import UserError
from eventclip.models.encoder import ClipEncoder
from eventclip.models.pooling import check_pooling, pool_logits, pool_probabilities


class Prediction(NamedTuple):
    """What the classifier says of a batch of recordings."""

    logits: Tensor
    """(B, K), pooled over views."""
    probabilities: Tensor
    """(B, K), mean over views of each view's softmax."""
    view_logits: Tensor
    """(B, V, K), zero for invalid views."""


class EventClassifier(nn.Module):
    """Encoder -> adapter -> pooling.

    Example:
        >>> import torch
        >>> from eventclip import EventClassifier, IdentityAdapter, load_clip
        >>> encoder = load_clip("tiny")
        >>> text_features = encoder.encode_text(["a sketch image of a star", "a sketch image of an anchor"])
        >>> classifier = EventClassifier(encoder, IdentityAdapter(text_features, encoder.logit_scale))
        >>> views = torch.zeros(1, 4, 1, 64, 64, dtype=torch.uint8)  # a recording of four views, all valid
        >>> classifier(views).probabilities.shape
        torch.Size([1, 2])

    Args:
        encoder: CLIP.
        adapter: (B, V, D), (B, V) -> (B, V, K), see :class:`eventclip.adapters.paper.Adapter`.
        pooling: of the views' logits, "mean", "sum" or "max".

    Raises:
        UserError: a pooling that there is not.
    """

    def __init__(self, encoder: ClipEncoder, adapter: nn.Module, *, pooling: str = "mean") -> None:
        super().__init__()
        self.encoder = encoder
        self.adapter = adapter
        self.pooling = check_pooling(pooling)

    def forward(
        self, views: Tensor | None = None, valid: Tensor | None = None, *, features: Tensor | None = None
    ) -> Prediction:
        """Classify recordings by their views, or by features encoded before.

        Args:
            views: uint8 (B, V, C, S, S), C = 1 for gray; only the valid ones are encoded.
            valid: (B, V) bool, at least one view per recording; None where all are valid.
            features: (B, V, D) raw image features in place of views.

        Raises:
            UserError: outside of training, the logits of a recording are not finite.
        """
        given = features if views is None else views
        if given is None or (views is not None and features is not None):
            raise ValueError("give either views or features")
        if valid is None:
            valid = torch.ones(given.shape[:2], dtype=torch.bool, device=given.device)
        if features is None and views is not None:
            features = self.encode(views, valid)
        view_logits = self.adapter(features, valid)
        prediction = Prediction(
            pool_logits(view_logits, valid, self.pooling), pool_probabilities(view_logits, valid), view_logits
        )
        if not torch.is_grad_enabled():  # where something is told of recordings; a step of training shall not wait
            finite = (prediction.logits.isfinite() & prediction.probabilities.isfinite()).all(dim=-1)
            if not bool(finite.all()):  # a label with probability NaN is none
                raise UserError(
                    f"the logits of {int((~finite).sum())} of {len(finite)} recordings are not finite (NaN or "
                    f"infinity): CLIP's weights or what was learned are of no use, the training has diverged, or "
                    f"clip.precision=fp32 is needed"
                )
        return prediction

    def encode(self, views: Tensor, valid: Tensor) -> Tensor:
        """Raw features of the valid views: uint8 (B, V, C, S, S), (B, V) -> (B, V, D), zeros where invalid."""
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.encoder.parameters())
        with torch.set_grad_enabled(learns):
            encoded = self.encoder.encode_views(views[valid])
        features = encoded.new_zeros(*valid.shape, encoded.shape[-1])
        return features.masked_scatter(valid.unsqueeze(-1), encoded)

    def learned_state_dict(self) -> dict[str, Tensor]:
        """What learned, by name; frozen CLIP weights and everything that can be rebuilt are left out."""
        return {name: value.detach().cpu() for name, value in self._learned().items()}

    def load_learned_state_dict(self, state: dict[str, Tensor]) -> None:
        """Load what learned; a fitted adapter takes the size of what it was fitted from.

        Raises:
            UserError: a name is missing or unknown here, or a shape differs.
        """
        resize = getattr(self.adapter, "resize_for", None)
        if resize is not None:
            stored = {name.partition(".")[2]: value for name, value in state.items() if name.startswith("adapter.")}
            resize(stored)
        own = self._learned()
        for name in sorted(own.keys() ^ state.keys()):
            lacking = "the checkpoint lacks" if name in own else "the checkpoint has"
            raise UserError(
                f"{lacking} {name}, one of {len(own)} learned tensors here and {len(state)} there: give the adapter "
                f"and tuning it was trained with"
            )
        for name, value in own.items():
            if value.shape != state[name].shape:
                raise UserError(
                    f"{name} has shape {tuple(state[name].shape)} in the checkpoint and {tuple(value.shape)} here: "
                    f"give the adapter, CLIP and classes it was trained with"
                )
            if value.is_floating_point() != state[name].is_floating_point():
                raise UserError(f"{name} is of {state[name].dtype} in the checkpoint and of {value.dtype} here")
            with torch.no_grad():
                value.copy_(state[name])

    def _learned(self) -> dict[str, Tensor]:
        """Parameters that learn, and what the adapter keeps in persistent buffers (closed-form heads do)."""
        parameters = dict(self.named_parameters())
        kept = {f"adapter.{name}" for name in self.adapter.state_dict()} - parameters.keys()
        buffers = {name: value for name, value in self.named_buffers() if name in kept}
        return {name: value for name, value in parameters.items() if value.requires_grad} | buffers
