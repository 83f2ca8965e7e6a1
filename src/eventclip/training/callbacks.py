"""What a run leaves to look at: pictures of predictions, the test's diagnostics, a table of every recording."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from eventclip.datasets.dataset import RecordingDataset
from eventclip.errors import UserError
from eventclip.plots.diagnostics import draw_confusion, draw_predictions, draw_reliability
from eventclip.plots.style import as_pixels, save_pixels
from eventclip.prediction_table import label_cells, label_columns, write_csv


def log_figure(trainer: Trainer, figure: Figure, tag: str, path: Path | None = None) -> None:
    """Draw a figure once, and put it into TensorBoard under ``tag`` and, where a path is given, into a PNG file."""
    pixels = as_pixels(figure)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, pixels, global_step=trainer.global_step, dataformats="HWC")
    if path is not None:
        save_pixels(path, pixels)


_SECONDS_BETWEEN_PICTURES = 60.0  # of validations: drawing one takes longer than a small adapter's epoch


class PredictionPictures(Callback):
    """Draw recordings spread over the split with their top-3 predictions, at the end of validation and of test.

    While training, validations are drawn at most once a minute, and the last one is.

    Args:
        class_names: K names.
        folder: where ``<stage>.png`` goes as well; None writes to TensorBoard only.
        count: recordings in the picture.
    """

    def __init__(self, class_names: Sequence[str], *, folder: str | None = None, count: int = 8) -> None:
        self.class_names, self.folder, self.count = list(class_names), folder, count
        self._cells: list[tuple[NDArray[np.uint8], NDArray[np.float32], int]] = []
        self._wanted: set[int] = set()
        self._drawn_at: float | None = None
        self._waiting = False
        self._dataset: RecordingDataset  # has the views where batches hold features

    def _start(self, trainer: Trainer, stage: str) -> None:
        self._cells = []
        self._dataset = trainer.datamodule.dataset(stage)  # type: ignore[attr-defined]
        size = len(self._dataset)
        self._wanted = {int(i) for i in np.linspace(0, size - 1, min(self.count, size))}

    def _draw(self, trainer: Trainer, stage: str) -> None:
        if not self._cells or trainer.sanity_checking or not trainer.is_global_zero:
            return
        views, probabilities, labels = zip(*self._cells, strict=True)
        figure = draw_predictions(views, np.stack(probabilities), labels, self.class_names)
        path = None if self.folder is None else Path(self.folder) / f"{stage}.png"
        log_figure(trainer, figure, f"{stage}/predictions", path)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the recordings."""
        self._start(trainer, "validate")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the chosen recordings of the batch; a test batch has them in the same place."""
        for row, index in enumerate(batch["index"].tolist()):
            if index in self._wanted:
                views = batch["views"][row] if "views" in batch else self._dataset[0, index]["views"]
                view = views[int(batch["valid"][row].int().argmax())].cpu().numpy()
                probabilities = outputs["probabilities"][row].float().cpu().numpy()
                self._cells.append((view, probabilities, int(batch["label"][row])))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw, unless that was done a moment ago."""
        now = time.monotonic()
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._waiting = fitting and now < (self._drawn_at or now) + _SECONDS_BETWEEN_PICTURES
        if self._waiting:
            self._drawn_at = self._drawn_at or now
        else:
            self._draw(trainer, "validate")
            self._drawn_at = now

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the last validation, if it was not."""
        if self._waiting:
            self._draw(trainer, "validate")
        self._waiting = False

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the recordings."""
        self._start(trainer, "test")

    on_test_batch_end = on_validation_batch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        self._draw(trainer, "test")


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


def bin_confidences(confidence: Tensor, right: Tensor, bins: int) -> Tensor:
    """Sort recordings into equal bins of their highest probability.

    Args:
        confidence: (B,) the highest probability of each, in [0, 1].
        right: (B,) bool, whether it is that of the true class.
        bins: a bin holds its lower edge; the last one also holds 1.

    Returns:
        (3, bins) float64: recordings, sum of their highest probabilities, recordings that were right.
    """
    confidence = confidence.double()
    place = (confidence * bins).long().clamp(0, bins - 1)
    sums = torch.zeros(3, bins, dtype=torch.float64, device=confidence.device)
    for row, values in zip(sums, (torch.ones_like(confidence), confidence, right), strict=True):
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
            confidence, predicted = outputs["probabilities"].max(dim=1)
            self._binned += bin_confidences(confidence, predicted == batch["label"], self.bins)

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
        log_figure(trainer, figure, "test/confusion", folder and folder / "confusion.png")
        error = float(trainer.callback_metrics.get("test/calibration_error", float("nan")))
        log_figure(trainer, draw_reliability(binned, error), "test/calibration", folder and folder / "calibration.png")

    def results(self) -> dict[str, Any]:
        """What ``results.json`` tells of the last test: ``top_confusions``."""
        if self._counts is None:
            return {}
        listed = top_confusions(self._counts.cpu().numpy(), self.class_names, self.confusions)
        return {"top_confusions": [asdict(confusion) for confusion in listed]}


class _Row(NamedTuple):
    """One recording: its place in the split, its label, its label's probability, the best classes and theirs."""

    place: int
    label: int
    label_probability: float
    best: NDArray[np.int64]
    probabilities: NDArray[np.float32]


class PredictionTable(Callback):
    """Write a CSV with a row for each tested recording, in the order of the split.

    Its columns: recording (path relative to the data set's folder), class (the true one), class_probability, and then
    label, probability, label_2, probability_2, ... from the most probable class on, as ``eventclip predict`` names
    them. Probabilities are the mean over views of each view's softmax, with all digits of their float32.

    Args:
        class_names: K names.
        file: the CSV, which appears whole once the test has ended.
        top: how many classes to list for each recording.
    """

    def __init__(self, class_names: Sequence[str], *, file: str, top: int = 5) -> None:
        if top < 1:
            raise UserError(f"callbacks.table.top must be 1 or more, got {top}")
        self.class_names, self.file, self._most = list(class_names), Path(file), top
        self._rows: list[_Row] = []

    @property
    def top(self) -> int:
        """How many classes are listed for each recording."""
        return min(self._most, len(self.class_names))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an empty table."""
        self._rows = []

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the best classes of each recording of the batch."""
        probabilities = outputs["probabilities"].float().cpu().numpy()
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.top]
        rows = zip(batch["index"].tolist(), batch["label"].tolist(), probabilities, best, strict=True)
        for index, label, found, classes in rows:
            self._rows.append(_Row(index, label, float(found[label]), classes, found[classes]))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring together what the processes have, and write it."""
        gathered = [self._rows]
        if trainer.world_size > 1:
            gathered = [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(gathered, self._rows)
        if trainer.is_global_zero:
            self._write(sorted((row for rows in gathered for row in rows), key=lambda row: row.place), trainer)

    def _write(self, rows: Sequence[_Row], trainer: Trainer) -> None:
        recordings = trainer.datamodule.recordings("test")  # type: ignore[attr-defined]
        columns = ["recording", "class", "class_probability", *label_columns(self.top)]
        cells = (
            {
                "recording": recordings.relative(row.place),
                "class": self.class_names[row.label],
                "class_probability": f"{row.label_probability:.9g}",
                **label_cells(
                    {"label": self.class_names[label], "probability": f"{value:.9g}"}
                    for label, value in zip(row.best, row.probabilities, strict=True)
                ),
            }
            for row in rows
        )
        write_csv(self.file, columns, cells)
