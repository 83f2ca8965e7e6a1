"""The transformer of the visual adapter (EventCLIP, section 3.3): torch's encoder, but for dropout keyed by sample.

Torch draws dropout from one stream of random numbers: what a sample loses depends on the batch it is in, on its place
there and on the process that has it. Here it depends on the sample's key alone, so that several processes train as one
does.
"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STEP = -7046029254386353131  # 0x9E3779B97F4A7C15: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)
_MIX = ((30, -4658895280553007687), (27, -7723592293110705685))  # its shifts and factors
_SITE = 1 << 32  # numbers between the streams of two places in the network


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
        query, key, value = projected.reshape(*valid.shape, 3, self.heads, views.shape[-1] // self.heads).permute(
            2, 0, 3, 1, 4
        )
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        weights = scores.masked_fill(~valid[:, None, None, :], -math.inf).softmax(dim=-1)
        seen: Tensor = self.drop_weights(weights) @ value
        mixed: Tensor = self.out_proj(seen.transpose(1, 2).flatten(-2))
        return mixed


class SampleDropout(nn.Module):
    """Dropout whose draw for a sample depends on that sample's key and on nothing else.

    Without keys it is torch's own dropout, drawn from the global generator.

    Args:
        p: probability of a zero, in [0, 1).
        site: number of this place in the network; two places drop independently.

    Attributes:
        keys: (B,) int64, a random number for each sample of the next batch, see :func:`set_dropout_keys`.
    """

    def __init__(self, p: float, site: int = 0) -> None:
        super().__init__()
        self.p, self.site = p, site
        self.keys: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop entries of (B, ...) in training mode, and scale what is kept by 1 / (1 - p).

        Raises:
            ValueError: keys for another number of samples.
        """
        if not self.training or self.p == 0.0:
            return x
        if self.keys is None:
            return F.dropout(x, self.p)
        if len(self.keys) != len(x):
            raise ValueError(f"{len(self.keys)} dropout keys for {len(x)} samples: set them anew for each batch")
        kept = keyed_uniform(self.keys, self.site, x[0].numel()) >= self.p
        return x * (kept.reshape(x.shape) / (1 - self.p)).to(x.dtype)


def set_dropout_keys(network: nn.Module, keys: Tensor | None) -> None:
    """Give the samples of the next batch their keys, wherever ``network`` drops.

    Args:
        network: any module; its :class:`SampleDropout` parts are told.
        keys: (B,) int64 on the network's device; None for torch's own dropout.
    """
    for module in network.modules():
        if isinstance(module, SampleDropout):
            module.keys = keys


def keyed_uniform(keys: Tensor, site: int, count: int) -> Tensor:
    """Draw ``count`` numbers for each key: (B,) int64 -> (B, count) float32, uniform in [0, 1).

    SplitMix64 in whole-number arithmetic, so that all devices agree to the last bit.
    """
    places = torch.arange(count, device=keys.device) + (site * _SITE + 1)
    mixed = keys.unsqueeze(1) + places * _STEP
    for bits, factor in _MIX:
        mixed = (mixed ^ _shifted(mixed, bits)) * factor
    return _shifted(mixed ^ _shifted(mixed, 31), 40).float() * 2.0**-24


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shift int64 to the right as if it had no sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
