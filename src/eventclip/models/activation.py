"""Which activation the weights of a local file were trained with, told by what is in or beside it, else asked for.

OpenAI's CLIPs have QuickGELU and most others GELU under the same names and shapes: the wrong one costs accuracy
without an error, and a file's name says nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor

from eventclip.errors import UserError
from eventclip.models.factory import Architecture, read_config
from eventclip.models.torchscript import activation, is_torchscript

# Together only in CLIPs of OpenAI's layout: timm towers and separate text towers name them otherwise.
_OPENAI_NAMES = ("visual.conv1.weight", "token_embedding.weight", "text_projection", "ln_final.weight")
BESIDE = "open_clip_config.json"
"""Published beside weights on the Hugging Face hub."""


def needs_quick_gelu(path: Path, architecture: Architecture, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the weights of a file need QuickGELU.

    Told, in this order, by the architecture itself; by the program in a TorchScript archive, the kind that OpenAI
    publishes; by ``open_clip_config.json`` beside the file; by the checksum of a file that open_clip has published.
    An architecture that open_clip has in one way only has GELU.

    Raises:
        UserError: none of these tells.
    """
    stated = architecture.options.get("quick_gelu")
    if stated is not None:
        return bool(stated)
    if is_torchscript(path):
        return activation(path) is not False
    if architecture.builtin:
        either = f"{architecture.name}-quickgelu" in open_clip.list_models()
    else:
        either = all(name in tensors for name in _OPENAI_NAMES)
    if not either:
        return False
    told = _beside(path, architecture)
    if told is None and architecture.builtin:
        told = _published(path, architecture.name)
    if told is None:
        raise UserError(
            f"{path} does not tell whether it needs QuickGELU, as OpenAI's weights do, or GELU, as most others: give "
            f"clip.quick_gelu=true or clip.quick_gelu=false"
        )
    return told


def _beside(path: Path, architecture: Architecture) -> bool | None:
    """What the configuration beside a file says, if it is of this architecture."""
    file = path.parent / BESIDE
    if not file.is_file():
        return None
    options, _ = read_config(file)

    def agree(ours: Any, theirs: Any) -> bool:
        if isinstance(ours, dict) and isinstance(theirs, dict):
            return all(agree(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())
        return bool(ours == theirs)

    same = all(agree(architecture.options[key], options[key]) for key in ("embed_dim", "vision_cfg", "text_cfg"))
    return bool(options.get("quick_gelu", False)) if same else None


def _published(path: Path, name: str) -> bool | None:
    """What open_clip knows of a file that it published, by the checksum in the file's address."""
    known = {}
    for arch in (name, f"{name}-quickgelu"):
        for tag in open_clip.list_pretrained_tags_by_model(arch):
            published = open_clip.get_pretrained_cfg(arch, tag)
            address = str(published.get("url", ""))
            folder, _, file = address.rpartition("/")
            if "openaipublic" in address:
                known[folder.rpartition("/")[2]] = bool(published.get("quick_gelu", False))
            elif "mlfoundations" in address:
                known[file.rpartition(".")[0].rpartition("-")[2]] = bool(published.get("quick_gelu", False))
    digest = hashlib.sha256()
    with path.open("rb") as content:
        while block := content.read(2**22):
            digest.update(block)
    checksum = digest.hexdigest()
    return next((quick for start, quick in known.items() if len(start) >= 8 and checksum.startswith(start)), None)
