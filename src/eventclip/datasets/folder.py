"""Anyone's own recordings: class folders of files in any readable format, with or without split folders."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from eventclip.datasets.datamodule import EventDataModule
from eventclip.datasets.recordings import SPLITS, Recordings
from eventclip.datasets.sampling import stratified_split
from eventclip.errors import UserError


class FolderDataModule(EventDataModule):
    """``root/<split>/<class>/<recording>``, or ``root/<class>/<recording>`` with a part split off for the test.

    Split folders are found under their usual names (train or training, val or validation, test or testing), or
    named by ``splits`` or by a subclass's ``folders``. Without any, ``split_fraction`` of each class is tested on:
    which files depends on ``seed`` and on the class's own file names alone.

    Example:
        >>> from eventclip import FolderDataModule
        >>> class SymbolsDataModule(FolderDataModule):
        ...     sensor_hw = (128, 128)
        ...     events_per_frame = 5_000
        >>> data = SymbolsDataModule("symbols")
        >>> data.class_names, len(data.recordings("test"))
        (['anchor', 'star'], 2)
    """

    own_splits = SPLITS

    USUAL: ClassVar[dict[str, tuple[str, ...]]] = {
        "training": ("training", "train"),
        "validation": ("validation", "valid", "val"),
        "test": ("testing", "test"),
    }

    def list_split(self, split: str) -> Recordings:
        """List a split's folder, or its part of the class folders where there are no split folders."""
        folders = {name: self._folder(name) for name in self.USUAL}
        folder = folders[split]
        if folder is not None:
            return self.list_folder(folder)
        if any(folders.values()) or split == "validation":
            raise UserError(
                f"{self.root} has no folder for its {split} split: expected one of {', '.join(self.USUAL[split])} "
                f"with a folder for each class, or name yours with data.splits.{split}=FOLDER"
            )
        everything = self.list_folder(".")
        split_off = stratified_split(everything, self.split_fraction, seed=self.seed)
        return everything.subset(np.flatnonzero(split_off if split == "test" else ~split_off))

    def has_split(self, split: str) -> bool:
        """Whether there is such a split: a folder without one for validation is whole."""
        return split != "validation" or self._folder(split) is not None

    def _folder(self, split: str) -> str | None:
        named = {**self.folders, **self.splits}
        if split in named:
            return named[split]
        return next((name for name in self.USUAL[split] if self.has_folder(name)), None)
