"""How long each batch takes in a real run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer

from eventclip.files import write_json


class Clock(Callback):
    """Write the times from the end of a batch to the end of the next one, loading and all, as lists by stage [s].

    Args:
        file: JSON to write when a test ends.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.taken: dict[str, list[float]] = {"fit": [], "validate": []}
        self.last: float | None = None

    def _lap(self, stage: str) -> None:
        now = time.perf_counter()
        if self.last is not None:
            self.taken[stage].append(now - self.last)
        self.last = now

    def on_train_epoch_start(self, *_: Any) -> None:
        """The first batch of an epoch waits for the workers and does not count."""
        self.last = None

    def on_validation_epoch_start(self, *_: Any) -> None:
        """Alike."""
        self.last = None

    def on_train_batch_end(self, *_: Any) -> None:
        """A training step is done."""
        self._lap("fit")

    def on_validation_batch_end(self, *_: Any) -> None:
        """A batch is evaluated."""
        self._lap("validate")

    def on_test_end(self, trainer: Trainer, *_: Any) -> None:
        """Tell."""
        write_json(self.file, self.taken)
