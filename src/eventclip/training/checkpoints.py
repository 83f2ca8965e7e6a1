"""Checkpoints are written whole while a run goes on; what they tell of themselves is in :mod:`.cards`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from eventclip.errors import UserError


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
