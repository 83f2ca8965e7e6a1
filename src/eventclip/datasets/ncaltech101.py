"""N-Caltech101 (Orchard et al. 2015) in the layout of the EST release: objects filmed in three saccades, 180x240 px."""

from __future__ import annotations

from eventclip.datasets.datamodule import EventDataModule
from eventclip.views.augment import Augmentation


class NCaltech101DataModule(EventDataModule):
    """``root/{training,validation,testing}/<class>/*.npy``; the ATIS originals (``.bin``) are read as well.

    The classes are the sorted folder names: 100 objects and the background in the official release, any subset
    of them or other names in a data set of the same layout. Prompts say the paper's names: singular objects.

    Example:
        >>> from eventclip import NCaltech101DataModule
        >>> data = NCaltech101DataModule("N-Caltech101", batch_size=4)
        >>> data.connect(image_size=64)
        >>> data.class_names
        ['airplane', 'star fish']
        >>> batch = next(iter(data.train_dataloader()))
        >>> batch["views"].shape, batch["valid"].shape, batch["label"].shape  # (B, V, C, S, S), (B, V), (B,)
        (torch.Size([4, 2, 1, 64, 64]), torch.Size([4, 2]), torch.Size([4]))
    """

    sensor_hw = (180, 240)
    events_per_frame = 20_000
    p95_events = 225_000
    augmentation = Augmentation(max_shift=20)
    folders = {"training": "training", "validation": "validation", "test": "testing"}  # noqa: RUF012
    names = {  # noqa: RUF012
        "airplanes": "airplane",
        "Faces": "face",
        "Faces_easy": "face",
        "Leopards": "leopard",
        "Motorbikes": "motorbike",
        "BACKGROUND_Google": "background",
    }
