"""Checkpoints: plain values only, written whole, and refused in one sentence where they do not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

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


class LastCheckpoint(Checkpoint):
    """Keep one checkpoint, ``last.ckpt``, never older than some optimizer steps.

    Args:
        folder: where it goes.
        every_n_steps: optimizer steps between two writings; the end of training is always written.
    """

    def __init__(self, *, folder: str, every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise UserError(f"callbacks.last.every_n_steps must be 1 or more, got {every_n_steps}")
        self.path = Path(folder) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._written = -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write where the step count asks for it; between two accumulated batches there is nothing to write."""
        if trainer.global_step % self.every_n_steps == 0 and trainer.global_step != self._written:
            self._write(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the end of training."""
        self._write(trainer)

    def _write(self, trainer: Trainer) -> None:
        self._written = trainer.global_step
        trainer.save_checkpoint(self.path)
