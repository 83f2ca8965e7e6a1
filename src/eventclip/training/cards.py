"""What a checkpoint tells of itself: plain values only, read without running code, refused where they do not fit.

No Lightning here, so that a trained classifier can be used without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from eventclip.errors import UserError

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


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours without running any code in it.

    Raises:
        UserError: no such file, not a checkpoint, or not one of eventclip's.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: give the path of a .ckpt file that eventclip.train wrote")
    try:
        checkpoint: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, from pickle to zip errors
        raise UserError(f"{path} is damaged or no checkpoint ({type(error).__name__}): give another one") from error
    if not isinstance(checkpoint, dict) or "eventclip" not in checkpoint:
        raise UserError(f"{path} was not written by eventclip.train: it lacks the card that tells its CLIP and classes")
    return checkpoint


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
    if theirs["class_names"] != ours["class_names"]:
        pairs = zip(theirs["class_names"], ours["class_names"], strict=False)
        first = next((f"{a!r} and {b!r}" for a, b in pairs if a != b), "the number of classes")
        raise UserError(
            f"{path} was trained on {len(theirs['class_names'])} classes and this run has {len(ours['class_names'])}, "
            f"which differ first in {first}: give the data set it was trained on"
        )


def _clip(card: dict[str, Any]) -> str:
    clip = card["clip"]
    return f"{clip['arch']}/{clip['pretrained']} (sha256 {clip['weights_sha256'][:12]})"
