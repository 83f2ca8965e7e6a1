"""The transformer of the visual adapter (EventCLIP, section 3.3): torch's encoder, but for dropout keyed by sample."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eventclip.adapters.dropout import SampleDropout


class ViewTransformer(nn.Module):
    """Pre-norm transformer over the views of a recording, without position code or final norm: (B, V, D) -> (B, V, D).

    Parameters have the names, shapes and first values of ``torch.nn.TransformerEncoder``, where all layers begin alike.

    Args:
        width: D.
        layers: number of layers.
        heads: attention heads; must divide ``width``.
        mlp_width: hidden width of the feed-forward parts.
        dropout: probability, of attention weights, of hidden units and of what each part adds.
    """

    def __init__(self, width: int, layers: int, heads: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        first = _Layer(width, heads, mlp_width, dropout)
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(layers))
        places = [module for module in self.modules() if isinstance(module, SampleDropout)]
        for site, module in enumerate(places):
            module.site = site

    def forward(self, views: Tensor, valid: Tensor) -> Tensor:
        """Let the valid views, (B, V) bool and at least one of each recording, see each other."""
        for layer in self.layers:
            views = layer(views, valid)
        return views


class _Layer(nn.Module):
    """Attention, then a feed-forward part, each on normalised views and added to what came in."""

    def __init__(self, width: int, heads: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = _Attention(width, heads, dropout)
        self.linear1, self.linear2 = nn.Linear(width, mlp_width), nn.Linear(mlp_width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop_seen, self.drop_hidden, self.drop_added = (SampleDropout(dropout) for _ in range(3))

    def forward(self, views: Tensor, valid: Tensor) -> Tensor:
        views = views + self.drop_seen(self.self_attn(self.norm1(views), valid))
        hidden = self.drop_hidden(F.relu(self.linear1(self.norm2(views))))
        added: Tensor = self.drop_added(self.linear2(hidden))
        return views + added


class _Attention(nn.Module):
    """Multi-head self-attention among valid views: (B, V, D), (B, V) -> (B, V, D)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.out_proj = nn.Linear(width, width)  # drawn first, as torch does
        nn.init.zeros_(self.out_proj.bias)
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.drop_weights = SampleDropout(dropout)

    def forward(self, views: Tensor, valid: Tensor) -> Tensor:
        projected = F.linear(views, self.in_proj_weight, self.in_proj_bias)
        # three of (B, heads, V, D / heads)
        query, key, value = projected.reshape(*valid.shape, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(~valid[:, None, None, :], -math.inf).softmax(dim=-1)
        seen: Tensor = self.drop_weights(weights) @ value
        mixed: Tensor = self.out_proj(seen.transpose(1, 2).flatten(-2))
        return mixed
