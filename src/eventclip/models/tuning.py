"""What learns in CLIP's image tower: nothing, all of it, some kinds of its parameters, or LoRA.

Where the image tower learns, the paper has the text features learn too and no further adapter: use `TextAdapter`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from eventclip.errors import UserError
from eventclip.models.encoder import ClipEncoder
from eventclip.models.lora import LowRankUpdate, add_lora

# Where open_clip's towers have them: ViT, ResNet, and timm's behind open_clip's own head. A final dot: all below.
_PLACES = {
    "conv1": ("conv1.",),
    "projection": ("proj", "attnpool.c_proj.", "head."),
    "class_token": ("class_embedding",),
}
KINDS = ("bias", "layernorm", *_PLACES)
PARTS = ("frozen", "full", *KINDS, "lora")


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
            norms included), "layernorm", "conv1" (the first convolution), "projection" (the last one, to the D
            features) and "class_token".
        lora_targets: "qv", "qkv" or "qkvo", see `lora.add_lora`.
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
    if part == "layernorm":
        norms = [module for module in visual.modules() if isinstance(module, nn.LayerNorm)]
        return [parameter for norm in norms for parameter in norm.parameters()]
    places = _PLACES.get(part, ())
    return [
        parameter
        for name, parameter in named.items()
        if any(name == place or (place.endswith(".") and name.startswith(place)) for place in places)
    ]


def _ids(model: nn.Module, kind: type[nn.Module]) -> set[int]:
    return {id(p) for module in model.modules() if isinstance(module, kind) for p in module.parameters()}
