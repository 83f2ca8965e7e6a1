"""What learns in CLIP's image tower: nothing, all of it, some kinds of its parameters, or LoRA on its matrices.

LoRA: W + up · down with W frozen (arXiv 2106.09685); a convolution's weight is the matrix of its outputs and all that
each of them sees. Where the image tower learns, the paper has the text features
learn too and no further adapter: use `TextAdapter`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from eventclip.errors import UserError
from eventclip.models.encoder import ClipEncoder

# Where open_clip's towers have them: ViT, ResNet, and timm's behind open_clip's own head. A final dot: all below.
_PLACES = {
    "conv1": ("conv1.",),
    "projection": ("proj", "attnpool.c_proj.", "head."),
    "class_token": ("class_embedding",),
}
_NORMS = {"layernorm": nn.LayerNorm, "batchnorm": _BatchNorm}
KINDS = ("bias", "layernorm", "batchnorm", *_PLACES)
PARTS = ("frozen", "full", *KINDS, "lora")
LORA_TARGETS = ("qv", "qkv", "qkvo", "all")
# Children of an attention layer of timm's that are matrices of it; the first three tell that it is one.
_TIMM_MATRICES = ("qkv", "q", "q_proj", "k", "v", "kv", "k_proj", "v_proj", "proj", "out_proj", "o_proj")


class ParameterGroup(NamedTuple):
    """Parameters that learn at one rate.

    Attributes:
        name: "head" (the adapter, text features included), "lora", or "clip" (CLIP's own weights).
        parameters: all that learn, of this kind.
        factor: learning rate as a fraction of the base rate.
    """

    name: str
    parameters: list[nn.Parameter]
    factor: float


def tune(
    encoder: ClipEncoder,
    parts: str | Sequence[str] = "frozen",
    *,
    lora_targets: str = "qkvo",
    lora_rank: int = 16,
    seed: int = 0,
) -> None:
    """Let parts of the image tower learn and freeze the rest of CLIP.

    Args:
        encoder: CLIP in float32.
        parts: one of "frozen", "full" (the whole tower) and "lora", or one or several of "bias" (every bias, those of
            norms included), "layernorm", "batchnorm" (weights and biases; the statistics stay), "conv1" (the first
            convolution), "projection" (the last one, to the D features) and "class_token".
        lora_targets: "qv", "qkv", "qkvo" or "all", see :func:`add_lora`.
        lora_rank: rank of each LoRA pair.
        seed: of LoRA's initial weights.

    Raises:
        UserError: an unknown part, parts that exclude each other, one that this tower does not have, or weights stored
            in half precision.
    """
    chosen = [parts] if isinstance(parts, str) else list(dict.fromkeys(parts))
    for part in chosen:
        if part not in PARTS:
            raise UserError(f"tuning={part} is unknown: expected one of {', '.join(PARTS)}")
    if not chosen or (len(chosen) > 1 and not set(chosen) <= set(KINDS)):
        raise UserError(
            f"tuning={chosen} cannot be combined: expected one of {', '.join(PARTS)}, or several of {', '.join(KINDS)}"
        )
    if chosen != ["frozen"] and encoder.precision != "fp32":
        raise UserError(
            f"tuning={','.join(chosen)} with clip.precision={encoder.precision} would lose small steps to rounding: "
            "set clip.precision=fp32; the trainer's own mixed precision keeps float32 weights"
        )
    encoder.requires_grad_(requires_grad=False)
    if chosen == ["lora"]:
        add_lora(encoder, targets=lora_targets, rank=lora_rank, seed=seed)
        return
    for part in chosen:
        found = _parameters_of(encoder.visual, part)
        if not found and part != "frozen":
            arch = encoder.describe()["arch"]
            there = [kind for kind in KINDS if _parameters_of(encoder.visual, kind)]
            raise UserError(f"tuning={part}: the image tower of {arch} has none; it has {', '.join(there)} and full")
        for parameter in found:
            parameter.requires_grad_()


def parameter_groups(model: nn.Module, *, clip_factor: float = 0.1) -> list[ParameterGroup]:
    """Sort all that learns in `model` by learning rate; empty groups are left out.

    Args:
        model: holds a `ClipEncoder`, and whatever else learns.
        clip_factor: learning rate of CLIP's own weights as a fraction of the base rate; LoRA and the adapter learn at
            the base rate.
    """
    lora = _ids(model, LowRankUpdate)
    clip = _ids(model, ClipEncoder) - lora
    learns = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        ParameterGroup("head", [p for p in learns if id(p) not in clip | lora], 1.0),
        ParameterGroup("lora", [p for p in learns if id(p) in lora], 1.0),
        ParameterGroup("clip", [p for p in learns if id(p) in clip], clip_factor),
    ]
    return [group for group in groups if group.parameters]


def _parameters_of(visual: nn.Module, part: str) -> list[nn.Parameter]:
    named = dict(visual.named_parameters())
    if part == "full":
        return list(named.values())
    if part == "bias":
        return [parameter for name, parameter in named.items() if name.endswith("bias")]
    if part in _NORMS:
        norms = [module for module in visual.modules() if isinstance(module, _NORMS[part])]
        # Not those of what a norm holds: timm's have their activation inside.
        return [parameter for norm in norms for parameter in norm.parameters(recurse=False)]
    places = _PLACES.get(part, ())
    return [
        parameter
        for name, parameter in named.items()
        if any(name == place or (place.endswith(".") and name.startswith(place)) for place in places)
    ]


def _ids(model: nn.Module, kind: type[nn.Module]) -> set[int]:
    return {id(p) for module in model.modules() if isinstance(module, kind) for p in module.parameters()}


_Factors = nn.ParameterDict | Mapping[str, Tensor]


class LowRankUpdate(nn.Module):
    """Adds a low-rank product to (some row blocks of) a weight matrix: (R, C) -> (R, C).

    A convolution's weight (O, I, k, k) is updated as the matrix (O, I·k·k). No further scaling. `up` starts at zero, so
    that nothing changes before the first step; `down` is normal with standard deviation 1 / rank.

    Args:
        weight: (R, C) matrix or (O, I, k, k) convolution that is updated; it is read for its shape only.
        blocks: names of the equal row blocks it consists of; a fused attention weight has "q", "k" and "v".
        learned: the blocks that get a pair.
        rank: inner dimension of each pair, 1 up to the smaller side of a block.
        generator: draws `down`.
    """

    def __init__(
        self, weight: Tensor, blocks: Sequence[str], learned: Sequence[str], rank: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        rows, columns = _block_shape(weight, blocks)
        if not 1 <= rank <= min(rows, columns):
            raise UserError(f"tuning.lora_rank={rank} does not suit matrices of {rows}×{columns}: expected 1 or more")
        self.blocks = tuple(blocks)
        down = {name: torch.randn(rank, columns, generator=generator) / rank for name in learned}
        self.down = nn.ParameterDict({name: nn.Parameter(value.to(weight)) for name, value in down.items()})
        self.up = nn.ParameterDict({name: nn.Parameter(weight.new_zeros(rows, rank)) for name in learned})

    def forward(self, weight: Tensor) -> Tensor:
        """The updated weight, of the shape that was given."""
        return add_low_rank(weight, self.blocks, self.down, self.up)


def add_low_rank(weight: Tensor, blocks: Sequence[str], down: _Factors, up: _Factors) -> Tensor:
    """Add up · down to the row blocks of a weight that have a pair, see :class:`LowRankUpdate`."""
    updated = [
        block + (up[name] @ down[name]).view(block.shape) if name in up else block
        for name, block in zip(blocks, weight.chunk(len(blocks)), strict=True)
    ]
    return updated[0] if len(updated) == 1 else torch.cat(updated)


class _Matrix(NamedTuple):
    """A weight that LoRA can update, and what its equal row blocks make: q, k, v and o (output) of attention.

    Attributes:
        module: that holds it.
        weight: its name there.
        blocks: a letter each; "m" is a matrix as one.
    """

    module: nn.Module
    weight: str
    blocks: str


def add_lora(encoder: ClipEncoder, *, targets: str, rank: int, seed: int = 0) -> None:
    """Give matrices of the image tower low-rank pairs; the tower's own weights stay frozen.

    Args:
        encoder: for "qv", "qkv" and "qkvo" with one of open_clip's own towers: a ViT, or a ResNet (its attention pool).
        targets: "qv", "qkv" or "qkvo": a separate pair for each of these projections of attention. "all": these, the
            attention of timm's towers, and every convolution but grouped ones, for towers with little or no attention.
        rank: of each pair; of "all", a matrix with a shorter side has that as its rank.
        seed: of the initial weights; no global generator is touched.

    Raises:
        UserError: unknown targets, a rank that does not fit, nothing to adapt, or LoRA there already.
    """
    if targets not in LORA_TARGETS:
        raise UserError(f"tuning.lora_targets={targets} is unknown: expected one of {', '.join(LORA_TARGETS)}")
    if any(isinstance(module, LowRankUpdate) for module in encoder.modules()):
        raise UserError("this CLIP has LoRA weights already: merge them, or build the encoder again")
    every = targets == "all"
    matrices = list(_all_matrices(encoder.visual) if every else _attention_weights(encoder.visual))
    if not matrices:
        arch = encoder.describe()["arch"]
        if every:
            raise UserError(f"tuning.lora_targets=all: the image tower of {arch} has no convolution and no attention")
        raise UserError(
            f"tuning=lora with tuning.lora_targets={targets} needs a ViT or a ResNet of open_clip's own: the image "
            f"tower of {arch} has no attention of that kind, so set tuning.lora_targets=all, which adapts convolutions"
        )
    generator = torch.Generator().manual_seed(seed)
    for module, name, blocks in matrices:
        learned = [block for block in blocks if every or block in targets]
        if learned:
            weight = getattr(module, name)
            fitting = min(rank, *_block_shape(weight, blocks)) if every else rank
            update = LowRankUpdate(weight, blocks, learned, fitting, generator)
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


def _block_shape(weight: Tensor, blocks: Sequence[str]) -> tuple[int, int]:
    return weight.shape[0] // len(blocks), weight[0].numel()


def _all_matrices(visual: nn.Module) -> Iterator[_Matrix]:
    yield from (own := list(_attention_weights(visual)))
    taken = {module for module, _, _ in own}
    for module in visual.modules():
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            yield _Matrix(module, "weight", "m")
            continue
        parts = {name: part for name, part in module.named_children() if isinstance(part, nn.Linear)}
        if not any(name in parts for name in _TIMM_MATRICES[:3]):
            continue
        for name in _TIMM_MATRICES:
            if name in parts and parts[name] not in taken:
                thirds = name == "qkv" and parts[name].out_features % 3 == 0
                yield _Matrix(parts[name], "weight", "qkv" if thirds else "m")


def _attention_weights(visual: nn.Module) -> Iterator[_Matrix]:
    for module in visual.modules():
        if isinstance(module, AttentionPool2d):
            for block in "qkv":
                yield _Matrix(module.get_submodule(f"{block}_proj"), "weight", block)
            yield _Matrix(module.c_proj, "weight", "o")
        elif isinstance(getattr(module, "in_proj_weight", None), nn.Parameter):
            yield _Matrix(module, "in_proj_weight", "qkv")
            yield _Matrix(module.get_submodule("out_proj"), "weight", "o")
