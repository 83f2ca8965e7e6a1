"""Pictures of what the model saw: event frames with their top predictions, in TensorBoard and as a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eventclip.datasets.dataset import RecordingDataset
from eventclip.files import whole_file
from eventclip.views.square import as_image

_WRONG, _RIGHT = "#b3261e", "#1b6e3c"


def draw_predictions(
    frames: Sequence[NDArray[np.uint8]],
    probabilities: NDArray[np.floating[Any]],
    labels: Sequence[int],
    class_names: Sequence[str],
    *,
    top: int = 3,
) -> Figure:
    """Draw recordings side by side, each with its true class and the most probable ones.

    Args:
        frames: one frame per recording, uint8 (S, S) gray or (S, S, 3).
        probabilities: (n, K), in [0, 1].
        labels: n true classes.
        class_names: K names.
        top: how many classes to list under each frame.

    Returns:
        A figure with one cell per recording; the true class is green where it was found and red where not.
    """
    columns = min(4, len(frames))
    rows = -(-len(frames) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.3 * rows), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, frame, row, label in zip(axes, frames, probabilities, labels, strict=False):
        axis.imshow(frame, cmap="gray", vmin=0, vmax=255)
        best = np.argsort(-row, kind="stable")[:top]
        axis.set_title(class_names[label], color=_RIGHT if best[0] == label else _WRONG, fontsize=10)
        guesses = "\n".join(f"{class_names[k]}  {100 * row[k]:.0f} %" for k in best)
        axis.text(0.5, -0.04, guesses, transform=axis.transAxes, ha="center", va="top", fontsize=8)
    return figure


def show(trainer: Trainer, figure: Figure, tag: str, path: Path | None = None) -> None:
    """Draw a figure once, and put it into TensorBoard under ``tag`` and, where a path is given, into a PNG file."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, pixels, global_step=trainer.global_step, dataformats="HWC")
    if path is not None:
        with whole_file(path) as part:
            Image.fromarray(pixels).save(part, format="PNG")


class PredictionPictures(Callback):
    """Draw recordings spread over the split with their top-3 predictions, at the end of validation and of test.

    Args:
        class_names: K names.
        folder: where ``<stage>.png`` goes as well; None writes to TensorBoard only.
        count: recordings in the picture.
    """

    def __init__(self, class_names: Sequence[str], *, folder: str | None = None, count: int = 8) -> None:
        self.class_names, self.folder, self.count = list(class_names), folder, count
        self._cells: list[tuple[NDArray[np.uint8], NDArray[np.float32], int]] = []
        self._wanted: set[int] = set()
        self._dataset: RecordingDataset  # has the views where batches hold features

    def _start(self, trainer: Trainer, stage: str) -> None:
        self._cells = []
        self._dataset = trainer.datamodule.dataset(stage)  # type: ignore[attr-defined]
        size = len(self._dataset)
        self._wanted = {int(i) for i in np.linspace(0, size - 1, min(self.count, size))}

    def _collect(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> None:
        for row, index in enumerate(batch["index"].tolist()):
            if index in self._wanted:
                views = batch["views"][row] if "views" in batch else self._dataset[0, index]["views"]
                view = views[int(batch["valid"][row].int().argmax())]
                probabilities = outputs["probabilities"][row].float().cpu().numpy()
                self._cells.append((as_image(view.cpu().numpy()), probabilities, int(batch["label"][row])))

    def _draw(self, trainer: Trainer, stage: str) -> None:
        if not self._cells or trainer.sanity_checking or not trainer.is_global_zero:
            return
        frames, probabilities, labels = zip(*self._cells, strict=True)
        figure = draw_predictions(frames, np.stack(probabilities), labels, self.class_names)
        path = None if self.folder is None else Path(self.folder) / f"{stage}.png"
        show(trainer, figure, f"{stage}/predictions", path)

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
        self._collect(outputs, batch)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        self._draw(trainer, "validate")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the recordings."""
        self._start(trainer, "test")

    on_test_batch_end = on_validation_batch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        self._draw(trainer, "test")
