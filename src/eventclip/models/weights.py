"""CLIP weights: where they come from, reading them without running code, and fitting them to a model.

And which activation they were trained with: OpenAI's CLIPs have QuickGELU and most others GELU under the same names and
shapes. The wrong one costs accuracy without an error, and a file's name says nothing.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from eventclip.errors import UserError
from eventclip.models.architecture import Architecture, read_config
from eventclip.models.torch_files import (
    activation,
    is_finite,
    is_torchscript,
    load_tensors,
    read_torchscript,
    refuse_other_kinds,
    unreadable,
)

# OpenAI's archives carry these numbers among their weights; a model has them in its shape.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # of checkpoints of other programs
_PREFIXES = ("module.", "model.", "_orig_mod.")  # of torch's data parallelism, Lightning, and torch.compile
# Together only in CLIPs of OpenAI's layout: timm towers and separate text towers name them otherwise.
_OPENAI_NAMES = ("visual.conv1.weight", "token_embedding.weight", "text_projection", "ln_final.weight")
BESIDE = "open_clip_config.json"
"""Published beside weights on the Hugging Face hub."""


def download_weights(arch: str, tag: str, cache_dir: str | None) -> Path:
    """Get the published weights `tag` of the built-in architecture `arch` -> path in the cache.

    Raises:
        UserError: they are neither cached nor can they be downloaded.
    """
    published = open_clip.get_pretrained_cfg(arch, tag)
    try:
        return Path(open_clip.download_pretrained(published, cache_dir=cache_dir))
    except (OSError, RuntimeError) as error:
        hub = published.get("hf_hub", "").strip("/")
        source = f"the Hugging Face hub ({hub})" if hub else published.get("url")
        raise UserError(
            f"the weights '{tag}' of {arch} are not cached and cannot be downloaded from {source}; "
            "give a local file instead with clip.pretrained=/path/to/weights"
        ) from error


def find_weight_file(arch: str, pretrained: str) -> Path:
    """Take `pretrained`, which is no tag of `arch`, as a file.

    Raises:
        UserError: there is no such file; the tags of `arch` are listed where a tag may have been meant.
    """
    path = Path(pretrained).expanduser()
    refuse_other_kinds(path)
    if path.is_file():
        return path
    if path.suffix in _SUFFIXES or len(path.parts) > 1:
        raise UserError(f"clip.pretrained={pretrained} does not exist: expected a file with {arch}'s weights")
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
    raise UserError(f"clip.pretrained={pretrained} is neither a file nor a tag of {arch} (its tags: {tags})")


def read_weight_file(path: Path) -> dict[str, Tensor]:
    """Read a state dict from `.safetensors`, a torch file, or the TorchScript archive OpenAI publishes.

    Checkpoints that hold it as "state_dict", "model_state_dict" or "model" are understood, and so are names that
    all begin with what data parallelism, Lightning or torch.compile put before them.

    Raises:
        UserError: not such a file, or one that would have to run code to be read.
    """
    refuse_other_kinds(path)
    content: Any
    if path.suffix != ".safetensors" and not zipfile.is_zipfile(path):
        content = load_tensors(path, "weights")
    else:
        try:
            if path.suffix == ".safetensors":
                content = load_file(path)
            else:
                content = read_torchscript(path) if is_torchscript(path) else load_tensors(path, "weights")
        except UserError:
            raise
        except Exception as error:  # a damaged archive may fail anywhere
            raise unreadable(path, "weights", error) from error
    tensors = content
    for wrapper in _WRAPPERS:
        if isinstance(tensors, Mapping) and isinstance(tensors.get(wrapper), Mapping):
            tensors = tensors[wrapper]
            break
    if (
        not isinstance(tensors, Mapping)
        or not tensors
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items())
    ):
        raise UserError(f"{path} holds no state dict: expected a mapping from names to tensors")
    tensors = {name: tensor for name, tensor in tensors.items() if name not in _NOT_WEIGHTS}
    while prefix := next((p for p in _PREFIXES if tensors and all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def fill(model: nn.Module, source: Path, tensors: Mapping[str, Tensor], *, arch: str) -> None:
    """Copy weights into `model`.

    Args:
        model: built for `arch`.
        source: the file they are of.
        tensors: its state dict; empty for published weights, which come in more formats than ours and which open_clip
            reads itself.
        arch: for messages.

    Raises:
        UserError: the file is damaged, does not fit, or holds values that are not finite.
    """
    if tensors:
        load_weights(model, tensors, arch=arch, source=source)
    else:
        _load_published_weights(model, source)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not is_finite(value):
            raise UserError(
                f"the weights in {source} are of no use: {name} holds values that are not finite (NaN or infinity), so "
                f"download or convert them again"
            )


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, arch: str, source: Path) -> None:
    """Copy a state dict into `model`; every weight must be there and fit.

    Raises:
        UserError: weights are missing, unknown, of another shape or no numbers; the first one is named.
    """
    given = dict(tensors)
    expected = model.state_dict()
    if isinstance(model, open_clip.CustomTextCLIP):
        given = convert_to_custom_text_state_dict(given)
    for name in ("logit_scale", "logit_bias"):
        if name in given and name in expected and given[name].numel() == expected[name].numel():
            given[name] = given[name].reshape(expected[name].shape)  # () and (1,) are both in circulation
    missing = sorted(expected.keys() - given.keys())
    unknown = sorted(given.keys() - expected.keys())
    reshaped = sorted(k for k in expected.keys() & given.keys() if expected[k].shape != given[k].shape)
    if missing or unknown or reshaped:
        problems = [f"{len(missing)} missing (first: {missing[0]})"] if missing else []
        if unknown:
            problems.append(f"{len(unknown)} unknown (first: {unknown[0]})")
        if reshaped:
            name = reshaped[0]
            shapes = f"{name} is {tuple(given[name].shape)}, expected {tuple(expected[name].shape)}"
            problems.append(f"{len(reshaped)} of another shape (first: {shapes})")
        raise UserError(
            f"the weights in {source} do not fit {arch}: {', '.join(problems)}; "
            "set clip.arch or clip.config to what they were trained for"
        )
    for name, value in expected.items():
        if value.is_floating_point() and not given[name].is_floating_point():
            raise UserError(f"the weights in {source} do not fit {arch}: {name} is of {given[name].dtype}")
        if given[name].layout != torch.strided or given[name].device.type != "cpu":
            raise UserError(f"the weights in {source} do not fit {arch}: {name} is no plain tensor")
    model.load_state_dict(given)


def _load_published_weights(model: nn.Module, source: Path) -> None:
    try:
        open_clip.load_checkpoint(model, str(source), weights_only=True)
    except Exception as error:  # a damaged file may fail anywhere
        raise UserError(
            f"the downloaded weights {source} are damaged ({type(error).__name__}): remove the file, so that it is "
            f"downloaded again"
        ) from error


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
