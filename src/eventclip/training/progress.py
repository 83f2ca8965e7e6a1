"""How far a training is: Lightning's bar on a terminal, a few lines in a log."""

from __future__ import annotations

import logging
import math
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from eventclip.progress import is_terminal, tqdm

LINES = 10
"""Most lines about epochs in the log of a run."""

log = logging.getLogger(__name__)


def progress() -> Callback:
    """What tells how far training, validation and test are, where stderr goes: to a terminal, or into a log."""
    return TQDMProgressBar() if is_terminal() else EpochLines()


class EpochLines(Callback):
    """Log loss and validation accuracy of some epochs, and how long training and test took.

    Args:
        lines: at most so many epochs are logged, evenly spread over the run; the last one is among them.
    """

    def __init__(self, lines: int = LINES) -> None:
        self.lines = lines
        self._validated = False
        self._bar: tqdm | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count batches."""
        self._begin(trainer, "training", None)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count; a batch that is an epoch has the batches of it."""
        self._count(len(batch.get("batches", "1")))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that the epoch has a validation accuracy."""
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch if it is one of those."""
        epoch, total = trainer.current_epoch + 1, epochs_of(trainer)
        every = max(1, math.ceil(total / self.lines)) if total else 2 ** (epoch.bit_length() - 1)
        metrics = trainer.callback_metrics  # looked at by all processes: they are put together then
        if trainer.is_global_zero and (epoch % every == 0 or epoch == total):
            parts = [f"loss {float(metrics['fit/loss']):.4f}"] if "fit/loss" in metrics else []
            if self._validated and "val/top1_probabilities" in metrics:
                parts.append(f"validation accuracy {float(metrics['val/top1_probabilities']):.4f}")
            log.info("epoch %d%s: %s", epoch, f" of {total}" if total else "", ", ".join(parts))
            if self._bar is not None:
                self._bar.postpone()
        self._validated = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how long training took."""
        self._end()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count batches."""
        self._begin(trainer, "testing", sum(map(int, trainer.num_test_batches)))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count."""
        self._count()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how long the test took."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log how far it came."""
        self._end()

    def _begin(self, trainer: Trainer, title: str, total: int | None) -> None:
        self._bar = tqdm(desc=title, total=total, unit="batches", disable=not trainer.is_global_zero)

    def _count(self, batches: int = 1) -> None:
        if self._bar is not None:
            self._bar.update(batches)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None


def epochs_of(trainer: Trainer) -> int | None:
    """Epochs that a training will have; None where only the user ends it."""
    counts = []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        counts.append(trainer.max_epochs)
    steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    if trainer.max_steps > 0 and steps:
        counts.append(math.ceil(trainer.max_steps / steps))
    return min(counts, default=None)
