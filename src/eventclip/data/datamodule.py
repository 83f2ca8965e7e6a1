"""The data module every data set shares: splits, few-shot draw, views and loaders."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from eventclip.data.dataset import EventFiles, PackedFiles, RecordingDataset, Sample
from eventclip.data.holdout import hold_out
from eventclip.data.index import list_kept
from eventclip.data.inspection import find_unreadable, without
from eventclip.data.loading import EvaluationBatches, ResumableLoader, TrainingBatches, heed_parent_only
from eventclip.data.pack_format import Listed
from eventclip.data.packed import PackedFolders
from eventclip.data.recordings import SPLITS, Recordings, read_class_list
from eventclip.data.view_maker import Augmentation, ViewMaker
from eventclip.data.views import views_per_recording
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer
from eventclip.events.readers import READABLE_SUFFIXES

log = logging.getLogger(__name__)

Draw = Callable[[Recordings], Recordings]
"""A few-shot draw: the training split -> what to train on, repeats allowed, labels possibly a teacher's."""

Bank = Callable[[RecordingDataset], Dataset[Sample]]
"""Samples with views -> the same samples, asked for by the same keys, with "features" (V, D) in place of "views"."""


class EventDataModule(LightningDataModule, ABC):
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
        file_format: reader by name; None tells it by each file's suffix.
        time_unit: unit of time in tables, "s", "ms", "us" or "ns"; None tells it by each file's numbers.
        on_bad_recording: "error", or "skip" to read all recordings once beforehand and to leave out those that
            cannot be used: they are warned about, and named in ``results.json``.
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
        variant: str | int | None = None,
        classes: Sequence[str] | str | None = None,
        holdout: float = 0.2,
        class_names: Sequence[str] | dict[str, str] | None = None,
        file_format: str | None = None,
        time_unit: str | None = None,
        on_bad_recording: str = "error",
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
        if on_bad_recording not in ("error", "skip"):
            raise UserError(f"data.on_bad_recording must be error or skip, got {on_bad_recording!r}")
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
        self.variant = self._variant(variant)
        self.classes = read_class_list(classes) if isinstance(classes, str) else classes
        self.draw = draw
        self.files = EventFiles(sensor_hw=sensor_hw, file_format=file_format, time_unit=time_unit)
        if self.packed is not None:
            self.files = PackedFiles(self.packed, self.root, sensor_hw=sensor_hw)
        self.on_bad_recording = on_bad_recording
        self.cache = cache
        self.listed_folders: dict[str, Listed] = {}
        self.selection = selection
        self._class_names = class_names
        self.batch_size, self.evaluation_batch_size = batch_size, evaluation_batch_size
        self.num_workers, self.seed = num_workers, seed

        self.renderer, self.image_size, self.fit = renderer, image_size, fit
        self.augmentation, self.percentile_events = augmentation, percentile_events
        self.training_views = views_per_recording(percentile_events, renderer.events_per_frame, training_views)
        self.evaluation_views = views_per_recording(percentile_events, renderer.events_per_frame, evaluation_views)
        self.bank: Bank | None = None
        self.tested = "test"
        self._listed: dict[str, Recordings] = {}
        self._used: dict[str, Recordings] = {}
        self._unreadable: dict[str, dict[str, str]] = {}

    # What a data set says about itself

    own_splits: tuple[str, ...] = SPLITS
    """Splits with a folder of their own; without one for validation, a part of each training class is held out."""

    variants: ClassVar[tuple[str, ...]] = ()
    """Names of its other test sets, in order of their numbers."""

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
            self._listed[split] = self.list_split(split) if split in self.own_splits else self._held_out()
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
            classes = self._classes_of(folder)
            if self.packed is not None:
                listed = self.packed.listing(self.root, folder, class_folders=classes, suffixes=suffixes)
            else:
                where = root or self.root
                listed = list_kept(where, folder, class_folders=classes, suffixes=suffixes, cache=self.cache)
            self.listed_folders[folder] = Listed(folder, tuple(suffixes), classes is None, listed)
        return self.listed_folders[folder].recordings

    def _classes_of(self, folder: str) -> Sequence[str] | None:
        """The wanted classes that a split's folder has, None for all; none at all is told by whoever lists it."""
        if self.classes is None:
            return None
        if self.packed is not None:
            there = [name for name in self.classes if name in self.packed.classes(folder)]
        else:
            there = [name for name in self.classes if (self.root / folder / name).is_dir()]
        if not 0 < len(there) < len(self.classes):
            return self.classes
        log.warning("%s has %d of the %d classes asked for", self.root / folder, len(there), len(self.classes))
        return there

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
            return [given[folder] if folder in given else self.name_of(folder) for folder in folders]
        if len(given) != len(folders):
            raise UserError(
                f"data.class_names has {len(given)} names and {self.root} has {len(folders)} class folders "
                f"({', '.join(folders[:3])}, ...): give one name for each folder, in sorted order"
            )
        return [str(name) for name in given]

    @property
    def training(self) -> Recordings:
        """The recordings trained on: the few-shot draw, or the whole training split."""
        return self.used("training")

    def used(self, split: str) -> Recordings:
        """The recordings of a split that a run reads.

        Training is drawn, and goes without what is held out for validation; all go without the unreadable ones where
        ``on_bad_recording`` is "skip", which are looked for once.
        """
        if split not in self._used:
            trains = split == "training" and self.tested != "training"
            wanted = self._drawn_to_train if trains else self.split(split)
            if self.on_bad_recording == "skip":
                wanted = without(wanted, self._unreadable_of(split, wanted))
            self._used[split] = wanted
        return self._used[split]

    def recordings(self, stage: str) -> Recordings:
        """The recordings behind the loader of ``stage``: "fit", "validate" or "test"."""
        if stage == "fit":
            return self.training
        if stage == "test":
            return self.used(self.tested)
        return self.used("test" if self.selection == "test" else "validation")

    @cached_property
    def _drawn(self) -> Recordings:
        """The few-shot draw, whatever is held out."""
        everything = self.split("training")
        if everything.class_folders != self.class_folders:
            odd = sorted(set(everything.class_folders) ^ set(self.class_folders))
            raise UserError(
                f"training and test of {self.root} differ in their class folders: {odd[0]!r} is in one of them only"
            )
        return everything if self.draw is None else self.draw(everything)

    @property
    def _drawn_to_train(self) -> Recordings:
        if self.selection != "validation" or "validation" in self.own_splits:
            return self._drawn
        held_out = np.isin(self._drawn.paths, self.split("validation").paths)
        return self._drawn.subset(np.flatnonzero(~held_out))

    def _held_out(self) -> Recordings:
        """The part of the training split to validate on: first of all what is not drawn, so that the shots stay."""
        if self.selection != "validation":
            raise UserError(
                f"{self.root} has no validation split of its own: selection=validation holds data.holdout of each "
                f"training class out"
            )
        everything = self.split("training")
        drawn = np.isin(everything.paths, self._drawn.paths)
        return everything.subset(np.flatnonzero(hold_out(everything, self.holdout, seed=self.seed, spared=drawn)))

    def _unreadable_of(self, split: str, wanted: Recordings) -> dict[str, str]:
        if split not in self._unreadable:
            found = find_unreadable(wanted, self.files, workers=self.num_workers, title=f"checking {split}")
            self._unreadable[split] = found
            if found:
                log.warning("%d %s recordings are left out, such as: %s", len(found), split, next(iter(found.values())))
        return self._unreadable[split]

    def setup(self, stage: str) -> None:
        """Let every process leave out what the first one does: reading may fail for one of them only."""
        if self.on_bad_recording == "skip" and self.trainer is not None and self.trainer.world_size > 1:
            self._unreadable = self.trainer.strategy.broadcast(self._unreadable)
            self._used.clear()

    def _variant(self, variant: str | int | None) -> str | None:
        """Name of a variant given by its name or number."""
        if variant is None or str(variant) in self.variants:
            return None if variant is None else str(variant)
        numbered = {str(number): name for number, name in enumerate(self.variants, 1)}
        if str(variant) not in numbered:
            choices = f"one of {', '.join(self.variants)}, or its number from 1 on" if self.variants else "null here"
            raise UserError(f"data.variant must be {choices}, got {variant!r}")
        return numbered[str(variant)]

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

    def dataset(self, stage: str) -> RecordingDataset:
        """Samples of ``stage`` with their views, whatever the loaders hand out."""
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
            version: test-time version, "as_is" in "fit" (see :data:`eventclip.data.view_maker.VERSIONS`).
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
