"""N-Cars (Sironi et al. 2018): cars and background beside a road, 100 ms each, at most 100x120 px."""

from __future__ import annotations

from eventclip.datasets.datamodule import EventDataModule
from eventclip.datasets.recordings import Recordings

_FOLDERS = {"training": "train", "test": "test"}


class NCarsDataModule(EventDataModule):
    """``root/{train,test}/{background,cars}/*``: ``.dat.npy`` of the EST release, or Prophesee's ``.dat`` originals."""

    own_splits = ("training", "test")

    def list_split(self, split: str) -> Recordings:
        """List ``root/train`` or ``root/test``."""
        return self.list_folder((_FOLDERS | self.splits)[split])

    def name_of(self, class_folder: str) -> str:
        """The paper's names: "background" and "car"."""
        return super().name_of("car" if class_folder == "cars" else class_folder)
