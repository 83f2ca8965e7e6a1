"""Dropout that is keyed by sample, so that several processes train as one does.

Torch draws dropout from one stream of random numbers: what a sample loses depends on the batch it is in, on its place
there and on the process that has it. Here it depends on the sample's key alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_STEP = -7046029254386353131  # 0x9E3779B97F4A7C15: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)
_MIX = ((30, -4658895280553007687), (27, -7723592293110705685))  # its shifts and factors
_SITE = 1 << 32  # numbers between the streams of two places in the network


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
