"""What the test went wrong on, and how far its probabilities can be trusted: counts, pictures, top confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from eventclip.errors import UserError
from eventclip.plots.diagnostics import draw_confusion, draw_reliability
from eventclip.training.callbacks import show


@dataclass(frozen=True)
class Confusion:
    """One class taken for another.

    Attributes:
        true: name of the true class.
        predicted: name of the class with the highest probability.
        count: recordings.
        share: of the true class's recordings, in (0, 1].
    """

    true: str
    predicted: str
    count: int
    share: float


def top_confusions(counts: NDArray[np.int64], class_names: Sequence[str], limit: int) -> list[Confusion]:
    """List the most frequent confusions, the larger share first among equals, then by label.

    Args:
        counts: (K, K) recordings by true class (row) and predicted class (column).
        class_names: K names.
        limit: how many at most; confusions that never happened are not listed.
    """
    totals = counts.sum(axis=1)
    true, predicted = np.nonzero(counts - np.diag(np.diag(counts)))
    often = counts[true, predicted]
    share = often / totals[true]
    order = np.lexsort((predicted, true, -share, -often))[:limit]
    return [
        Confusion(class_names[true[i]], class_names[predicted[i]], int(often[i]), round(float(share[i]), 4))
        for i in order
    ]


def count_confusions(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Count a batch (B, K) and its (B,) labels by true and most probable class: (K, K) int64."""
    classes = probabilities.shape[1]
    cells = labels * classes + probabilities.argmax(dim=1)
    return torch.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def bin_confidences(probabilities: Tensor, labels: Tensor, bins: int) -> Tensor:
    """Sort a batch into equal bins of its highest probability.

    Args:
        probabilities: (B, K), in [0, 1].
        labels: (B,) true classes.
        bins: a bin holds its lower edge; the last one also holds 1.

    Returns:
        (3, bins) float64: recordings, sum of their highest probabilities, recordings that were right.
    """
    confidence, predicted = probabilities.double().max(dim=1)
    place = (confidence * bins).long().clamp(0, bins - 1)
    sums = torch.zeros(3, bins, dtype=torch.float64, device=probabilities.device)
    for row, values in zip(sums, (torch.ones_like(confidence), confidence, predicted == labels), strict=True):
        row.index_add_(0, place, values.double())
    return sums


class Diagnostics(Callback):
    """Draw the confusion matrix and the reliability diagram of the test, in TensorBoard and as files.

    Counts are summed over all processes, so the pictures show every test recording once.

    Args:
        class_names: K names.
        folder: where ``confusion.png`` and ``calibration.png`` go as well; None writes to TensorBoard only.
        bins: of the reliability diagram; 15 are what ``test/calibration_error`` has.
        confusions: how many of the most frequent ones ``results.json`` lists.
    """

    def __init__(
        self, class_names: Sequence[str], *, folder: str | None = None, bins: int = 15, confusions: int = 20
    ) -> None:
        if bins < 1 or confusions < 0:
            raise UserError(
                f"callbacks.diagnostics.bins must be 1 or more and confusions 0 or more, got {bins} and {confusions}"
            )
        self.class_names, self.folder = list(class_names), folder
        self.bins, self.confusions = bins, confusions
        self._counts: Tensor | None = None
        self._binned: Tensor | None = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count from nothing."""
        classes = len(self.class_names)
        self._counts = torch.zeros(classes, classes, dtype=torch.int64, device=pl_module.device)
        self._binned = torch.zeros(3, self.bins, dtype=torch.float64, device=pl_module.device)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the batch."""
        if self._counts is not None and self._binned is not None:
            self._counts += count_confusions(outputs["probabilities"], batch["label"])
            self._binned += bin_confidences(outputs["probabilities"], batch["label"], self.bins)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum over the processes; each takes part."""
        self._counts = torch.as_tensor(trainer.strategy.reduce(self._counts, reduce_op="sum"))
        self._binned = torch.as_tensor(trainer.strategy.reduce(self._binned, reduce_op="sum"))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, in one process; the calibration error is the one that is logged."""
        if not trainer.is_global_zero or self._counts is None or self._binned is None:
            return
        counts, binned = self._counts.cpu().numpy(), self._binned.cpu().numpy()
        folder = None if self.folder is None else Path(self.folder)
        listed = top_confusions(counts, self.class_names, 20)
        figure = draw_confusion(counts, self.class_names, [f"{c.true} → {c.predicted}   {c.count}" for c in listed])
        show(trainer, figure, "test/confusion", folder and folder / "confusion.png")
        error = float(trainer.callback_metrics.get("test/calibration_error", float("nan")))
        show(trainer, draw_reliability(binned, error), "test/calibration", folder and folder / "calibration.png")

    def results(self) -> dict[str, Any]:
        """What ``results.json`` tells of the last test: ``top_confusions``."""
        if self._counts is None:
            return {}
        listed = top_confusions(self._counts.cpu().numpy(), self.class_names, self.confusions)
        return {"top_confusions": [asdict(confusion) for confusion in listed]}
