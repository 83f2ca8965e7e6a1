"""Which CLIP to build: one of open_clip's by name, or a user's own from a JSON file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer
from open_clip.transformer import LayerNormFp32
from torch import Tensor, nn

from eventclip.errors import UserError

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_REQUIRED_KEYS = ("embed_dim", "vision_cfg", "text_cfg")

Tokenizer = Callable[[Sequence[str]], Tensor]


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
        options, preprocess = _read_config(Path(config).expanduser())
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
        except (AssertionError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}"
            raise UserError(
                f"open_clip cannot build {architecture.name} ({reason}); check its options and packages"
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
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the tokenizer of {architecture.name} is not available: {reason}") from error
    return tokenizer


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read (model options, pixel mean and std) from a JSON file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"clip.config={path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"clip.config={path} is not JSON: {error}") from error
    preprocess: dict[str, Any] = {}
    if isinstance(content, dict) and "model_cfg" in content:
        preprocess = {k: v for k, v in content.get("preprocess_cfg", {}).items() if k in {"mean", "std"}}
        content = content["model_cfg"]
    missing = [key for key in _REQUIRED_KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"clip.config={path} describes no CLIP: it lacks {', '.join(missing)}")
    return content, preprocess
