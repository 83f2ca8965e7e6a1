"""What a data set says about itself: its splits, drawn, held out and rid of damage, and what its classes are called."""

from __future__ import annotations

import contextlib
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from eventclip.class_names import check_class_names
from eventclip.datasets.index import list_kept
from eventclip.datasets.inspection import find_unreadable, without
from eventclip.datasets.packs import Listed, PackedFolders
from eventclip.datasets.recordings import SPLITS, Recordings, read_class_list
from eventclip.datasets.sources import EventFiles, PackedFiles
from eventclip.datasets.stratified import hold_out
from eventclip.errors import RecordingError, UserError
from eventclip.files import printable
from eventclip.io.formats import READABLE_SUFFIXES, ReadOptions

log = logging.getLogger(__name__)

Draw = Callable[[Recordings], Recordings]
"""A few-shot draw: the training split -> what to train on, repeats allowed, labels possibly a teacher's."""


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


class RecordingSplits(ABC):
    """The recordings of a data set, split by split; no loader, no view.

    A data set is a subclass that says where its splits lie (:meth:`list_split`) and what its classes are called
    (:meth:`name_of`). The options are described with :class:`eventclip.datasets.datamodule.EventDataModule`.
    """

    def __init__(
        self,
        *,
        root: str | Path | None,
        packed: str | Path | Sequence[str | Path] | None,
        cache: str | Path | None,
        sensor_hw: Sequence[int] | None,
        reading: ReadOptions,
        splits: dict[str, str] | None,
        variant: str | int | None,
        classes: Sequence[str] | str | None,
        class_names: Sequence[str] | dict[str, str] | None,
        draw: Draw | None,
        selection: str | None,
        holdout: float,
        on_bad_recording: str,
        num_workers: int,
        seed: int,
    ) -> None:
        if selection not in (None, "validation", "test"):
            raise UserError(f"selection must look at 'validation', 'test' or nothing (null), got {selection!r}")
        if not 0.0 < holdout < 1.0:
            raise UserError(f"data.holdout must lie between 0 and 1, got {holdout}")
        if on_bad_recording not in ("error", "skip"):
            raise UserError(f"data.on_bad_recording must be error or skip, got {on_bad_recording!r}")
        if isinstance(classes, str):
            classes = read_class_list(classes)
        unknown = set(splits or {}) - set(SPLITS)
        if unknown:
            raise UserError(f"data.splits names {min(unknown)!r}; the splits are {', '.join(SPLITS)}")
        self.packed = None if packed is None else PackedFolders(packed)
        if self.packed is None and root is None:
            raise UserError("data.root is missing: give the data set's folder, or a pack of it by data.packed")
        self.root = Path(str(root)).expanduser() if self.packed is None else self.packed.packs[0].path
        self.cache = cache
        self.files = EventFiles(sensor_hw=sensor_hw, reading=reading)
        if self.packed is not None:
            self.files = PackedFiles(self.packed, self.root, sensor_hw=sensor_hw, reading=reading)
        self.splits, self.variant = dict(splits or {}), self._variant(variant)
        self.classes = None if classes is None else _names(classes, "data.classes")
        self._class_names = class_names
        self.draw, self.selection, self.holdout = draw, selection, holdout
        self.on_bad_recording, self.num_workers, self.seed = on_bad_recording, num_workers, seed
        self.tested = "test"
        self._told = False
        self.listed_folders: dict[str, Listed] = {}
        self._listed: dict[str, Recordings] = {}
        self._used: dict[str, Recordings] = {}
        self._unreadable: dict[str, dict[str, str]] = {}

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

    def has_split(self, split: str) -> bool:
        """Whether a whole data set has such a split: one that it may be without counts where its folder is there."""
        return split in self.own_splits

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
            UserError: as :func:`eventclip.datasets.recordings.list_recordings`, or it is not packed.
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
