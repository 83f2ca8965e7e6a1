"""Which CLIP to build: one of open_clip's by name, or a user's own from a JSON file."""

from __future__ import annotations

import difflib
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer
from open_clip.transformer import LayerNormFp32
from torch import nn

from eventclip.errors import UserError, reason
from eventclip.files import read_json
from eventclip.models.encoder import PRECISIONS, Tokenizer

_REQUIRED_KEYS = ("embed_dim", "vision_cfg", "text_cfg")
_TOKENIZER_OPTIONS = {"clean", "strip_sep_token", "language"}  # others go on to a library that takes "trust" among them
_LONGEST_CONFIG = 2**20
_LARGEST = {"layers": 512, "context_length": 8192, "image_size": 8192, "vocab_size": 10_000_000}
_LARGEST_SIZE = 100_000


@dataclass(frozen=True)
class Architecture:
    """A CLIP's shape, before any weights.

    Attributes:
        name: open_clip's name, or the one a user's own configuration goes by.
        options: open_clip's model configuration (embed_dim, vision_cfg, text_cfg, …).
        builtin: whether open_clip ships it, so that published weights exist under tags.
        preprocess: pixel mean and std that the configuration file states, or on which all published weights
            of a built-in architecture agree; empty where neither is so.
    """

    name: str
    options: dict[str, Any]
    builtin: bool
    preprocess: dict[str, Any]


def find_architecture(arch: str | None, config: str | Path | None) -> Architecture:
    """Look up a built-in architecture, or read one from `config`.

    Args:
        arch: an open_clip name; OpenAI's spelling ("ViT-B/32", "ViT-L/14@336px") is understood too. With
            `config` it only names the result, and the file's stem does so where `arch` is null or names
            one of open_clip's.
        config: JSON file of an architecture, open_clip's model configuration itself or the
            `open_clip_config.json` published beside weights (`model_cfg` and `preprocess_cfg`).

    Raises:
        UserError: unknown name, or a file that is missing or is not such a configuration.
    """
    name = None if arch is None else arch.replace("@336px", "-336").replace("/", "-")
    if config is not None:
        options, preprocess = read_config(Path(config).expanduser())
        if name is None or open_clip.get_model_config(name) is not None:
            name = Path(config).stem
        return Architecture(name, options, builtin=False, preprocess=preprocess)
    if name is None:
        raise UserError("no CLIP was named: set clip.arch to an open_clip name or clip.config to a JSON file")
    if ":" in name or (builtin := open_clip.get_model_config(name)) is None:
        known = {known.lower(): known for known in open_clip.list_models()}
        close = [known[match] for match in difflib.get_close_matches(name.lower(), known, n=5, cutoff=0.5)]
        hint = f"did you mean {', '.join(close)}?" if close else "open_clip.list_models() lists them"
        raise UserError(f"clip.arch={arch} is no architecture of open_clip ({hint})")
    tags = [open_clip.get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    stated = [{key: tag[key] for key in ("mean", "std") if key in tag} for tag in tags]
    agreed = stated[0] if stated and all(other == stated[0] for other in stated) else {}
    return Architecture(name, builtin, builtin=True, preprocess=agreed)


def build_clip(architecture: Architecture, *, quick_gelu: bool, precision: str, seed: int) -> nn.Module:
    """Build the untrained model in float32, shaped for `precision`, its weights drawn from `seed` alone.

    Args:
        architecture: what to build.
        quick_gelu: whether activations are x·sigmoid(1.702·x), which OpenAI's weights were trained with.
        precision: "fp32", "fp16" or "bf16"; decides only how norms are built, see `lower_precision`.
        seed: of the weights; the global generators are left as they were.

    Raises:
        UserError: open_clip cannot build it (wrong options, or a package it needs is missing).
    """
    options = deepcopy(architecture.options)
    options["quick_gelu"] = quick_gelu
    if "timm_model_name" in options["vision_cfg"]:
        options["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in options["text_cfg"]:
        options["text_cfg"]["hf_model_pretrained"] = False
    custom_text = options.pop("custom_text", False) or "hf_model_name" in options["text_cfg"]
    if "multimodal_cfg" in options:
        kind = open_clip.CoCa
    else:
        kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    cast_dtype = None if precision == "fp32" else PRECISIONS[precision]
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed the GPUs' generators as well, which nothing restores.
        torch.default_generator.manual_seed(seed)
        try:
            model: nn.Module = kind(**options, cast_dtype=cast_dtype)
        except Exception as error:  # open_clip checks little: a wrong option may fail anywhere in it
            why = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no reason given'}"
            raise UserError(
                f"open_clip cannot build {architecture.name} ({why}); check its options and packages"
            ) from error
    return model


def lower_precision(model: nn.Module, architecture: Architecture, precision: str) -> None:
    """Store the weights in half precision where open_clip does so; "fp32" changes nothing."""
    if precision == "fp32":
        return
    dtype = PRECISIONS[precision]
    options = architecture.options
    if "timm_model_name" in options["vision_cfg"] or "hf_model_name" in options["text_cfg"]:
        # open_clip's own conversion only knows its own layers.
        model.to(dtype)
        for module in model.modules():
            if isinstance(module, LayerNormFp32):
                module.float()
    else:
        open_clip.convert_weights_to_lp(model, dtype=dtype)


def build_tokenizer(architecture: Architecture, cache_dir: str | None) -> Tokenizer:
    """Get what turns prompts into the token numbers of this architecture's text tower.

    Raises:
        UserError: the tokenizer has to be downloaded and cannot be, or a package it needs is missing.
    """
    text = architecture.options["text_cfg"]
    try:
        tokenizer: Tokenizer
        if architecture.builtin:
            tokenizer = open_clip.get_tokenizer(architecture.name, cache_dir=cache_dir)
        elif text.get("hf_tokenizer_name"):
            tokenizer = HFTokenizer(
                text["hf_tokenizer_name"],
                context_length=text.get("context_length", 77),
                cache_dir=cache_dir,
                tokenizer_mode=text.get("tokenizer_mode"),
                **text.get("tokenizer_kwargs", {}),
            )
        else:
            tokenizer = open_clip.SimpleTokenizer(context_length=text.get("context_length", 77))
    except Exception as error:  # as many kinds as there are tokenizers
        raise UserError(f"the tokenizer of {architecture.name} is not available: {reason(error)}") from error
    return tokenizer


def read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read (model options, pixel mean and std) from the JSON file of an architecture.

    Raises:
        UserError: no such file, or not such a configuration.
    """
    what = f"clip.config={path}"
    try:
        content = read_json(path, largest=_LONGEST_CONFIG)
    except OSError as error:
        raise UserError(f"{what} cannot be read ({reason(error)}): give the JSON file of an architecture") from error
    except ValueError as error:
        raise UserError(f"{what} is not JSON: {reason(error)}") from error
    preprocess: dict[str, Any] = {}
    if isinstance(content, dict) and "model_cfg" in content:
        given = content.get("preprocess_cfg", {})
        preprocess = {k: v for k, v in given.items() if k in {"mean", "std"}} if isinstance(given, dict) else {}
        content = content["model_cfg"]
    missing = [key for key in _REQUIRED_KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{what} describes no CLIP: it lacks {', '.join(missing)}")
    _check_options(what, content)
    for key, value in preprocess.items():
        if not isinstance(value, list) or len(value) != 3 or not all(_is_number(part) for part in value):
            raise UserError(f"{what} says {key}={value!r:.80}, expected three numbers")
    return content, preprocess


def _check_options(what: str, options: dict[str, Any]) -> None:
    """Refuse options of another kind than open_clip's, and sizes at which building would not end."""
    for key in ("vision_cfg", "text_cfg"):
        if not isinstance(options[key], dict):
            raise UserError(f"{what} says {key}={options[key]!r:.80}, expected a mapping")
    if type(options["embed_dim"]) is not int:
        raise UserError(f"{what} says embed_dim={options['embed_dim']!r:.80}, expected a whole number")
    if not isinstance(options.get("quick_gelu"), bool | None):
        raise UserError(f"{what} says quick_gelu={options['quick_gelu']!r:.80}, expected true or false")
    further = options["text_cfg"].get("tokenizer_kwargs") or {}
    foreign = sorted(set(further) - _TOKENIZER_OPTIONS) if isinstance(further, dict) else [str(further)]
    if foreign:
        raise UserError(f"{what} gives the tokenizer {foreign[0]}, which could run code: expected no such option")
    _check_sizes(what, options)


def _check_sizes(what: str, options: dict[str, Any]) -> None:
    """Refuse sizes that no CLIP has, and images smaller than a patch."""
    for part in (options, options["vision_cfg"], options["text_cfg"]):
        for key, value in part.items():
            for size in value if isinstance(value, list) else [value]:
                largest = _LARGEST.get(key, _LARGEST_SIZE)
                if isinstance(size, int | float) and not -largest <= size <= largest:
                    raise UserError(f"{what} says {key:.80}={size!r:.80}, expected at most {largest}")
    image, patch = (options["vision_cfg"].get(key) for key in ("image_size", "patch_size"))
    if isinstance(image, int) and isinstance(patch, int) and image < patch:
        raise UserError(f"{what} says image_size={image}, expected patch_size={patch} or more")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST_SIZE < value < _LARGEST_SIZE
