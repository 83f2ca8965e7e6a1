"""Read checkpoints of the paper's published implementation: its names of what learned -> ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from eventclip.errors import UserError
from eventclip.models.torch_files import is_bad_tensor, load_tensors

_IGNORED = "adapter.dummy"  # holds nothing; it keeps the reference's identity adapter from having no parameters
_RENAMED = [
    (r"text_feats", r"adapter.text_features"),
    (r"adapter\.(in|out)_proj\.(weight|bias)", r"adapter.\1_projection.\2"),
    (r"adapter\.transformer_encoder\.(.+)", r"adapter.transformer.\1"),
    (
        r"model\.visual\.(.+)\.in_proj_weight\.lora_(down|up)_([qkv])",
        r"encoder.visual.\1.parametrizations.in_proj_weight.0.\2.\3",
    ),
    (
        r"model\.visual\.(.+)\.out_proj\.lora_(down|up)\.weight",
        r"encoder.visual.\1.out_proj.parametrizations.weight.0.\2.o",
    ),
    (r"model\.visual\.((?!.*lora_).+)", r"encoder.visual.\1"),
]


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a state dict of the reference for `EventClassifier.load_learned_state_dict`.

    The classifier has to be built alike: text adapter for `text-identity`, visual for `trans`, joint for `text-trans`.
    Heads and residual are not stored there; take them from the paper's settings (the defaults of `VisualAdapter`).

    Raises:
        UserError: a name that the reference does not use.
    """
    renamed = {}
    for name, tensor in state.items():
        if name == _IGNORED:
            continue
        for pattern, ours in _RENAMED:
            if match := re.fullmatch(pattern, name):
                renamed[match.expand(ours)] = tensor
                break
        else:
            raise UserError(f"{name} is no learned tensor of the reference implementation: give one of its checkpoints")
    return renamed


def load_reference_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read a `.pth` of the reference, without running code -> its `state_dict` under our names.

    Raises:
        UserError: no such file, one that cannot be read, or not such a checkpoint.
    """
    path = Path(path).expanduser()
    content = load_tensors(path, "a checkpoint of the reference")
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise UserError(f"{path} is no checkpoint of the reference: expected tensors by name under 'state_dict'")
    try:
        renamed = from_reference(state)
    except UserError as error:
        raise UserError(f"{path} is no checkpoint of the reference: {error}") from error
    for name, value in renamed.items():
        flaw = is_bad_tensor(value)
        if flaw is not None:
            raise UserError(f"{path} is of no use: what becomes {name} {flaw}; give another checkpoint")
    return renamed
