"""What learns on top of a frozen CLIP: view features (B, V, D) and valid (B, V) -> view logits (B, V, K).

The paper's four (EventCLIP, section 3.3): identity (zero-shot), text, visual and joint. An adapter of one's own is a
module with that one contract, built from the classes' text features (K, D) and the logit scale; its parameters and its
persistent buffers are what a checkpoint keeps of it.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eventclip.adapters.view_transformer import ViewTransformer
from eventclip.errors import UserError


class Adapter(Protocol):
    """What the classifier asks of an adapter."""

    def __call__(self, features: Tensor, valid: Tensor) -> Tensor:
        """Raw view features (B, V, D), valid (B, V) bool -> view logits (B, V, K), zero for invalid views.

        Whatever the features of invalid views hold, NaN included, must not change anything.
        """


class IdentityAdapter(nn.Module):
    """CLIP as it is: the cosine between a view and each class's prompt, times the logit scale.

    Example:
        >>> import torch
        >>> from eventclip import IdentityAdapter
        >>> adapter = IdentityAdapter(torch.eye(3, 16), logit_scale=100.0)  # text features (K, D)
        >>> features, valid = torch.randn(2, 4, 16), torch.ones(2, 4, dtype=torch.bool)  # (B, V, D), (B, V)
        >>> adapter(features, valid).shape
        torch.Size([2, 4, 3])

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        normalize_image_features: False reproduces the reference's zero-shot protocol, whose raw image features make
            far too sharp probabilities.
    """

    open_vocabulary: ClassVar[bool] = True
    """Whether other classes' text features can take the place of those that it learned with."""
    text_features: Tensor

    def __init__(self, text_features: Tensor, logit_scale: float, *, normalize_image_features: bool = True) -> None:
        super().__init__()
        self.logit_scale = float(logit_scale)
        self.normalize_image_features = normalize_image_features
        self._hold_text(text_features.detach().clone())

    def _hold_text(self, text_features: Tensor) -> None:
        self.register_buffer("text_features", text_features, persistent=False)

    def adapt(self, features: Tensor, valid: Tensor) -> Tensor:
        """Image features (B, V, D) with zeros for invalid views -> (B, V, D)."""
        return features

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """View logits of raw view features.

        Args:
            features: (B, V, D) raw image features; what invalid views hold does not matter, NaN included.
            valid: (B, V) bool.

        Returns:
            (B, V, K) logits, zero for invalid views.
        """
        mask = valid.unsqueeze(-1)
        adapted = self.adapt(features.masked_fill(~mask, 0.0), valid)
        # Half precision would round logits of tens to a few hundredths, and raw features times 100 may overflow it.
        with torch.autocast(adapted.device.type, enabled=False):
            image = adapted.float()
            if self.normalize_image_features:
                image = F.normalize(image, dim=-1)
            logits = self.logit_scale * image @ F.normalize(self.text_features, dim=-1).T
        return logits.masked_fill(~mask, 0.0)


class TextAdapter(IdentityAdapter):
    """The classes' text features learn, from their prompts on; the image features stay as they are.

    Example:
        >>> import torch
        >>> from eventclip import TextAdapter
        >>> adapter = TextAdapter(torch.eye(3, 16), logit_scale=100.0)
        >>> [name for name, _ in adapter.named_parameters()]
        ['text_features']
    """

    open_vocabulary: ClassVar[bool] = False

    def __init__(self, text_features: Tensor, logit_scale: float) -> None:
        super().__init__(text_features, logit_scale)

    def _hold_text(self, text_features: Tensor) -> None:
        self.text_features = nn.Parameter(text_features)


class VisualAdapter(IdentityAdapter):
    """A small transformer lets the views of a recording see each other; its result is blended with the frozen features.

    Without position code: the order of views carries no meaning. Pre-norm, ReLU, no final norm.

    Example:
        >>> import torch
        >>> from eventclip import VisualAdapter
        >>> adapter = VisualAdapter(torch.eye(3, 16), logit_scale=100.0, width=32, heads=2).eval()
        >>> valid = torch.tensor([[True, True, False]])
        >>> adapter(torch.randn(1, 3, 16), valid)[0, 2].tolist()  # not a view
        [0.0, 0.0, 0.0]

    Args:
        text_features: (K, D).
        logit_scale: factor from cosine to logits.
        width: transformer width.
        layers: transformer layers.
        heads: attention heads; must divide ``width``.
        mlp_width: hidden width of the feed-forward parts.
        dropout: dropout probability.
        residual: weight of the frozen features, in [0, 1]; 0.8 in the paper, 0.95 on N-ImageNet.
    """

    def __init__(
        self,
        text_features: Tensor,
        logit_scale: float,
        *,
        width: int = 256,
        layers: int = 2,
        heads: int = 4,
        mlp_width: int = 1024,
        dropout: float = 0.1,
        residual: float = 0.8,
    ) -> None:
        super().__init__(text_features, logit_scale)
        if min(width, layers, heads, mlp_width) < 1 or width % heads:
            raise UserError(
                f"adapter.width={width}, layers={layers}, heads={heads} and mlp_width={mlp_width} must be 1 or "
                f"more and heads must divide width"
            )
        if not 0.0 <= residual <= 1.0 or not 0.0 <= dropout < 1.0:
            raise UserError(f"adapter.residual must lie in [0, 1] and dropout in [0, 1), got {residual} and {dropout}")
        dim = text_features.shape[-1]
        self.in_projection = nn.Linear(dim, width)
        self.transformer = ViewTransformer(width, layers, heads, mlp_width, dropout)
        self.out_projection = nn.Linear(width, dim)
        self.residual = residual

    def adapt(self, features: Tensor, valid: Tensor) -> Tensor:
        """Blend raw features with what the transformer makes of them."""
        mixed = self.transformer(self.in_projection(features), valid)
        return torch.lerp(self.out_projection(mixed), features, self.residual)


class JointAdapter(VisualAdapter):
    """Text and visual adapter together.

    Example:
        >>> import torch
        >>> from eventclip import JointAdapter
        >>> adapter = JointAdapter(torch.eye(3, 16), logit_scale=100.0, width=32, heads=2)
        >>> adapter.text_features.requires_grad
        True
    """

    open_vocabulary: ClassVar[bool] = False

    def _hold_text(self, text_features: Tensor) -> None:
        self.text_features = nn.Parameter(text_features)
