"""Build a CLIP: architecture, weights, tokenizer and preprocessing come together in a `ClipEncoder`."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import open_clip
from torch import nn

from eventclip.errors import UserError, said
from eventclip.models.alignment import align
from eventclip.models.architecture import build_clip, build_tokenizer, find_architecture, lower_precision
from eventclip.models.encoder import ClipEncoder, Preprocess, check_precision, weights_sha256
from eventclip.models.weights import (
    download_weights,
    fill,
    find_weight_file,
    needs_quick_gelu,
    read_weight_file,
)

Clip = str | Mapping[str, Any]
"""Which CLIP, in short: "tiny", an architecture of open_clip and a tag of its weights ("ViT-L-14/openai"), or arguments
of :func:`load_clip` for weights or an architecture of one's own."""

TINY = Path(__file__).parents[1] / "assets" / "tiny_clip"
"""The small CLIP that travels with the package; it knows its own symbols alone."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_NEVER = -1
_HANDED_BACK = 2**26
"""Blocks of this size and above [bytes] still go back at once: kept, hundreds of MB each and hardly two of one size,
they would leave more room between them than they fill."""

_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


def load_clip(
    arch: str | None = "ViT-B-32",
    pretrained: str | Path | None = None,
    *,
    config: str | Path | None = None,
    quick_gelu: bool | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    cache_dir: str | Path | None = None,
    precision: str = "fp32",
    init_seed: int = 0,
    compiled: bool = False,
    aligned: str | Path | None = None,
) -> ClipEncoder:
    """Build a frozen CLIP over open_clip.

    From then on the process keeps the memory that tensors gave back, see :func:`keep_freed_memory`.

    Example:
        >>> from eventclip import load_clip
        >>> encoder = load_clip("tiny")  # or load_clip("ViT-B-32", "openai"), which is downloaded once
        >>> encoder.image_size, encoder.width
        (64, 128)

    Args:
        arch: open_clip name ("ViT-B-32"; OpenAI's spelling "ViT-B/32" as well), or "tiny" alone for the small CLIP
            that travels with the package.
        pretrained: a tag of `arch` ("openai", downloaded once), a local file, or None for untrained weights.
            A file holds a state dict in OpenAI's or open_clip's layout (.pt, .pth, .bin, .safetensors), or is
            a TorchScript archive as OpenAI publishes. Reading it never runs code.
        config: JSON file of an own architecture, in place of `arch`.
        quick_gelu: whether activations are QuickGELU. None takes what the weights need: what is known of
            the tag, what a file tells (see :func:`.weights.needs_quick_gelu`), or what the architecture says.
        mean: per-channel pixel mean, values in [0, 1]. None takes what is known of the weights, or OpenAI's.
        std: per-channel pixel standard deviation, alike.
        cache_dir: where downloaded weights lie; None is open_clip's own place.
        precision: "fp32", or "fp16" / "bf16" to store the weights in half precision (frozen towers only).
        init_seed: draws untrained weights; no global generator is touched.
        compiled: whether torch.compile makes kernels for the image tower when it first sees views.
        aligned: an alignment file of this CLIP, see :mod:`.alignment`; it is laid over the weights, which makes
            a CLIP of its own that is as fast.

    Raises:
        UserError: an unknown architecture or tag, a missing, unreadable or misfitting file, one with weights that
            are not finite or that does not tell its activation, an alignment of another CLIP, no network, or an
            unknown precision.
    """
    keep_freed_memory()
    check_precision(precision)
    for name, switch in {"quick_gelu": quick_gelu, "compiled": compiled}.items():
        if not isinstance(switch, bool | None):
            raise UserError(f"clip.{name}={switch!r} must be true or false")
    if (arch, pretrained, config) == ("tiny", None, None):
        arch, config, pretrained = clip_options("tiny").values()
    pretrained = None if pretrained is None else str(pretrained)
    cache = None if cache_dir is None else str(cache_dir)
    architecture = find_architecture(arch, config)
    published = {}
    if architecture.builtin and pretrained is not None:
        published = open_clip.get_pretrained_cfg(architecture.name, pretrained)
    source, tensors = None, {}
    if published:
        source = download_weights(architecture.name, str(pretrained), cache)
    elif pretrained is not None:
        source = find_weight_file(architecture.name, pretrained)
        tensors = read_weight_file(source)
    if quick_gelu is None:
        stated = published.get("quick_gelu", False) if published else architecture.options.get("quick_gelu")
        quick_gelu = bool(stated) if source is None or published else needs_quick_gelu(source, architecture, tensors)
    model = build_clip(architecture, quick_gelu=quick_gelu, precision=precision, seed=init_seed)
    if source is not None:
        fill(model, source, tensors, arch=architecture.name)
    origin = {
        "arch": architecture.name,
        "pretrained": pretrained,
        "config": None if config is None else str(config),
        "quick_gelu": quick_gelu,
        "init_seed": init_seed,
        "vision": architecture.options["vision_cfg"],
        "width": int(architecture.options["embed_dim"]),
        "logit_scale": float(model.get_parameter("logit_scale").detach().exp()),
    }
    if aligned is None:
        origin["weights_sha256"] = weights_sha256(model)
    else:
        origin |= align(model, aligned, arch=architecture.name, pretrained=pretrained, quick_gelu=quick_gelu)
    lower_precision(model, architecture, precision)
    visual = model.get_submodule("visual")
    # What remains of the model is its text side; `encode_text` needs nothing of the image tower.
    del model.visual
    known = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    known |= {key: published[key] for key in known if key in published} | architecture.preprocess
    preprocess = Preprocess(
        _square_side(visual, architecture.name),
        tuple(known["mean"] if mean is None else mean),
        tuple(known["std"] if std is None else std),
    )
    tokenizer = build_tokenizer(architecture, cache)
    return ClipEncoder(visual, model, tokenizer, preprocess, origin=origin, precision=precision, compiled=compiled)


def clip_options(clip: Clip) -> dict[str, Any]:
    """Arguments of :func:`load_clip` for a CLIP named in short.

    Raises:
        UserError: a name that is none.
    """
    if not isinstance(clip, str | Mapping):
        raise UserError(
            f"clip={said(repr(clip))} names no CLIP: expected 'tiny', an architecture and its weights such as "
            f"'ViT-L-14/openai', or arguments of load_clip such as {{'arch': ..., 'pretrained': FILE}}"
        )
    if not isinstance(clip, str):
        options = {key: value for key, value in clip.items() if key != "_target_"}
        shipped = options.get("arch") == "tiny" and options.get("config") is options.get("pretrained") is None
        return {**options, **clip_options("tiny")} if shipped else options
    if clip == "tiny":
        return {"arch": None, "config": str(TINY / "tiny.json"), "pretrained": str(TINY / "tiny.safetensors")}
    arch, _, tag = clip.rpartition("/")  # OpenAI's spelling of an architecture has a slash as well
    if not arch or not tag:
        raise UserError(
            f"clip={clip!r} names no CLIP: expected 'tiny', or an architecture and its weights such as "
            f"'ViT-L-14/openai'; weights in a file are given as {{'arch': ..., 'pretrained': FILE}}"
        )
    return {"arch": arch, "config": None, "pretrained": tag}


def _square_side(visual: nn.Module, arch: str) -> int:
    size = cast("int | tuple[int, int]", visual.image_size)
    sides = {size} if isinstance(size, int) else {int(side) for side in size}
    if len(sides) != 1:
        raise UserError(f"clip.arch={arch} takes images of {size} pixels: expected a tower with square images")
    return sides.pop()


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks below 64 MiB, for this process and those that it forks.

    glibc takes every block above 32 MiB from the kernel, and hands it back when it is freed; it also hands back what
    is free at the end of its heap. The activations of a batch are such blocks, so each forward pass has the kernel
    clear gigabytes of pages again, which can take a small tower on a CPU longer than its arithmetic. In return a
    process stays as large as it was at its largest. Nothing changes where the user has set one of glibc's variables of
    the environment for this, such as ``MALLOC_TRIM_THRESHOLD_=131072``, or where the C library is another. Once for
    each process, by :func:`load_clip`.

    Returns:
        Whether this was done.
    """
    if any(name in os.environ for name in _USERS_OWN) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        library = ctypes.CDLL(None)
        if not hasattr(library, "gnu_get_libc_version"):
            return False
        # Before glibc 2.35 this threshold cannot exceed 32 MiB, which is better than that it moves.
        kept = library.mallopt(_MMAP_THRESHOLD, _HANDED_BACK) or library.mallopt(_MMAP_THRESHOLD, _HANDED_BACK // 2)
        return bool(kept and library.mallopt(_TRIM_THRESHOLD, _NEVER))
    except (OSError, AttributeError, TypeError):  # no such library: CDLL(None) is a TypeError on Windows
        return False
