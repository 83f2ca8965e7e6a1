"""N-Caltech101 (Orchard et al. 2015) in the layout of the EST release: objects filmed in three saccades, 180x240 px."""

from __future__ import annotations

from eventclip.datasets.datamodule import EventDataModule
from eventclip.datasets.recordings import Recordings

_FOLDERS = {"training": "training", "validation": "validation", "test": "testing"}
_RENAMED = {
    "airplanes": "airplane",
    "Faces": "face",
    "Faces_easy": "face",
    "Leopards": "leopard",
    "Motorbikes": "motorbike",
    "BACKGROUND_Google": "background",
}


class NCaltech101DataModule(EventDataModule):
    """``root/{training,validation,testing}/<class>/*.npy``; the ATIS originals (``.bin``) are read as well.

    The classes are the sorted folder names: 100 objects and the background in the official release, any subset
    of them or other names in a data set of the same layout.
    """

    def list_split(self, split: str) -> Recordings:
        """List ``root/training``, ``root/validation`` or, for "test", ``root/testing``."""
        return self.list_folder((_FOLDERS | self.splits)[split])

    def name_of(self, class_folder: str) -> str:
        """The paper's names: singular objects, "face", "background", spaces for underscores."""
        return super().name_of(_RENAMED.get(class_folder, class_folder))
