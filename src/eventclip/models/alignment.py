"""The alignment file: what an image tower learned without labels, laid over the frozen CLIP that it learned on.

A safetensors file: tensors by their names within the image tower, and one text in its header, JSON that tells which
CLIP they are for, how they learned, and a checksum of all of it. LoRA pairs are multiplied out where they are applied,
so that an aligned tower has the weights, the names and the speed of any other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from eventclip.errors import UserError, said
from eventclip.files import LARGEST_BYTES, open_regular, parse_json, whole_file
from eventclip.models.encoder import ClipEncoder, weights_sha256
from eventclip.models.torch_files import is_finite, refuse_other_kinds, unreadable
from eventclip.models.tuning import add_low_rank

FORMAT = 1
"""Layout version of the file."""

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
"""How tensors may be stored."""

_STORED = {"F32": torch.float32, "F16": torch.float16}  # safetensors' names of them
_KEY, _KIND = "eventclip", "alignment"
_PAIR = re.compile(r"(?:(.+)\.)?parametrizations\.(\w+)\.0\.(down|up)\.(\w+)")
_LORA_ROWS = "qkv"  # of a fused attention weight, in their order


@dataclass(frozen=True)
class Alignment:
    """What an alignment file holds.

    Attributes:
        state: what learned, float32, by name within the image tower; a LoRA pair by its two factors.
        clip: which CLIP it is for: "arch", "pretrained", "weights_sha256", "quick_gelu".
        tuning: how it learned: "parts", "lora_targets", "lora_rank".
        made: plain values that tell how it was made.
        sha256: checksum of all this, as it is stored.
    """

    state: dict[str, Tensor]
    clip: dict[str, Any]
    tuning: dict[str, Any]
    made: dict[str, Any]
    sha256: str = ""


def aligned_state(visual: nn.Module, *, buffers: Collection[str] = ()) -> dict[str, Tensor]:
    """What learns in an image tower, on the CPU, by name within it; see :func:`learning_tensors`."""
    return {name: value.detach().cpu() for name, value in learning_tensors(visual, buffers=buffers).items()}


def learning_tensors(visual: nn.Module, *, buffers: Collection[str] = ()) -> dict[str, Tensor]:
    """What learns in an image tower, the tensors themselves, by name within it.

    Args:
        visual: the tower, after :func:`.tuning.tune`.
        buffers: names of buffers that learn as well, such as "bn1.running_mean" where batch norms took new statistics.

    Raises:
        ValueError: a buffer that the tower does not have.
    """
    own = dict(visual.named_buffers())
    if unknown := sorted(set(buffers) - own.keys()):
        raise ValueError(f"the image tower has no buffer {unknown[0]}")
    learns: dict[str, Tensor] = {name: value for name, value in visual.named_parameters() if value.requires_grad}
    return learns | {name: own[name] for name in sorted(buffers)}


def write_alignment(
    path: str | Path,
    encoder: ClipEncoder,
    state: Mapping[str, Tensor],
    *,
    tuning: Mapping[str, Any],
    made: Mapping[str, Any],
    dtype: str = "fp32",
) -> None:
    """Write an alignment as a whole file; the same values give the same bytes.

    Args:
        path: the file, by custom ``*.safetensors``.
        encoder: the CLIP that learned, as :func:`.factory.load_clip` built it; it tells the checksum that its weights
            had before.
        state: what learned, see :func:`aligned_state`.
        tuning: "parts", "lora_targets" and "lora_rank".
        made: plain values that tell how: configuration, seed, number of images, recall@1 …
        dtype: "fp32", or "fp16" for half the size.

    Raises:
        UserError: nothing learned, values are not finite in this type, or the CLIP was aligned before.
        OSError: the file cannot be written.
    """
    from eventclip import __version__

    if dtype not in DTYPES:
        raise UserError(f"an alignment is stored as one of {', '.join(DTYPES)}, got {dtype!r}")
    clip = encoder.describe()
    if clip.get("aligned") is not None:
        raise UserError(f"this CLIP is aligned by {clip['aligned']} already: leave out clip.aligned to align anew")
    if not state:
        raise UserError("nothing learned in the image tower, so that there is no alignment: choose a tuning")
    stored = {name: value.detach().cpu().to(DTYPES[dtype]).contiguous() for name, value in state.items()}
    for name, value in stored.items():
        if not is_finite(value):
            more = ": store it as fp32" if is_finite(state[name].float()) else ": the training has diverged"
            raise UserError(f"{name} holds values that are not finite (NaN or infinity) as {dtype}{more}")
    pretrained = clip.get("pretrained")
    head = {
        "format": FORMAT,
        "version": __version__,
        "kind": _KIND,
        "clip": {
            "arch": clip["arch"],
            "pretrained": None if pretrained is None else Path(str(pretrained)).name,
            "weights_sha256": clip["weights_sha256"],
            "quick_gelu": clip.get("quick_gelu"),
        },
        "tuning": dict(tuning),
        "made": dict(made),
    }
    head = json.loads(json.dumps(head))  # as it will be read: the checksum is of that
    text = json.dumps({**head, "sha256": _checksum(head, stored)}, sort_keys=True)
    with whole_file(Path(path).expanduser()) as part:
        part.write_bytes(save(stored, metadata={_KEY: text}))  # save_file lets nobody but its owner read


def read_alignment(path: str | Path) -> Alignment:
    """Read an alignment file, without running code and without more memory than the file has bytes.

    Raises:
        UserError: it is missing, no alignment, of another format, damaged, or holds values that are not finite.
    """
    source = Path(path).expanduser()
    if not source.exists():
        raise UserError(f"there is no alignment {source}: give the file that eventclip align wrote")
    refuse_other_kinds(source)
    _check_header(source)
    try:
        with safe_open(source, framework="pt") as file:
            head = _head(source, file.metadata())
            state = {}
            for name in file.keys():  # noqa: SIM118  (it is no mapping)
                kind = file.get_slice(name).get_dtype()
                if kind not in _STORED:
                    raise UserError(f"{source} is no alignment: {said(name)} is of type {said(kind)}, expected F32")
                state[name] = file.get_tensor(name).clone()  # else of the file itself, which may change
    except UserError:
        raise
    except Exception as error:  # a damaged file may fail anywhere
        raise unreadable(source, "an alignment", error) from error
    for name, value in state.items():
        if not is_finite(value):
            raise UserError(
                f"{source} is of no use: {said(name)} holds values that are not finite (NaN or infinity): align again"
            )
    told = head.pop("sha256")
    if told != _checksum(head, state):
        raise UserError(
            f"{source} is damaged: what it holds does not match its checksum, so copy it again or align again"
        )
    state = {name: value.float() for name, value in state.items()}
    return Alignment(state, head["clip"], head["tuning"], head["made"], told)


def apply_alignment(visual: nn.Module, alignment: Alignment, *, source: str | Path) -> None:
    """Lay an alignment into the image tower that it was made for, in place.

    LoRA pairs are multiplied out and added: the tower keeps its names, its layout in memory and its speed.

    Args:
        visual: the tower, with the frozen CLIP's weights.
        alignment: see :func:`read_alignment`.
        source: where it is from, for messages.

    Raises:
        UserError: a tensor that the tower does not have, or of another shape; nothing was changed then.
    """
    own = {name: value for name, value in visual.state_dict().items() if value.is_floating_point()}
    plain: dict[str, Tensor] = {}
    factors: dict[str, dict[str, dict[str, Tensor]]] = defaultdict(lambda: {"down": {}, "up": {}})
    for name, value in alignment.state.items():
        if match := _PAIR.fullmatch(name):
            module, weight, factor, block = match.groups()
            factors[f"{module}.{weight}" if module else weight][factor][block] = value
        else:
            plain[name] = value
    for name in sorted(plain.keys() | factors.keys()):
        if name not in own or (name in plain and name in factors):
            wrong = "there twice" if name in own else "no tensor of this image tower"
            raise UserError(f"{source} does not fit: {said(name)} is {wrong}, so give the alignment of this CLIP")
    for name, value in plain.items():
        if value.shape != own[name].shape:
            raise _misfit(source, name, f"has shape {tuple(value.shape)}", own[name])
    with torch.no_grad():
        # Shapes of pairs are looked at before any weight changes.
        plain |= {name: _updated(source, name, own[name], **pairs) for name, pairs in factors.items()}
        for name, value in plain.items():
            own[name].copy_(value)


def align(
    model: nn.Module, path: str | Path, *, arch: str, pretrained: str | None, quick_gelu: bool | None
) -> dict[str, Any]:
    """Align a CLIP in place by a file.

    Args:
        model: the frozen CLIP in float32, its image tower under ``visual``.
        path: the alignment file.
        arch: name of its architecture, for messages.
        pretrained: of its weights, alike.
        quick_gelu: which activation it has.

    Returns:
        What becomes another of the CLIP's description: "aligned", "aligned_sha256" and "weights_sha256".

    Raises:
        UserError: the file is none, or was made for another CLIP.
    """
    alignment, checksum = read_alignment(path), weights_sha256(model)
    theirs = alignment.clip
    if theirs["weights_sha256"] != checksum:
        raise UserError(
            f"{path} was made for CLIP {_named(theirs['arch'], theirs['pretrained'], theirs['weights_sha256'])} and "
            f"this one is {_named(arch, pretrained, checksum)}: give the CLIP that it was made for, or leave out "
            f"clip.aligned"
        )
    if theirs["quick_gelu"] is not None and quick_gelu is not None and theirs["quick_gelu"] is not quick_gelu:
        raise UserError(
            f"{path} was made for a CLIP with {'QuickGELU' if theirs['quick_gelu'] else 'GELU'} and this one has "
            f"{'QuickGELU' if quick_gelu else 'GELU'}: set clip.quick_gelu={str(theirs['quick_gelu']).lower()}"
        )
    apply_alignment(model.get_submodule("visual"), alignment, source=path)
    return {"aligned": str(path), "aligned_sha256": alignment.sha256, "weights_sha256": weights_sha256(model)}


def _named(arch: str, pretrained: str | None, checksum: str) -> str:
    name = arch if pretrained is None else f"{arch}/{Path(str(pretrained)).name}"
    return f"{said(name)} (sha256 {said(checksum[:12])})"


def _updated(
    source: str | Path, name: str, weight: Tensor, *, down: Mapping[str, Tensor], up: Mapping[str, Tensor]
) -> Tensor:
    """A weight with its low-rank pairs added.

    Raises:
        UserError: pairs that are not whole, or do not fit.
    """
    if down.keys() != up.keys():
        lone = min(down.keys() ^ up.keys())
        raise UserError(f"{source} is damaged: the LoRA pair {said(lone)} of {said(name)} lacks one of its factors")
    whole = [value.shape[:1] for value in up.values()] == [weight.shape[:1]]
    blocks = tuple(up) if whole else tuple(_LORA_ROWS)
    rows, columns = (len(weight) // len(blocks), weight[0].numel()) if weight.ndim > 1 else (0, 0)
    for block in down:
        rank = len(down[block]) if down[block].ndim else 0
        fits = block in blocks and rows * len(blocks) == len(weight) and 1 <= rank <= min(rows, columns)
        if not fits or down[block].shape != (rank, columns) or up[block].shape != (rows, rank):
            shapes = f"{tuple(up[block].shape)} · {tuple(down[block].shape)}"
            raise _misfit(source, name, f"has the LoRA pair {said(block)} of shapes {shapes}", weight)
    return add_low_rank(weight, blocks, down, up)


def _misfit(source: str | Path, name: str, what: str, weight: Tensor) -> UserError:
    return UserError(
        f"{source} does not fit: {said(name)} {what} there and {tuple(weight.shape)} in this image tower, so give the "
        f"alignment of this CLIP"
    )


def _check_header(source: Path) -> None:
    """Refuse a header that claims more than an alignment has, before anything reads it."""
    try:
        with open_regular(source) as file:
            start, size = file.read(8), source.stat().st_size
    except OSError as error:
        raise UserError(f"{source} cannot be read as an alignment: {error.strerror or error}") from error
    claimed = int.from_bytes(start, "little")
    if len(start) < 8 or claimed > min(size - 8, LARGEST_BYTES):
        raise UserError(
            f"{source} cannot be read as an alignment: it is damaged or no safetensors file (its header claims "
            f"{claimed:,} bytes, and the file has {size:,})"
        )


_NEEDED: Mapping[str, tuple[type, ...]] = {
    "version": (str,),
    "clip": (dict,),
    "tuning": (dict,),
    "made": (dict,),
    "sha256": (str,),
    "clip.arch": (str,),
    "clip.pretrained": (str, type(None)),
    "clip.weights_sha256": (str,),
    "clip.quick_gelu": (bool, type(None)),
}
"""Values of the header and their kinds, those of sections after them."""


def _head(source: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """The text in the header, parsed and looked at."""
    if not metadata or _KEY not in metadata:
        raise UserError(
            f"{source} is no alignment: it holds tensors and does not say what for; clip.aligned takes what eventclip "
            f"align wrote, and weights of a whole CLIP are given by clip.pretrained"
        )
    try:
        head = parse_json(metadata[_KEY])
    except ValueError as error:
        raise UserError(f"{source} is damaged: the text in its header is no JSON ({said(str(error))})") from error
    if not isinstance(head, dict) or head.get("kind") != _KIND:
        kind = said(head.get("kind")) if isinstance(head, dict) else type(head).__name__
        raise UserError(f"{source} is no alignment but of kind {kind}: give the file that eventclip align wrote")
    if type(head.get("format")) is not int or head["format"] != FORMAT:
        raise UserError(
            f"{source} is an alignment of format {said(head.get('format'))}, written by eventclip "
            f"{said(head.get('version'))}, and this version reads format {FORMAT}: use the version that wrote it"
        )
    for place, kinds in _NEEDED.items():
        section, _, key = place.rpartition(".")
        value = (head[section] if section else head).get(key, ...)
        if not isinstance(value, kinds):
            held = "nothing" if value is ... else said(value)
            raise UserError(f"{source} is damaged: {place} in its header is {held}, expected {kinds[0].__name__}")
    return head


def _checksum(head: Mapping[str, Any], stored: Mapping[str, Tensor]) -> str:
    """Checksum of plain values and tensors as they are stored."""
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name, value in sorted(stored.items()):
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().numpy().data)
    return digest.hexdigest()
