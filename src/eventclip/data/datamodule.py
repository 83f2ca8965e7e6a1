"""The data module every data set shares: splits, few-shot draw, views and loaders."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from eventclip.data.dataset import EventFiles, PackedFiles, RecordingDataset, Sample
from eventclip.data.index import list_kept
from eventclip.data.loading import EvaluationBatches, ResumableLoader, TrainingBatches
from eventclip.data.pack_format import Listed
from eventclip.data.packed import PackedFolders
from eventclip.data.recordings import SPLITS, Recordings
from eventclip.data.view_maker import Augmentation, ViewMaker
from eventclip.data.views import views_per_recording
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer
from eventclip.events.readers import READABLE_SUFFIXES

Draw = Callable[[Recordings], NDArray[np.int64]]
"""A few-shot draw: recordings of the training split -> the indices to train on, repeats allowed."""


class EventDataModule(LightningDataModule, ABC):
    """Recordings of labelled classes, as batches of views.

    A data set is a subclass that says where its splits lie (:meth:`list_split`) and what its classes are called
    (:meth:`name_of`); its constants are keyword arguments, given by its YAML.

    Args:
        root: the data set's folder; not needed where it is ``packed``.
        renderer: events -> frames.
        image_size: side S of CLIP's input [px]; an attribute, to be set before a loader is asked for.
        draw: few-shot draw on the training split; None trains on all of it.
        sensor_hw: sensor height and width [px]; None takes each file's own.
        percentile_events: 95th percentile of events per recording, which decides the number of views.
        training_views: most views per recording in training (the paper's 2).
        evaluation_views: most views per recording in evaluation (the paper's 10).
        fit: how a frame becomes square: "crop", "pad" or "stretch".
        augmentation: what training changes at random; None = nothing, the evaluation views are trained on.
        selection: what validation looks at: "validation", "test", or None for no validation at all.
        splits: folders of "training", "validation" and "test" below ``root``, where they are not the data set's own.
        holdout: fraction of each class held out where a split has no folder of its own, in (0, 1).
        class_names: names for the prompts in the order of the class folders, or a map from folder to name; None
            takes the data set's own.
        file_format: reader by name; None tells it by each file's suffix.
        batch_size: training recordings per optimizer step, over all processes together.
        evaluation_batch_size: recordings per evaluation batch in each process.
        num_workers: loader processes in each training process; results do not depend on it.
        seed: seed of order and augmentation.
        packed: file or files made by ``eventclip.pack``, read in place of the folder; None reads the folder.
        cache: folder to keep listings in, see :mod:`eventclip.data.index`; None lists at every start.
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
        holdout: float = 0.2,
        class_names: Sequence[str] | dict[str, str] | None = None,
        file_format: str | None = None,
        batch_size: int = 32,
        evaluation_batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        packed: str | Path | Sequence[str | Path] | None = None,
        cache: str | Path | None = None,
    ) -> None:
        super().__init__()
        if selection not in (None, "validation", "test"):
            raise UserError(f"selection must look at 'validation', 'test' or nothing (null), got {selection!r}")
        if min(batch_size, evaluation_batch_size) < 1 or num_workers < 0:
            raise UserError(
                f"data.batch_size={batch_size} and data.evaluation_batch_size={evaluation_batch_size} must be 1 or "
                f"more and data.num_workers={num_workers} 0 or more"
            )
        if not 0.0 < holdout < 1.0:
            raise UserError(f"data.holdout must lie between 0 and 1, got {holdout}")
        unknown = set(splits or {}) - set(SPLITS)
        if unknown:
            raise UserError(f"data.splits names {min(unknown)!r}; the splits are {', '.join(SPLITS)}")
        self.packed = None if packed is None else PackedFolders(packed)
        if self.packed is None and root is None:
            raise UserError(
                "data.root is missing: give the data set's folder, or a file that it was packed into by data.packed"
            )
        self.root = Path(str(root)).expanduser() if self.packed is None else self.packed.packs[0].path
        self.splits, self.holdout = dict(splits or {}), holdout
        self.draw = draw
        self.files = EventFiles(sensor_hw=sensor_hw, file_format=file_format)
        if self.packed is not None:
            self.files = PackedFiles(self.packed, self.root, sensor_hw=sensor_hw)
        self.cache = cache
        self.listed_folders: dict[str, Listed] = {}
        self.selection = selection
        self._class_names = class_names
        self.batch_size, self.evaluation_batch_size = batch_size, evaluation_batch_size
        self.num_workers, self.seed = num_workers, seed

        self.renderer, self.image_size, self.fit = renderer, image_size, fit
        self.augmentation = augmentation
        self.training_views = views_per_recording(percentile_events, renderer.events_per_frame, training_views)
        self.evaluation_views = views_per_recording(percentile_events, renderer.events_per_frame, evaluation_views)
        self._listed: dict[str, Recordings] = {}
        self._training: Recordings | None = None

    # What a data set says about itself

    @abstractmethod
    def list_split(self, split: str) -> Recordings:
        """List the recordings of ``split`` ("training", "validation" or "test") without loading any.

        Raises:
            UserError: the folder is missing (what was looked for and the layout expected), or a class is empty.
        """

    def name_of(self, class_folder: str) -> str:
        """The class's name as prompts say it; by default the folder's name in lower case, ``_`` as a space."""
        return class_folder.lower().replace("_", " ")

    # What everybody may ask

    def split(self, split: str) -> Recordings:
        """All recordings of a split, listed once."""
        if split not in self._listed:
            self._listed[split] = self.list_split(split)
        return self._listed[split]

    def list_folder(
        self, folder: str, *, suffixes: Sequence[str] = READABLE_SUFFIXES, root: Path | None = None
    ) -> Recordings:
        """List ``root/folder/<class>/<recording>``, from the pack where there is one; every split is made of these.

        Args:
            folder: path below the root, "." for the root itself.
            suffixes: endings of files that are recordings.
            root: where it is not the data set's own.

        Raises:
            UserError: as :func:`eventclip.data.recordings.list_recordings`, or it is not packed.
        """
        if folder not in self.listed_folders:
            if self.packed is not None:
                listed = self.packed.listing(self.root, folder, suffixes=suffixes)
            else:
                listed = list_kept(root or self.root, folder, suffixes=suffixes, cache=self.cache)
            self.listed_folders[folder] = Listed(folder, tuple(suffixes), True, listed)
        return self.listed_folders[folder].recordings

    def has_folder(self, folder: str) -> bool:
        """Whether there is such a folder below the root."""
        return (self.root / folder).is_dir() if self.packed is None else folder in self.packed.folders

    @property
    def class_folders(self) -> tuple[str, ...]:
        """Folder names of the classes; a class's place in them is its label."""
        return self.split("test").class_folders

    @property
    def class_names(self) -> list[str]:
        """Names of the classes for prompts, in order of their labels."""
        folders = self.class_folders
        given = self._class_names
        if given is None:
            return [self.name_of(folder) for folder in folders]
        if isinstance(given, dict):
            unknown = sorted(set(given) - set(folders))
            if unknown:
                raise UserError(f"data.class_names names {unknown[0]!r}, which is no class folder of {self.root}")
            return [given.get(folder, self.name_of(folder)) for folder in folders]
        if len(given) != len(folders):
            raise UserError(
                f"data.class_names has {len(given)} names and {self.root} has {len(folders)} class folders "
                f"({', '.join(folders[:3])}, ...): give one name for each folder, in sorted order"
            )
        return [str(name) for name in given]

    @property
    def training(self) -> Recordings:
        """The recordings trained on: the few-shot draw, or the whole training split."""
        if self._training is None:
            everything = self.split("training")
            if everything.class_folders != self.class_folders:
                odd = sorted(set(everything.class_folders) ^ set(self.class_folders))
                raise UserError(
                    f"training and test of {self.root} differ in their class folders: {odd[0]!r} is in one of them only"
                )
            self._training = everything if self.draw is None else everything.subset(self.draw(everything))
        return self._training

    def recordings(self, stage: str) -> Recordings:
        """The recordings behind the loader of ``stage``: "fit", "validate" or "test"."""
        if stage == "fit":
            return self.training
        return self.split("test" if stage == "test" or self.selection == "test" else "validation")

    # Loaders

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

    def train_dataloader(self) -> DataLoader[Sample]:
        """Training batches, resumable between any two of them."""
        dataset = RecordingDataset(self.training, self.files, self.view_maker("fit"), seed=self.seed)
        batches = TrainingBatches(
            len(dataset), self.batch_size, seed=self.seed, position=self._position, **self._ranks()
        )
        return ResumableLoader(dataset, batches, num_workers=self.num_workers, pin_memory=torch.cuda.is_available())

    def val_dataloader(self) -> list[DataLoader[Sample]]:
        """Evaluation batches of the split that selection looks at; no loader where there is none."""
        return [] if self.selection is None else [self.evaluation_loader("validate")]

    def test_dataloader(self) -> DataLoader[Sample]:
        """Evaluation batches of the test split."""
        return self.evaluation_loader("test")

    def evaluation_loader(self, stage: str) -> DataLoader[Sample]:
        """Each recording of ``stage`` once, evaluation views, in order."""
        dataset = RecordingDataset(self.recordings(stage), self.files, self.view_maker(stage))
        return DataLoader(
            dataset,
            batch_sampler=EvaluationBatches(len(dataset), self.evaluation_batch_size, **self._ranks()),
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def view_maker(self, stage: str) -> ViewMaker:
        """Events -> views as ``stage`` needs them: augmented in "fit", deterministic in "validate" and "test"."""
        fitting = stage == "fit"
        return ViewMaker(
            self.renderer,
            image_size=self.image_size,
            max_views=self.training_views if fitting else self.evaluation_views,
            fit=self.fit,
            augmentation=self.augmentation if fitting else None,
        )

    def describe(self) -> dict[str, Any]:
        """Plain values for ``results.json``: folder, counts and checksums of what was trained and tested on."""
        used = {"training": self.training, "test": self.split("test")}
        if self.selection == "validation":
            used["validation"] = self.split("validation")
        return {
            "data_set": type(self).__name__,
            "root": str(self.root),
            "packed": None if self.packed is None else [str(pack.path) for pack in self.packed.packs],
            "classes": len(self.class_names),
            "recordings": {split: len(recordings) for split, recordings in used.items()},
            "checksums": {split: recordings.checksum() for split, recordings in used.items()},
        }
