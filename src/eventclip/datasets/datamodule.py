"""The data module every data set shares: recordings as batches of views."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, cast

from torch.utils.data import DataLoader, Dataset

from eventclip.datasets.dataset import Batch, RecordingDataset, Sample, collate
from eventclip.datasets.packs import PackedFolders
from eventclip.datasets.recordings import SPLITS, read_class_list
from eventclip.datasets.resumable import ResumableDataModule
from eventclip.datasets.samplers import EpochLoader
from eventclip.datasets.sampling import Sampling
from eventclip.datasets.sources import EventFiles, PackedFiles
from eventclip.datasets.splits import RecordingSplits, names_given
from eventclip.errors import UserError, said, whole
from eventclip.events.frames import FrameRenderer, views_per_recording
from eventclip.io.formats import ReadOptions
from eventclip.views.augment import Augmentation
from eventclip.views.transform import ViewTransform


class Features(Protocol):
    """Samples whose features are at hand."""

    def epoch(self, epoch: int, max_views: int) -> Batch:
        """All samples of an epoch as one batch, in order."""


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


class EventDataModule(RecordingSplits, ResumableDataModule):
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
        classes: Sequence[str] | str | Path | None = None,
        class_names: Sequence[str] | dict[str, str] | None = None,
        on_bad_recording: str = "error",
        batch_size: int = 32,
        evaluation_batch_size: int = 32,
        num_workers: int = 0,
        seed: int = 0,
        packed: str | Path | Sequence[str | Path] | None = None,
        cache: str | Path | None = None,
    ) -> None:
        ResumableDataModule.__init__(self)
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
        self.few_shot, self.selection = sampling.few_shot, sampling.selection
        self.split_fraction, self.half = sampling.split_fraction, sampling.half
        self.splits, self.variant = dict(splits or {}), self._variant(variant)
        classes = read_class_list(str(classes)) if isinstance(classes, str | Path) else classes
        self.classes = None if classes is None else names_given(classes, "data.classes")
        twice = [name for name, count in Counter(self.classes or ()).items() if count > 1]
        if twice:
            raise UserError(f"data.classes names {said(twice[0])} twice: give each class folder once")
        self._class_names, self.cache = class_names, cache
        self.on_bad_recording, self.num_workers, self.seed = on_bad_recording, num_workers, seed
        self.batch_size, self.evaluation_batch_size = batch_size, evaluation_batch_size
        self.image_size, self.tested = 224, "test"
        self.feature_cache: FeatureCache | None = None
        self.whole_epochs = False
        self._told = False
        self.listed_folders, self._listed, self._used, self._unreadable = {}, {}, {}, {}

    def connect(
        self,
        *,
        image_size: int | None = None,
        feature_cache: FeatureCache | None = None,
        tested: str | None = None,
        whole_epochs: bool | None = None,
    ) -> None:
        """Tell what is known only once CLIP is; each call changes what it gives.

        Args:
            image_size: side S of CLIP's input [px].
            feature_cache: makes of samples with views the same samples with features; without one, loaders hand views
                out.
            tested: the split that the test stage looks at; "training" is all of it, not a few-shot sample.
            whole_epochs: whether the training loader gives an epoch's features at once, in place of batches.

        Raises:
            UserError: a size or a split that there is not.
        """
        if image_size is not None:
            self.image_size = whole(image_size, "image_size")
        if tested is not None:
            if tested not in SPLITS:
                raise UserError(f"tested must be one of {', '.join(SPLITS)}, got {tested!r}")
            self.tested = tested
            self._used.clear()
        if feature_cache is not None:
            self.feature_cache = feature_cache
        if whole_epochs is not None:
            self.whole_epochs = whole_epochs

    def setup(self, stage: str) -> None:
        """Let every process leave out what the first one does: reading may fail for one of them only."""
        if self.on_bad_recording == "skip" and self.trainer is not None and self.trainer.world_size > 1:
            self._unreadable = self.trainer.strategy.broadcast(self._unreadable)
            self._used.clear()

    @property
    def training_size(self) -> int:
        """Number of training recordings."""
        return len(self.training)

    def dataset(self, stage: str) -> RecordingDataset:
        """Samples of ``stage`` with their views, whatever the loaders hand out."""
        self.tell_notes(stage)
        return RecordingDataset(self.recordings(stage), self.files, self.view_transform(stage), seed=self.seed)

    def _samples(self, stage: str) -> tuple[Dataset[Sample], int]:
        """What the loader of ``stage`` reads, and with how many processes: features are at hand, views are made."""
        dataset = self.dataset(stage)
        return (dataset, self.num_workers) if self.feature_cache is None else (self.feature_cache(dataset), 0)

    def train_dataloader(self) -> DataLoader[Sample] | EpochLoader:
        """Training batches, resumable between any two of them."""
        samples, workers = self._samples("fit")
        if self.whole_epochs:
            return EpochLoader(
                partial(cast("Features", samples).epoch, max_views=self.training_views), self.training_batches()
            )
        return self.training_loader(samples, partial(collate, max_views=self.training_views), workers=workers)

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
        together = partial(collate, max_views=self.evaluation_views)
        return self.ordered_loader(samples, size, together, batch_size=self.evaluation_batch_size, workers=workers)

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
