"""The data module every data set shares: recordings as batches of views."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from eventclip.datasets.dataset import RecordingDataset, Sample
from eventclip.datasets.samplers import EvaluationBatches, ResumableLoader, TrainingBatches, heed_parent_only
from eventclip.datasets.splits import Draw, RecordingSplits
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer
from eventclip.io.formats import ReadOptions
from eventclip.views.square import views_per_recording
from eventclip.views.transform import Augmentation, ViewMaker

Bank = Callable[[RecordingDataset], Dataset[Sample]]
"""Samples with views -> the same samples, asked for by the same keys, with "features" (V, D) in place of "views"."""


class EventDataModule(RecordingSplits, LightningDataModule):
    """Recordings of labelled classes, as batches of views.

    A data set is a subclass that says where its splits lie (:meth:`list_split`) and what its classes are called
    (:meth:`name_of`); its constants are keyword arguments, given by its YAML.

    Args:
        root: the data set's folder; not needed where it is ``packed``.
        renderer: events -> frames.
        image_size: side S of CLIP's input [px]; an attribute, to be set before a loader is asked for. So is ``bank``:
            what makes of samples with views the same samples with features; None hands the views out. And ``tested``,
            the split that the test stage looks at: "test" unless set otherwise; "training" is all of it, no draw.
        draw: few-shot draw on the training split; None trains on all of it.
        sensor_hw: sensor height and width [px]; None takes each file's own.
        percentile_events: 95th percentile of events per recording, which decides the number of views.
        training_views: most views per recording in training (the paper's 2).
        evaluation_views: most views per recording in evaluation (the paper's 10).
        fit: how a frame becomes square: "crop", "pad" or "stretch".
        augmentation: what training changes at random; None = nothing, the evaluation views are trained on.
        selection: what validation looks at: "validation", "test", or None for no validation at all.
        splits: folders of "training", "validation" and "test" below ``root``, where they are not the data set's own.
        variant: which of the data set's other test sets is tested on, by name or by number from 1; None = its main one.
        classes: class folders to take, in order of their labels, or a text file with one at the start of each line;
            those that are not there are left out with a warning. None takes all.
        holdout: fraction of each class held out where a split has no folder of its own, in (0, 1).
        class_names: names for the prompts in the order of the class folders, or a map from folder to name; None
            takes the data set's own.
        file_format: reader by name; None tells it by each file's suffix. This and the next five are
            :class:`eventclip.io.formats.ReadOptions`.
        time_unit: unit of time in tables, "s", "ms", "us" or "ns"; None tells it by each file's numbers.
        columns: order of the columns of tables without names, such as "xytp"; None tells it.
        stream: which of several streams of a file, by name or number; None where there is one.
        sort: whether events out of order are sorted by time, stably.
        drop_outside: whether events outside the sensor are left out.
        on_bad_recording: "error", or "skip" to read all recordings once beforehand and to leave out those that
            cannot be used: they are warned about, and named in ``results.json``.
        batch_size: training recordings per optimizer step, over all processes together.
        evaluation_batch_size: recordings per evaluation batch in each process.
        num_workers: loader processes in each training process; results do not depend on it.
        seed: seed of order and augmentation.
        packed: file or files made by ``eventclip.pack``, read in place of the folder; None reads the folder.
        cache: folder to keep listings in, see :mod:`eventclip.datasets.index`; None lists at every start.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        renderer: FrameRenderer,
        image_size: int = 224,
        draw: Draw | None = None,
        sensor_hw: Sequence[int] | None = None,
        percentile_events: int,
        training_views: int = 2,
        evaluation_views: int = 10,
        fit: str = "crop",
        augmentation: Augmentation | None = None,
        selection: str | None = None,
        splits: dict[str, str] | None = None,
        variant: str | int | None = None,
        classes: Sequence[str] | str | None = None,
        holdout: float = 0.2,
        class_names: Sequence[str] | dict[str, str] | None = None,
        file_format: str | None = None,
        time_unit: str | None = None,
        columns: str | None = None,
        stream: str | int | None = None,
        sort: bool = False,
        drop_outside: bool = False,
        on_bad_recording: str = "error",
        batch_size: int = 32,
        evaluation_batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        packed: str | Path | Sequence[str | Path] | None = None,
        cache: str | Path | None = None,
    ) -> None:
        LightningDataModule.__init__(self)
        super().__init__(
            root=root,
            packed=packed,
            cache=cache,
            sensor_hw=sensor_hw,
            reading=ReadOptions(
                file_format, time_unit, columns, None if stream is None else str(stream), sort, drop_outside
            ),
            splits=splits,
            variant=variant,
            classes=classes,
            class_names=class_names,
            draw=draw,
            selection=selection,
            holdout=holdout,
            on_bad_recording=on_bad_recording,
            num_workers=num_workers,
            seed=seed,
        )
        if min(batch_size, evaluation_batch_size) < 1 or num_workers < 0:
            raise UserError(
                f"data.batch_size={batch_size} and data.evaluation_batch_size={evaluation_batch_size} must be 1 or "
                f"more and data.num_workers={num_workers} 0 or more"
            )
        self.batch_size, self.evaluation_batch_size = batch_size, evaluation_batch_size
        self.renderer, self.image_size, self.fit = renderer, image_size, fit
        self.augmentation, self.percentile_events = augmentation, percentile_events
        self.training_views = views_per_recording(percentile_events, renderer.events_per_frame, training_views)
        self.evaluation_views = views_per_recording(percentile_events, renderer.events_per_frame, evaluation_views)
        self.bank: Bank | None = None

    def setup(self, stage: str) -> None:
        """Let every process leave out what the first one does: reading may fail for one of them only."""
        if self.on_bad_recording == "skip" and self.trainer is not None and self.trainer.world_size > 1:
            self._unreadable = self.trainer.strategy.broadcast(self._unreadable)
            self._used.clear()

    def _ranks(self) -> dict[str, int]:
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch, whatever the number of processes."""
        accumulate = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        return math.ceil(self._batches_per_epoch / accumulate)

    @property
    def _batches_per_epoch(self) -> int:
        batches = math.ceil(len(self.training) / self.batch_size)
        limit = 1.0 if self.trainer is None else self.trainer.limit_train_batches
        return min(batches, limit) if isinstance(limit, int) else int(batches * limit)

    def _position(self) -> tuple[int, int]:
        """Epoch and batches done, told from the optimizer steps: what the weights have really seen."""
        if self.trainer is None:
            return 0, 0
        epoch, steps = divmod(self.trainer.global_step, self.steps_per_epoch)
        return epoch, steps * self.trainer.accumulate_grad_batches

    def dataset(self, stage: str) -> RecordingDataset:
        """Samples of ``stage`` with their views, whatever the loaders hand out."""
        self.tell_notes(stage)
        return RecordingDataset(self.recordings(stage), self.files, self.view_maker(stage), seed=self.seed)

    def _samples(self, stage: str) -> tuple[Dataset[Sample], int]:
        """What the loader of ``stage`` reads, and with how many processes: features are at hand, views are made."""
        dataset = self.dataset(stage)
        return (dataset, self.num_workers) if self.bank is None else (self.bank(dataset), 0)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Training batches, resumable between any two of them."""
        samples, workers = self._samples("fit")
        return ResumableLoader(
            samples, self._training_batches(), num_workers=workers, pin_memory=torch.cuda.is_available()
        )

    def _training_batches(self) -> TrainingBatches:
        return TrainingBatches(
            len(self.training), self.batch_size, seed=self.seed, position=self._position, **self._ranks()
        )

    def dealt(self, batch_idx: int) -> tuple[int, int]:
        """Recordings of a training batch: (this process's, all processes'); see :meth:`TrainingBatches.dealt`."""
        return self._training_batches().dealt(batch_idx)

    def val_dataloader(self) -> list[DataLoader[Sample]]:
        """Evaluation batches of the split that selection looks at; no loader where there is none."""
        return [] if self.selection is None else [self.evaluation_loader("validate")]

    def test_dataloader(self) -> DataLoader[Sample]:
        """Evaluation batches of the split that is tested."""
        return self.evaluation_loader("test")

    def evaluation_loader(self, stage: str) -> DataLoader[Sample]:
        """Each recording of ``stage`` once, evaluation views, in order."""
        samples, workers = self._samples(stage)
        size = len(self.recordings(stage))
        return DataLoader(
            samples,
            batch_sampler=EvaluationBatches(size, self.evaluation_batch_size, **self._ranks()),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=heed_parent_only,
        )

    def view_maker(self, stage: str, *, version: str = "as_is") -> ViewMaker:
        """Events -> views as ``stage`` needs them: augmented in "fit", deterministic in "validate" and "test".

        Args:
            stage: "fit", "validate" or "test".
            version: test-time version, "as_is" in "fit" (see :data:`eventclip.views.transform.VERSIONS`).
        """
        fitting = stage == "fit"
        return ViewMaker(
            self.renderer,
            image_size=self.image_size,
            max_views=self.training_views if fitting else self.evaluation_views,
            fit=self.fit,
            augmentation=self.augmentation if fitting else None,
            version=version,
        )

    def describe(self, *, training: bool = True) -> dict[str, Any]:
        """Plain values for ``results.json``: folder, counts and checksums of what was trained and tested on.

        Args:
            training: whether there is training at all; without it the data set needs no training split.
        """
        used = ({"training": self.training} if training else {}) | {"test": self.recordings("test")}
        if training and self.selection == "validation":
            used["validation"] = self.used("validation")
        guessed = self.training.guessed if training else None
        return {
            "data_set": type(self).__name__,
            "root": str(self.root),
            "packed": None if self.packed is None else [str(pack.path) for pack in self.packed.packs],
            "classes": len(self.class_names),
            "recordings": {split: len(recordings) for split, recordings in used.items()},
            "pseudo_labelled": 0 if guessed is None else int(guessed.sum()),
            "checksums": {split: recordings.checksum() for split, recordings in used.items()},
            "skipped": {
                split: {"count": len(causes), "causes": causes} for split, causes in self._unreadable.items() if causes
            },
        }
