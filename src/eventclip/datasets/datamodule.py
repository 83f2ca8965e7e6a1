"""The data module every data set shares: what its splits hold, and their recordings as batches of views."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from eventclip.class_names import check_class_names
from eventclip.datasets.audit import find_unreadable, without
from eventclip.datasets.dataset import RecordingDataset, Sample, collate
from eventclip.datasets.packs import Listed, PackedFolders
from eventclip.datasets.recordings import SPLITS, Recordings, list_kept, read_class_list
from eventclip.datasets.samplers import EvaluationBatches, ResumableLoader, TrainingBatches, heed_parent_only
from eventclip.datasets.sampling import Sampling, stratified_split
from eventclip.datasets.sources import EventFiles, PackedFiles
from eventclip.errors import RecordingError, UserError
from eventclip.events.frames import FrameRenderer, views_per_recording
from eventclip.files import printable
from eventclip.io.formats import ReadOptions, readable_suffixes
from eventclip.views.augment import Augmentation
from eventclip.views.transform import ViewTransform

log = logging.getLogger(__name__)

FeatureCache = Callable[[RecordingDataset], Dataset[Sample]]
"""Samples with views -> the same samples, asked for by the same keys, with "features" (v, D) in place of "views"."""


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """What is looked at of a recording.

    Attributes:
        training_views: most views per recording in training (the paper's 2).
        evaluation_views: most views per recording in evaluation (the paper's 10).
        resize_mode: how a frame becomes square: "crop", "pad" or "stretch".
    """

    training_views: int = 2
    evaluation_views: int = 10
    resize_mode: str = "crop"


class EventDataModule(LightningDataModule):
    """Recordings of labelled classes, as batches of views.

    A data set is a subclass that says what is special about it, in class attributes; one whose folders are no matter of
    names overrides :meth:`list_split`, and one whose classes have no list of names :meth:`name_of`.

    Example:
        >>> from eventclip.datasets.datamodule import EventDataModule
        >>> class TurnsDataModule(EventDataModule):
        ...     sensor_hw = (128, 128)
        ...     events_per_frame = 5_000
        ...     folders = {"training": "train", "test": "test"}
        ...     names = {"lft": "a turn to the left"}

    Args:
        root: the data set's folder; not needed where it is ``packed``.
        renderer: events -> frames; None takes the data set's own, ``events_per_frame`` and ``frames``.
        reading: how files are read that leave it open; None takes them as they are.
        views: what is looked at of a recording.
        sampling: which recordings are trained and selected on.
        sensor_hw: sensor height and width [px]; None takes each file's own.
        p95_events: 95th percentile of events per recording, which decides the number of views.
        augmentation: what training changes at random; None = nothing, the evaluation views are trained on.
        splits: folders of "training", "validation" and "test" below ``root``, where they are not the data set's own.
        variant: which of the data set's other test sets is tested on, by name or by number from 1; None = its main one.
        classes: class folders to take, in order of their labels, or a text file with one at the start of each line;
            those that are not there are left out with a warning. None takes all.
        class_names: names for the prompts in the order of the class folders, or a map from folder to name; None
            takes the data set's own.
        on_bad_recording: "error", or "skip" to read all recordings once beforehand and to leave out those that
            cannot be used: they are warned about, and named in ``results.json``.
        batch_size: training recordings per optimizer step, over all processes together.
        evaluation_batch_size: recordings per evaluation batch in each process.
        num_workers: loader processes in each training process; results do not depend on it.
        seed: seed of order and augmentation.
        packed: packs made by ``eventclip pack``, read in place of the folder; None reads the folder.
        cache: folder to keep listings in, see :mod:`eventclip.datasets.recordings`; None lists at every start.

    Raises:
        UserError: an option outside its range, or neither ``root`` nor ``packed``.
    """

    sensor_hw: tuple[int, int] | None = None
    """Height and width of the sensor [px]; None where each file tells its own."""
    events_per_frame: int = 20_000
    """Events in a frame."""
    frames: ClassVar[Mapping[str, Any]] = {}
    """Further options of its :class:`eventclip.events.frames.FrameRenderer`."""
    p95_events: int = 200_000
    """95 of 100 recordings have fewer events."""
    augmentation: Augmentation | None = Augmentation()
    """What training changes at random."""
    folders: ClassVar[Mapping[str, str]] = {}
    """Folder of each split below the root; without one for validation, a part of each training class is split off."""
    names: ClassVar[Mapping[str, str]] = {}
    """Names of classes as prompts say them, by folder, where they are not the folder's own."""
    variants: ClassVar[tuple[str, ...]] = ()
    """Names of its other test sets, in order of their numbers."""

    def __init__(
        self,
        root: str | Path | None = None,
        *,
        renderer: FrameRenderer | None = None,
        reading: ReadOptions | None = None,
        views: ViewOptions | None = None,
        sampling: Sampling | None = None,
        sensor_hw: Sequence[int] | Literal["default"] | None = "default",
        p95_events: int | None = None,
        augmentation: Augmentation | Literal["default"] | None = "default",
        splits: dict[str, str] | None = None,
        variant: str | int | None = None,
        classes: Sequence[str] | str | None = None,
        class_names: Sequence[str] | dict[str, str] | None = None,
        on_bad_recording: str = "error",
        batch_size: int = 32,
        evaluation_batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        packed: str | Path | Sequence[str | Path] | None = None,
        cache: str | Path | None = None,
    ) -> None:
        super().__init__()
        if min(batch_size, evaluation_batch_size) < 1 or num_workers < 0:
            raise UserError(
                f"data.batch_size={batch_size} and data.evaluation_batch_size={evaluation_batch_size} must be 1 or "
                f"more and data.num_workers={num_workers} 0 or more"
            )
        if on_bad_recording not in ("error", "skip"):
            raise UserError(f"data.on_bad_recording must be error or skip, got {on_bad_recording!r}")
        unknown = set(splits or {}) - set(SPLITS)
        if unknown:
            raise UserError(f"data.splits names {min(unknown)!r}; the splits are {', '.join(SPLITS)}")
        self.packed = None if packed is None else PackedFolders(packed)
        if self.packed is None and root is None:
            raise UserError("data.root is missing: give the data set's folder, or a pack of it by data.packed")
        self.root = Path(str(root)).expanduser() if self.packed is None else self.packed.packs[0].path
        hw = self.sensor_hw if sensor_hw == "default" else sensor_hw
        self.files = EventFiles(sensor_hw=hw, reading=reading)
        if self.packed is not None:
            self.files = PackedFiles(self.packed, self.root, sensor_hw=hw, reading=reading)
        self.sensor_hw = self.files.sensor_hw
        self.renderer = FrameRenderer(self.events_per_frame, **self.frames) if renderer is None else renderer
        if p95_events is not None:
            self.p95_events = p95_events
        if augmentation != "default":
            self.augmentation = augmentation
        views = views or ViewOptions()
        views_of = partial(views_per_recording, self.p95_events, self.renderer.events_per_frame)
        self.training_views, self.evaluation_views = views_of(views.training_views), views_of(views.evaluation_views)
        self.resize_mode = views.resize_mode
        sampling = sampling or Sampling()
        self.few_shot, self.selection, self.split_fraction = (
            sampling.few_shot,
            sampling.selection,
            sampling.split_fraction,
        )
        self.splits, self.variant = dict(splits or {}), self._variant(variant)
        classes = read_class_list(classes) if isinstance(classes, str) else classes
        self.classes = None if classes is None else _names(classes, "data.classes")
        self._class_names, self.cache = class_names, cache
        self.on_bad_recording, self.num_workers, self.seed = on_bad_recording, num_workers, seed
        self.batch_size, self.evaluation_batch_size = batch_size, evaluation_batch_size
        self.image_size, self.tested = 224, "test"
        self.feature_cache: FeatureCache | None = None
        self._told = False
        self.listed_folders: dict[str, Listed] = {}
        self._listed: dict[str, Recordings] = {}
        self._used: dict[str, Recordings] = {}
        self._unreadable: dict[str, dict[str, str]] = {}

    def connect(
        self, *, image_size: int | None = None, feature_cache: FeatureCache | None = None, tested: str | None = None
    ) -> None:
        """Tell what is known only once CLIP is; each call changes what it gives.

        Args:
            image_size: side S of CLIP's input [px].
            feature_cache: makes of samples with views the same samples with features; without one, loaders hand views
                out.
            tested: the split that the test stage looks at; "training" is all of it, not a few-shot sample.

        Raises:
            UserError: a size or a split that there is not.
        """
        if image_size is not None:
            if image_size < 1:
                raise UserError(f"image_size must be 1 or more pixels, got {image_size}")
            self.image_size = image_size
        if tested is not None:
            if tested not in SPLITS:
                raise UserError(f"tested must be one of {', '.join(SPLITS)}, got {tested!r}")
            self.tested = tested
            self._used.clear()
        if feature_cache is not None:
            self.feature_cache = feature_cache

    @property
    def own_splits(self) -> tuple[str, ...]:
        """Splits with a folder of their own."""
        return tuple(split for split in SPLITS if split in self.folders)

    def list_split(self, split: str) -> Recordings:
        """List the recordings of ``split`` ("training", "validation" or "test") without loading any.

        Raises:
            UserError: the folder is missing (what was looked for and the layout expected), or a class is empty.
        """
        return self.list_folder({**self.folders, **self.splits}[split])

    def name_of(self, class_folder: str) -> str:
        """The class's name as prompts say it: its entry in ``names``, or in lower case with ``_`` as a space."""
        return self.names.get(class_folder, class_folder).lower().replace("_", " ")

    def has_split(self, split: str) -> bool:
        """Whether a whole data set has such a split: one that it may be without counts where its folder is there."""
        return split in self.own_splits

    def split(self, split: str) -> Recordings:
        """All recordings of a split, listed once."""
        if split not in self._listed:
            self._listed[split] = self.list_split(split) if split in self.own_splits else self._split_off()
        return self._listed[split]

    def list_folder(
        self, folder: str, *, suffixes: Sequence[str] | None = None, root: Path | None = None
    ) -> Recordings:
        """List ``root/folder/<class>/<recording>``, from the pack where there is one; every split is made of these.

        Args:
            folder: path below the root, "." for the root itself.
            suffixes: endings of files that are recordings; None takes those of all formats.
            root: where it is not the data set's own.

        Raises:
            UserError: as :func:`eventclip.datasets.recordings.list_recordings`, or it is not packed.
        """
        if folder not in self.listed_folders:
            suffixes = readable_suffixes() if suffixes is None else suffixes
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
        if given is None or isinstance(given, Mapping):
            chosen = {str(folder): name for folder, name in (given or {}).items()}  # YAML reads 7 as a number
            unknown = sorted(set(chosen) - set(folders))
            if unknown:
                raise UserError(f"data.class_names names {unknown[0]!r}, which is no class folder of {self.root}")
            named = check_class_names(list(chosen.values()), "data.class_names") if chosen else []
            ours = dict(zip(chosen, named, strict=True))
            return [ours[folder] if folder in ours else self._name_of(folder) for folder in folders]
        names = check_class_names(given, "data.class_names")
        if len(names) != len(folders):
            raise UserError(
                f"data.class_names has {len(names)} names and {self.root} has {len(folders)} class folders "
                f"({', '.join(folders[:3])}, ...): give one name for each folder, in sorted order"
            )
        return names

    def _name_of(self, class_folder: str) -> str:
        if printable(class_folder) != class_folder:
            raise UserError(
                f"class folder {os.fsencode(class_folder)!r} of {self.root} has no name in UTF-8 for a prompt: rename "
                f"it, or name all classes by data.class_names=[NAME,...]"
            )
        return self.name_of(class_folder)

    @property
    def training(self) -> Recordings:
        """The recordings trained on: the few-shot sample, or the whole training split."""
        return self.used("training")

    def used(self, split: str) -> Recordings:
        """The recordings of a split that a run reads.

        Training is sampled, and goes without what is split off for validation; all go without the unreadable ones where
        ``on_bad_recording`` is "skip", which are looked for once.
        """
        if split not in self._used:
            trains = split == "training" and self.tested != "training"
            wanted = self._to_train if trains else self.split(split)
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

    def tell_notes(self, stage: str) -> None:
        """Log, once for the data set, what its first recording's numbers tell: the unit of time, the columns."""
        if not self._told:
            self._told = True
            for line in self.first_notes(self.recordings(stage)):
                log.info("%s", line)

    def first_notes(self, recordings: Recordings) -> list[str]:
        """What the numbers of the first recording tell, a line each; nothing where it cannot be used."""
        if not len(recordings):
            return []
        with contextlib.suppress(RecordingError):  # which is told where the recording is needed
            _, _, notes = self.files.look(recordings.path(0))
            return [f"{printable(recordings.relative(0))}, the first of {len(recordings)}: {note}" for note in notes]
        return []

    @cached_property
    def _sampled(self) -> Recordings:
        """The few-shot sample, whatever is split off."""
        everything = self.split("training")
        if everything.class_folders != self.class_folders:
            odd = sorted(set(everything.class_folders) ^ set(self.class_folders))
            raise UserError(
                f"training and test of {self.root} differ in their class folders: {odd[0]!r} is in one of them only"
            )
        return everything if self.few_shot is None else self.few_shot(everything)

    @property
    def _to_train(self) -> Recordings:
        if self.selection != "validation" or "validation" in self.own_splits:
            return self._sampled
        split_off = np.isin(self._sampled.paths, self.split("validation").paths)
        return self._sampled.subset(np.flatnonzero(~split_off))

    def _split_off(self) -> Recordings:
        """The part of the training split to validate on: first of all what is not sampled, so that the shots stay."""
        if self.selection != "validation":
            raise UserError(
                f"{self.root} has no validation split of its own: selection=validation takes data.split_fraction of "
                f"each training class"
            )
        everything = self.split("training")
        sampled = np.isin(everything.paths, self._sampled.paths)
        return everything.subset(
            np.flatnonzero(stratified_split(everything, self.split_fraction, seed=self.seed, spared=sampled))
        )

    def _unreadable_of(self, split: str, wanted: Recordings) -> dict[str, str]:
        if split not in self._unreadable:
            found = find_unreadable(wanted, self.files, workers=self.num_workers, title=f"checking {split}")
            self._unreadable[split] = found
            if found:
                first = printable(next(iter(found.values())))
                log.warning("%d %s recordings are left out, such as: %s", len(found), split, first)
        return self._unreadable[split]

    def _variant(self, variant: str | int | None) -> str | None:
        """Name of a variant given by its name or number."""
        if variant is None or str(variant) in self.variants:
            return None if variant is None else str(variant)
        numbered = {str(number): name for number, name in enumerate(self.variants, 1)}
        if str(variant) not in numbered:
            choices = f"one of {', '.join(self.variants)}, or its number from 1 on" if self.variants else "null here"
            raise UserError(f"data.variant must be {choices}, got {variant!r}")
        return numbered[str(variant)]

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
        return RecordingDataset(self.recordings(stage), self.files, self.view_transform(stage), seed=self.seed)

    def _samples(self, stage: str) -> tuple[Dataset[Sample], int]:
        """What the loader of ``stage`` reads, and with how many processes: features are at hand, views are made."""
        dataset = self.dataset(stage)
        return (dataset, self.num_workers) if self.feature_cache is None else (self.feature_cache(dataset), 0)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Training batches, resumable between any two of them."""
        samples, workers = self._samples("fit")
        return ResumableLoader(
            samples,
            TrainingBatches(
                len(self.training), self.batch_size, seed=self.seed, position=self._position, **self._ranks()
            ),
            max_views=self.training_views,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
        )

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
            collate_fn=partial(collate, max_views=self.evaluation_views),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=heed_parent_only,
        )

    def view_transform(self, stage: str, *, tta: str = "as_is") -> ViewTransform:
        """Events -> views as ``stage`` needs them: augmented in "fit", deterministic in "validate" and "test".

        Args:
            stage: "fit", "validate" or "test".
            tta: test-time augmentation, "as_is" in "fit" (see :data:`eventclip.views.transform.TTA`).
        """
        fitting = stage == "fit"
        return ViewTransform(
            self.renderer,
            image_size=self.image_size,
            max_views=self.training_views if fitting else self.evaluation_views,
            resize_mode=self.resize_mode,
            augmentation=self.augmentation if fitting else None,
            tta=tta,
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


def grouped(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the configuration has them, side by side -> arguments of a data module, options put together."""
    left = dict(settings)
    for name, kind in (("reading", ReadOptions), ("views", ViewOptions), ("sampling", Sampling)):
        own = {field.name: left.pop(field.name) for field in fields(kind) if field.name in left}
        if own:
            left[name] = kind(**own)
    return left


def _names(given: Sequence[Any] | None, key: str) -> list[str]:
    """Names as they were typed: numbers are what they look like.

    Raises:
        UserError: one is neither a name nor a number, or empty.
    """
    names = list(given or ())
    odd = [name for name in names if not isinstance(name, str | int | float) or isinstance(name, bool) or name == ""]
    if odd:
        raise UserError(f"{key} holds {odd[0]!r:.40}, which is no name: put it in quotes if it is one")
    return [str(name) for name in names]
