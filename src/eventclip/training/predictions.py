"""What was predicted for each recording, as a table that spreadsheets and pandas read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch.distributed
from lightning import Callback, LightningModule, Trainer
from numpy.typing import NDArray

from eventclip.errors import UserError
from eventclip.files import whole_file


class _Row(NamedTuple):
    """One recording: its place in the split, its label, its label's probability, the best classes and theirs."""

    place: int
    label: int
    own: float
    best: NDArray[np.int64]
    probabilities: NDArray[np.float32]


class PredictionTable(Callback):
    """Write a CSV with a row for each tested recording, in the order of the split.

    Its columns: path (relative to the data set's folder), class (the true one), class_probability, and then
    predicted, probability, predicted_2, probability_2, ... from the most probable class on. Probabilities are the mean
    over views of each view's softmax, with all digits of their float32.

    Args:
        class_names: K names.
        file: the CSV, which appears whole once the test has ended.
        top: how many classes to list for each recording.
    """

    def __init__(self, class_names: Sequence[str], *, file: str, top: int = 5) -> None:
        if top < 1:
            raise UserError(f"callbacks.table.top must be 1 or more, got {top}")
        self.class_names, self.file, self.top = list(class_names), Path(file), min(top, len(class_names))
        self._rows: list[_Row] = []

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
        pairs = zip(batch["index"].tolist(), batch["label"].tolist(), strict=True)
        for row, (index, label) in enumerate(pairs):
            own = probabilities[row]
            self._rows.append(_Row(index, label, float(own[label]), best[row], own[best[row]]))

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
        places = [f"_{place}" if place > 1 else "" for place in range(1, self.top + 1)]
        header = [name for place in places for name in (f"predicted{place}", f"probability{place}")]
        with (
            whole_file(self.file) as part,
            part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            table = csv.writer(file)
            table.writerow(["path", "class", "class_probability", *header])
            for row in rows:
                found = zip(row.best, row.probabilities, strict=True)
                listed = [cell for label, value in found for cell in (self.class_names[label], f"{value:.9g}")]
                own = f"{row.own:.9g}"
                table.writerow([recordings.relative(row.place), self.class_names[row.label], own, *listed])
