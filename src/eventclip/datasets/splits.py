"""What the splits of a data set hold: sampled, split off and rid of damage; and what its classes are called."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from eventclip.class_names import check_class_names
from eventclip.datasets.audit import find_unreadable, without
from eventclip.datasets.packs import Listed, PackedFolders
from eventclip.datasets.recordings import SPLITS, Recordings, list_kept
from eventclip.datasets.sampling import FewShot, stratified_split
from eventclip.datasets.sources import EventFiles
from eventclip.errors import RecordingError, UserError, printable
from eventclip.io.formats import readable_suffixes

log = logging.getLogger(__name__)


class RecordingSplits:
    """The recordings of a data set, split by split: the part of a data module that knows no view, batch or Lightning.

    :class:`eventclip.datasets.datamodule.EventDataModule` is told the options, which are described there.
    """

    folders: ClassVar[Mapping[str, str]] = {}
    """Folder of each split below the root; without one for validation, a part of each training class is split off."""
    names: ClassVar[Mapping[str, str]] = {}
    """Names of classes as prompts say them, by folder, where they are not the folder's own."""
    variants: ClassVar[tuple[str, ...]] = ()
    """Names of its other test sets, in order of their numbers."""

    root: Path
    packed: PackedFolders | None
    cache: str | Path | None
    files: EventFiles
    splits: dict[str, str]
    variant: str | None
    classes: list[str] | None
    few_shot: FewShot | None
    selection: str | None
    split_fraction: float
    half: str
    tested: str
    on_bad_recording: str
    num_workers: int
    seed: int
    listed_folders: dict[str, Listed]
    _class_names: Sequence[str] | dict[str, str] | None
    _told: bool
    _listed: dict[str, Recordings]
    _used: dict[str, Recordings]
    _unreadable: dict[str, dict[str, str]]

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
            listed = self.list_split(split) if split in self.own_splits else self._split_off()
            if self.half != "all" and split in self.own_splits:
                base, new = self._halves
                wanted = new if self.half == "new" and split == "test" else base
                self._check_same(sorted(set(wanted) - set(listed.class_folders)))
                listed = listed.of_classes(wanted)
            self._listed[split] = listed
        return self._listed[split]

    @cached_property
    def _halves(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The classes in two halves, the first of which is the larger one where they are odd."""
        everything = self.list_split("test").class_folders
        if len(everything) < 4:
            raise UserError(
                f"fewshot.classes={self.half} needs two classes or more in each half, and {self.root} has "
                f"{len(everything)} in all: give fewshot.classes=all"
            )
        middle = (len(everything) + 1) // 2
        return everything[:middle], everything[middle:]

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
        """Folder names of the classes that are learned; a class's place in them is its label."""
        return self._halves[0] if self.half == "new" else self.split("test").class_folders

    @property
    def class_names(self) -> list[str]:
        """Names of the classes for prompts, in order of their labels."""
        return self._names_of(self.class_folders)

    @property
    def tested_names(self) -> list[str]:
        """The same of the classes that are tested: others where new ones are."""
        return self._names_of(self.split(self.tested).class_folders)

    def _names_of(self, wanted: Sequence[str]) -> list[str]:
        folders = wanted if self.half == "all" else [folder for half in self._halves for folder in half]
        names = dict(zip(folders, self._names_of_all(folders), strict=True))
        return [names[folder] for folder in wanted]

    def _names_of_all(self, folders: Sequence[str]) -> list[str]:
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
        if os.fsencode(class_folder).decode(errors="ignore") != class_folder:
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
        """The recordings behind the loader of ``stage``: "fit", "validate" or "test".

        Raises:
            UserError: another stage; a split's recordings are :meth:`split`'s.
        """
        if stage == "fit":
            return self.training
        if stage == "test":
            return self.used(self.tested)
        if stage != "validate":
            raise UserError(f"the stages are fit, validate and test, got {stage!r}: a whole split is split('training')")
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
            self._check_same(sorted(set(everything.class_folders) ^ set(self.class_folders)))
        if self.few_shot is None:
            return everything
        return self.few_shot(everything, **({} if self.half == "all" else {"whole": self.list_split("training")}))

    def _check_same(self, odd: Sequence[str]) -> None:
        if odd:
            raise UserError(
                f"training and test of {self.root} differ in their class folders: {odd[0]!r} is in one of them only"
            )

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


def names_given(given: Sequence[Any] | None, key: str) -> list[str]:
    """Names as they were typed: numbers are what they look like.

    Raises:
        UserError: one is neither a name nor a number, or empty.
    """
    names = list(given or ())
    odd = [name for name in names if not isinstance(name, str | int | float) or isinstance(name, bool) or name == ""]
    if odd:
        raise UserError(f"{key} holds {odd[0]!r:.40}, which is no name: put it in quotes if it is one")
    return [str(name) for name in names]
