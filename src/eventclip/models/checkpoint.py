"""What a checkpoint tells of itself: plain values only, read without running code, refused where they do not fit.

No Lightning here, so that a trained classifier can be used without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from eventclip.errors import UserError
from eventclip.models.torch_files import is_bad_tensor, load_tensors
from eventclip.models.trust import refuse_foreign_code, refuse_foreign_name, refuse_what_is_not_plain, said

CARD_FORMAT = 1
"""Layout version of a checkpoint's card."""


def make_card(
    *, config: dict[str, Any], class_names: list[str], clip: dict[str, Any], data: dict[str, Any], version: str
) -> dict[str, Any]:
    """Gather the plain values that every checkpoint carries beside what learned.

    Args:
        config: the resolved configuration, plain containers.
        class_names: names of the classes in order of their labels.
        clip: the encoder's own description, with ``weights_sha256``.
        data: the data module's description, with the split checksums.
        version: of this package.

    Returns:
        The card, which is found under ``"eventclip"`` in a checkpoint.
    """
    return {
        "format": CARD_FORMAT,
        "version": version,
        "config": config,
        "class_names": class_names,
        "clip": clip,
        "data": data,
    }


def read_checkpoint(path: Path, *, trust: bool = False, own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a checkpoint of ours without running any code in it: the one door through which all commands take one.

    Args:
        path: the file.
        trust: let its card name code outside eventclip, which whoever builds its configuration runs then.
        own: the configuration of the run that goes on from it, see :func:`.trust.refuse_foreign_code`.

    Returns:
        What it holds. Its card is complete and of plain values; the configuration in it builds nothing but what ships
        with eventclip, unless trusted, and says nothing of where files are written. What learned is finite.

    Raises:
        UserError: no such file, not a checkpoint, not one of eventclip's, one of another version, or one that asks for
            foreign code.
    """
    if trust is not True and trust is not False:
        raise UserError(f"trust must be true or false, got {trust!r}")
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}: give the path of a .ckpt file that eventclip.train wrote")
    try:
        checkpoint = load_tensors(path, "a checkpoint", checked=True)
    except UserError as error:
        raise UserError(f"{error}; expected a .ckpt file that eventclip.train wrote") from error
    if not isinstance(checkpoint, dict) or "eventclip" not in checkpoint:
        raise UserError(f"{path} was not written by eventclip.train: it lacks the card that tells its CLIP and classes")
    _check_state(path, checkpoint.get("state_dict"))
    card = checkpoint["eventclip"]
    _check_format(path, card)
    refuse_what_is_not_plain(path, card)
    _check_values(path, card)
    config = card["config"]
    if not trust:
        refuse_foreign_code(path, config, own=own)
        refuse_foreign_name(path, config["name"])
        config["clip"]["cache_dir"] = None  # where downloads are written is for this machine to say
    pretrained, activation = config["clip"].get("pretrained"), card["clip"].get("quick_gelu")
    if config["clip"].get("quick_gelu") is None and isinstance(pretrained, str) and {"/", "."} & set(pretrained):
        config["clip"]["quick_gelu"] = activation  # what learned on a file's weights learned with this one
    return checkpoint


def _check_state(path: Path, state: Any) -> None:
    """Refuse learned tensors that are none, or hold no numbers."""
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{path} is damaged: it lacks state_dict, the tensors that learned, by name")
    for name, value in state.items():
        flaw = is_bad_tensor(value) if isinstance(value, torch.Tensor) else "is no tensor"
        if flaw is not None:
            raise UserError(f"{path} is of no use: {said(name)} {flaw}; give an earlier checkpoint, or train again")


def _check_format(path: Path, card: Any) -> None:
    if not isinstance(card, dict):
        raise UserError(f"{path} is damaged: its card is a {type(card).__name__}, expected a mapping")
    if type(card.get("format")) is not int or card["format"] != CARD_FORMAT:
        raise UserError(
            f"{path} has a card of format {said(card.get('format'))}, written by eventclip "
            f"{said(card.get('version'))}, and this version reads format {CARD_FORMAT}: use the version that wrote it"
        )


_NUMBER = (int, float)
_NEEDED: Mapping[str, type | tuple[type, ...]] = {
    "class_names": (list, tuple),
    "clip.weights_sha256": str,
    "data.checksums": dict,
    "config.name": str,
    "config.seed": int,
    "config.clip": dict,
    "config.adapter": dict,
    "config.fewshot": dict,
    "config.optim": dict,
    "config.tuning.parts": (str, list, tuple),
    "config.tuning.lora_targets": str,
    "config.tuning.lora_rank": int,
    "config.tuning.clip_factor": _NUMBER,
    "config.frames.events_per_frame": _NUMBER,
    "config.views.evaluation_views": int,
    "config.views.fit": str,
    "config.data.percentile_events": _NUMBER,
    "config.classifier.prompts": (list, tuple),
    "config.classifier.pooling": str,
    "config.selection": dict,
}
"""Values of a card that are read somewhere, and their kinds; the parts that are built check their own."""


def _check_values(path: Path, card: dict[str, Any]) -> None:
    """Refuse a card that lacks a value, or has one of another kind."""
    for place, kind in _NEEDED.items():
        value: Any = card
        for key in place.split("."):
            value = value.get(key, _ABSENT) if isinstance(value, dict) else _ABSENT
        if value is _ABSENT:
            raise UserError(f"{path} is damaged: its card lacks {place}")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{path} is damaged: {place} in its card is {said(value)}, a {type(value).__name__}")
    names, prompts, seed = card["class_names"], card["config"]["classifier"]["prompts"], card["config"]["seed"]
    for place, texts in (("class_names", names), ("config.classifier.prompts", prompts)):
        wrong = [text for text in texts if not isinstance(text, str) or not text.strip()]
        if not texts or wrong:
            held = said(wrong[0]) if wrong else "nothing"
            raise UserError(f"{path} is damaged: {place} in its card holds {held}, expected one text or more")
    if not 0 <= seed < 2**32:
        raise UserError(f"{path} is damaged: config.seed in its card is {said(seed)}, expected 0 to {2**32 - 1}")


_ABSENT = object()


def check_card(path: Path, checkpoint: dict[str, Any], card: dict[str, Any]) -> None:
    """Refuse a checkpoint that learned on top of another CLIP, or other classes.

    Raises:
        UserError: names what differs.
    """
    theirs, ours = checkpoint["eventclip"], card
    if theirs["clip"]["weights_sha256"] != ours["clip"]["weights_sha256"]:
        raise UserError(
            f"{path} was trained on CLIP {_clip(theirs)} and this run has {_clip(ours)}: give the same CLIP"
        )
    if list(theirs["class_names"]) != list(ours["class_names"]):
        pairs = zip(theirs["class_names"], ours["class_names"], strict=False)
        first = next((f"{a!r} and {b!r}" for a, b in pairs if a != b), "the number of classes")
        raise UserError(
            f"{path} was trained on {len(theirs['class_names'])} classes and this run has {len(ours['class_names'])}, "
            f"which differ first in {first}: give the data set it was trained on"
        )


def _clip(card: dict[str, Any]) -> str:
    clip = card["clip"]
    return f"{clip['arch']}/{clip['pretrained']} (sha256 {clip['weights_sha256'][:12]})"
