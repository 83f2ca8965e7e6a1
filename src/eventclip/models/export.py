"""A CLIP written the way open_clip publishes its own: weights and configuration in a folder that it loads by itself.

What was laid over the weights (an alignment) or learned in the image tower (fine-tuning, LoRA) is merged into them.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import save
from torch import Tensor

from eventclip.errors import UserError, printable
from eventclip.files import held, whole_file, write_json
from eventclip.models.architecture import find_architecture
from eventclip.models.checkpoint import clip_here, load_classifier
from eventclip.models.encoder import ClipEncoder, Tokenizer
from eventclip.models.factory import Clip, clip_options, load_clip
from eventclip.models.tuning import merge_lora
from eventclip.models.weights import BESIDE

WEIGHTS = "open_clip_model.safetensors"
"""The name that open_clip looks for first."""

# What Hugging Face's tokenizers write of themselves, for towers that have one.
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("merges.txt", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
_EXACT = {"precision": "fp32", "compiled": False}


def export(
    out: str | Path, *, clip: Clip | None = None, checkpoint: str | Path | None = None, trust: bool = False
) -> list[str]:
    """Write a CLIP, or the one that a checkpoint holds, for plain open_clip.

    Example:
        >>> from eventclip.models.export import export
        >>> lines = export("exported", clip="tiny")
        >>> import open_clip
        >>> model, _, preprocess = open_clip.create_model_and_transforms("local-dir:exported")

    Args:
        out: a new or an empty folder, or one that was written so before.
        clip: which, as for :func:`.load_clip`; of a checkpoint, what differs from its training.
        checkpoint: whose image tower is taken, what learned in it merged; its adapter is left out, since open_clip has
            no place for one.
        trust: let the checkpoint run code outside eventclip.

    Returns:
        What was written, a sentence a line.

    Raises:
        UserError: neither was given, they cannot be loaded, or the folder holds something else.
        OSError: the folder cannot be written to.
    """
    folder = Path(out).expanduser()
    if clip is None and checkpoint is None:
        raise UserError("there is no CLIP to export: give clip=NAME, or checkpoint=FILE")
    check_folder(folder)
    given = {} if clip is None else clip_options(clip)
    if checkpoint is None:
        encoder, left = _loaded(given), ""
        visual = encoder.visual
    else:
        path = Path(checkpoint).expanduser()
        classifier, metadata = load_classifier(path, trust=trust, clip={**given, **_EXACT})
        merge_lora(classifier.encoder)
        adapter: Any = classifier.adapter
        merged = getattr(adapter, "before_projection", False)
        if merged:
            classifier.encoder.give_projection(adapter.learned, adapter.bias)
        visual = classifier.encoder.visual
        encoder = _loaded(clip_here(metadata["config"]["clip"], given))  # for its text tower, which the other dropped
        name = type(adapter).__name__
        left = f"; with the projection of {name}" if merged else f"; {name} of {path.name} is no part of it"
    texts = {} if encoder.text_tower is None else encoder.text_tower.state_dict()
    state = texts | {f"visual.{name}": value for name, value in visual.state_dict().items()}
    configuration = {"model_cfg": _model_options(encoder), "preprocess_cfg": _preprocessing(encoder)}
    try:
        with held(folder / WEIGHTS):
            _write(folder, state, configuration, encoder.tokenizer)
    except FileNotFoundError as error:  # what else goes wrong with a disk is told alike for all commands
        raise UserError(f"out={out} cannot be made ({error.strerror}): give another folder") from error
    size = (folder / WEIGHTS).stat().st_size / 2**20
    return [
        f"{folder} holds {encoder.describe()['arch']}: {len(state)} tensors, {size:,.1f} MiB{left}",
        f"open_clip.create_model_and_transforms('local-dir:{folder}')",
    ]


def check_folder(folder: Path) -> None:
    """Refuse a folder in which something else would lie beside an exported CLIP.

    Raises:
        UserError: names it.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={folder} is no folder: give a new or an empty one")
    held_already = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    others = [name for name in held_already if name not in (WEIGHTS, BESIDE, *_TOKENIZER_FILES)]
    left_over = (f".{WEIGHTS}.", f".{BESIDE}.")  # of a run that was killed
    if other := next((name for name in others if not name.startswith(left_over)), None):
        raise UserError(
            f"out={folder} holds {printable(other)}, no part of an exported CLIP: give a new or an empty folder"
        )


def _loaded(options: Mapping[str, Any]) -> ClipEncoder:
    try:
        return load_clip(**{**clip_options(options), **_EXACT})
    except TypeError as error:
        raise UserError(f"clip cannot be built: {error}") from error


def _model_options(encoder: ClipEncoder) -> dict[str, Any]:
    """What open_clip builds the model from; its activation is the one that the weights have here."""
    told = encoder.describe()
    options = deepcopy(find_architecture(told["arch"], told["config"]).options)
    return {**options, "quick_gelu": bool(told["quick_gelu"])}


def _preprocessing(encoder: ClipEncoder) -> dict[str, Any]:
    """How open_clip makes pixels of a picture; beyond mean and deviation as it is known of published weights."""
    told, preprocess = encoder.describe(), encoder.preprocess
    known = {"mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest"}
    if told["config"] is None and told["pretrained"] is not None:
        published = open_clip.get_pretrained_cfg(told["arch"], told["pretrained"])
        known |= {key: published[key] for key in known if key in published}
    return {**known, "size": preprocess.image_size, "mean": list(preprocess.mean), "std": list(preprocess.std)}


def _write(
    folder: Path, state: Mapping[str, Tensor], configuration: Mapping[str, Any], tokenizer: Tokenizer | None
) -> None:
    """Write the files, whole, the configuration last: without it open_clip takes the folder for none."""
    (folder / BESIDE).unlink(missing_ok=True)
    if isinstance(tokenizer, HFTokenizer):
        tokenizer.tokenizer.save_pretrained(str(folder))
    apart = {
        # Tensors that share memory, or lie in it pixel by pixel, are none for safetensors.
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
    with whole_file(folder / WEIGHTS) as part:
        part.write_bytes(save(apart, metadata={"format": "pt"}))  # save_file lets nobody but its owner read
    write_json(folder / BESIDE, configuration)
