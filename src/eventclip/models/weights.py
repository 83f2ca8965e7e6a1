"""CLIP weights: where they come from, reading them without running code, and fitting them to a model."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from eventclip.errors import UserError
from eventclip.models.torchscript import is_torchscript, read_torchscript

# OpenAI's archives carry these numbers among their weights; a model has them in its shape.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
# Together only in CLIPs of OpenAI's layout: timm towers and separate text towers name them otherwise.
_OPENAI_NAMES = ("visual.conv1.weight", "token_embedding.weight", "text_projection", "ln_final.weight")
_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
READ_ERRORS = (
    pickle.UnpicklingError,
    SafetensorError,
    zipfile.BadZipFile,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


class WeightFile(NamedTuple):
    """The tensors of a weight file by name, and whether it is laid out as OpenAI publishes."""

    tensors: dict[str, Tensor]
    from_openai: bool


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
    if path.is_file():
        return path
    if path.suffix in _SUFFIXES or len(path.parts) > 1:
        raise UserError(f"clip.pretrained={pretrained} does not exist: expected a file with {arch}'s weights")
    tags = ", ".join(open_clip.list_pretrained_tags_by_model(arch)) or "none"
    raise UserError(f"clip.pretrained={pretrained} is neither a file nor a tag of {arch} (its tags: {tags})")


def read_weight_file(path: Path) -> WeightFile:
    """Read a state dict from `.safetensors`, a torch file, or the TorchScript archive OpenAI publishes.

    open_clip gives most layers OpenAI's names, so a plain state dict under these names counts as OpenAI's
    unless something else speaks for open_clip: the file is called as open_clip publishes (`open_clip_…`,
    `.bin`) or is one of its training checkpoints (the weights lie in `state_dict`).

    Raises:
        UserError: not such a file, or one that would have to run code to be read.
    """
    try:
        archive = is_torchscript(path)
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        elif archive:
            content = read_torchscript(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except READ_ERRORS as error:
        reason = str(error).strip() or type(error).__name__
        raise UserError(f"{path} cannot be read as weights: {reason.splitlines()[0]}") from error
    checkpoint = isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping)
    tensors = content["state_dict"] if checkpoint else content
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"{path} holds no state dict: expected a mapping from names to tensors")
    tensors = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    tensors = {name: tensor for name, tensor in tensors.items() if name not in _NOT_WEIGHTS}
    from_open_clip = checkpoint or path.suffix == ".bin" or path.name.startswith("open_clip")
    openai_names = all(name in tensors for name in _OPENAI_NAMES)
    return WeightFile(tensors, from_openai=archive or (openai_names and not from_open_clip))


def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], *, arch: str, source: Path) -> None:
    """Copy a state dict into `model`; every weight must be there and fit.

    Raises:
        UserError: weights are missing, unknown or of another shape; the first one is named.
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
    model.load_state_dict(given)


def weights_sha256(model: nn.Module) -> str:
    """Checksum the values of all floating-point tensors, as float32 in the order of their names.

    The same weights give the same sum whichever file, layout or precision they were stored in.
    """
    digest = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()
