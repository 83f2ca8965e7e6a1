"""LoRA on the attention of CLIP's image tower: W + up · down with W frozen (arXiv 2106.09685)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor, nn
from torch.nn.utils import parametrize

from eventclip.errors import UserError
from eventclip.models.encoder import ClipEncoder

TARGETS = ("qv", "qkv", "qkvo")


class LowRankUpdate(nn.Module):
    """Adds a low-rank product to (some row blocks of) a weight matrix: (R, C) -> (R, C).

    No further scaling. `up` starts at zero, so that nothing changes before the first step; `down` is normal with
    standard deviation 1 / rank.

    Args:
        weight: (R, C) matrix that is updated; it is read for its shape only.
        blocks: names of the equal row blocks it consists of; a fused attention weight has "q", "k" and "v".
        learned: the blocks that get a pair.
        rank: inner dimension of each pair, 1 up to the smaller side of a block.
        generator: draws `down`.
    """

    def __init__(
        self, weight: Tensor, blocks: Sequence[str], learned: Sequence[str], rank: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        rows, columns = weight.shape[0] // len(blocks), weight.shape[1]
        if not 1 <= rank <= min(rows, columns):
            raise UserError(f"tuning.lora_rank={rank} does not suit matrices of {rows}×{columns}: expected 1 or more")
        self.blocks = tuple(blocks)
        down = {name: torch.randn(rank, columns, generator=generator) / rank for name in learned}
        self.down = nn.ParameterDict({name: nn.Parameter(value.to(weight)) for name, value in down.items()})
        self.up = nn.ParameterDict({name: nn.Parameter(weight.new_zeros(rows, rank)) for name in learned})

    def forward(self, weight: Tensor) -> Tensor:
        """The updated weight (R, C)."""
        rows = weight.chunk(len(self.blocks))
        updated = [
            block + self.up[name] @ self.down[name] if name in self.up else block
            for name, block in zip(self.blocks, rows, strict=True)
        ]
        return updated[0] if len(updated) == 1 else torch.cat(updated)


class _Attention(NamedTuple):
    """One weight matrix of an attention layer, and which of q, k, v and o (output) its rows make."""

    module: nn.Module
    weight: str
    blocks: str


def add_lora(encoder: ClipEncoder, *, targets: str, rank: int, seed: int = 0) -> None:
    """Give every attention layer of the image tower low-rank pairs; the tower's own weights stay frozen.

    Args:
        encoder: with one of open_clip's own towers: a ViT, or a ResNet (its attention pool).
        targets: "qv", "qkv" or "qkvo": a separate pair for each of these projections.
        rank: of each pair.
        seed: of the initial weights; no global generator is touched.

    Raises:
        UserError: unknown targets, a rank that does not fit, no attention to adapt, or LoRA there already.
    """
    if targets not in TARGETS:
        raise UserError(f"tuning.lora_targets={targets} is unknown: expected one of {', '.join(TARGETS)}")
    if any(isinstance(module, LowRankUpdate) for module in encoder.modules()):
        raise UserError("this CLIP has LoRA weights already: merge them, or build the encoder again")
    generator = torch.Generator().manual_seed(seed)
    matrices = list(_attention_weights(encoder.visual))
    if not matrices:
        raise UserError(
            f"tuning=lora needs a ViT or a ResNet of open_clip's own: the image tower of "
            f"{encoder.describe()['arch']} has no attention of that kind"
        )
    for module, name, blocks in matrices:
        learned = [block for block in blocks if block in targets]
        if learned:
            update = LowRankUpdate(getattr(module, name), blocks, learned, rank, generator)
            parametrize.register_parametrization(module, name, update)


def merge_lora(encoder: ClipEncoder) -> None:
    """Put the low-rank products into the weights they update, so that the tower is as fast as before LoRA.

    The result gives the same features and has nothing that learns: save what learned before merging.
    """
    for module in list(encoder.visual.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for name, updates in list(module.parametrizations.items()):  # type: ignore[union-attr,operator]
            if any(isinstance(update, LowRankUpdate) for update in updates):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _attention_weights(visual: nn.Module) -> Iterator[_Attention]:
    for module in visual.modules():
        if isinstance(module, AttentionPool2d):
            for block in "qkv":
                yield _Attention(module.get_submodule(f"{block}_proj"), "weight", block)
            yield _Attention(module.c_proj, "weight", "o")
        elif isinstance(getattr(module, "in_proj_weight", None), nn.Parameter):
            yield _Attention(module, "in_proj_weight", "qkv")
            yield _Attention(module.get_submodule("out_proj"), "weight", "o")
