"""Checkpoints are written whole while a run goes on, and the logs are brought to the disk with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from eventclip.errors import UserError
from eventclip.files import whole_file
from eventclip.training.whole_epochs import StepCallback


class WholeFileIO(TorchCheckpointIO):
    """Checkpoint files that appear whole or not at all, and a sentence where the disk is full."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``; an older file there stays where that fails.

        Raises:
            UserError: the disk is full, or the folder cannot be written to.
        """
        path = Path(path)
        try:
            with whole_file(path) as part, part.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns the system's errors into its own
            system = next((e for e in (error, error.__cause__, error.__context__) if isinstance(e, OSError)), None)
            reason = str(error).splitlines()[0] if system is None else system.strerror
            raise UserError(
                f"the checkpoint {path} cannot be written ({reason}): the one before is intact, so make room and give "
                f"the same command again to go on from it"
            ) from error


class LastCheckpoint(Checkpoint, StepCallback):
    """Keep the two latest checkpoints, ``last.ckpt`` and ``previous.ckpt``, the former never older than some steps.

    A new one is written as ``next.ckpt`` and then the names move on, so at any moment one whole checkpoint of the
    latest step lies there under one of the three names (see `training.resume`).

    Lightning goes on from a checkpoint of an epoch's last batch without the validation that was due after it, so that
    batch is saved at the epoch's end instead.

    Args:
        folder: where they go.
        every_n_steps: optimizer steps between two writings; the end of training is always written.
    """

    def __init__(self, *, folder: str, every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise UserError(f"callbacks.last.every_n_steps must be 1 or more, got {every_n_steps}")
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self._written = -1
        self._flush_due = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write where the step count asks for it; between two accumulated batches there is nothing to write."""
        if not trainer.is_last_batch:
            self._write_if_due(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        """Write within an epoch that is trained on as a whole, where the step count asks for it."""
        self._write_if_due(trainer)
        self._flush(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the last batch of an epoch if its step was due."""
        self._write_if_due(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Let the logs hold as much as the checkpoint: Lightning logs a step after the hooks that may save it."""
        self._flush(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the end of training."""
        self.write(trainer)

    def _flush(self, trainer: Trainer) -> None:
        if self._flush_due:
            flush(trainer.loggers)
            self._flush_due = False

    def _write_if_due(self, trainer: Trainer) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self.write(trainer)

    def write(self, trainer: Trainer) -> None:
        """Write where training stands, on all ranks together, unless that step was just written.

        Raises:
            UserError: the disk is full, or the folder cannot be written to.
        """
        if trainer.global_step == self._written:
            return
        last, new = self.folder / "last.ckpt", self.folder / "next.ckpt"
        trainer.save_checkpoint(new)
        if trainer.is_global_zero:
            if last.exists():
                last.replace(self.folder / "previous.ckpt")
            new.replace(last)
        self._written, self._flush_due = trainer.global_step, True


def flush(loggers: Sequence[Logger]) -> None:
    """Bring to the disk what has been logged."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.flush()
        else:
            logger.save()
