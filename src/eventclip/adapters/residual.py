"""Small trained changes of one side, as baselines: TaskRes on the text, CLIP-Adapter on the image features."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eventclip.adapters.choosing import positive
from eventclip.adapters.paper import IdentityAdapter
from eventclip.errors import UserError


class TaskResAdapter(IdentityAdapter):
    """The classes' text features stay, and what is added to them learns from 0 on (TaskRes, CVPR 2023).

    t'_k = t_k + alpha r_k, with unit t_k and r = 0 at the start.

    Example:
        >>> import torch
        >>> from eventclip.adapters.residual import TaskResAdapter
        >>> adapter = TaskResAdapter(torch.eye(3, 16), logit_scale=100.0)
        >>> [name for name, _ in adapter.named_parameters()]
        ['residual']

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        alpha: weight of what is added, above 0; the authors' is 0.5.

    Raises:
        UserError: an option outside its range.
    """

    open_vocabulary: ClassVar[bool] = False
    unit_text: Tensor

    def __init__(self, text_features: Tensor, logit_scale: float, *, alpha: float = 0.5) -> None:
        super().__init__(text_features, logit_scale)
        self.alpha = positive(alpha, "alpha")

    def _hold_text(self, text_features: Tensor) -> None:
        self.register_buffer("unit_text", F.normalize(text_features, dim=-1), persistent=False)
        self.residual = nn.Parameter(torch.zeros_like(text_features))

    @property
    def text_features(self) -> Tensor:  # type: ignore[override]
        """(K, D) text features with what was added to them."""
        return self.unit_text + self.alpha * self.residual


class CLIPAdapter(IdentityAdapter):
    """A bottleneck changes image features, and is blended with them (CLIP-Adapter, IJCV 2024).

    Two layers without bias, D to D / reduction and back, a ReLU after each. Far from CLIP's own images it is known to
    do badly.

    Example:
        >>> import torch
        >>> from eventclip.adapters.residual import CLIPAdapter
        >>> adapter = CLIPAdapter(torch.eye(3, 16), logit_scale=100.0)
        >>> adapter(torch.randn(2, 4, 16), torch.ones(2, 4, dtype=torch.bool)).shape
        torch.Size([2, 4, 3])

    Args:
        text_features: (K, D) text features of the classes.
        logit_scale: factor from cosine to logits.
        reduction: D over the width of the bottleneck, 1 to D.
        residual: weight of the frozen features, in [0, 1]; the authors' is 0.8.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(self, text_features: Tensor, logit_scale: float, *, reduction: int = 4, residual: float = 0.8) -> None:
        super().__init__(text_features, logit_scale)
        width = text_features.shape[-1]
        if not 1 <= reduction <= width:
            raise UserError(
                f"adapter.reduction must lie between 1 and the width of a feature, {width}, got {reduction}"
            )
        if not 0.0 <= residual <= 1.0:
            raise UserError(f"adapter.residual must lie in [0, 1], got {residual}")
        self.down = nn.Linear(width, width // reduction, bias=False)
        self.up = nn.Linear(width // reduction, width, bias=False)
        self.residual = residual

    def adapt(self, features: Tensor, valid: Tensor) -> Tensor:
        """Blend raw features with what the bottleneck makes of them."""
        return torch.lerp(F.relu(self.up(F.relu(self.down(features)))), features, self.residual)
