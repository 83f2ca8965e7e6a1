"""N-Cars (Sironi et al. 2018): cars and background beside a road, 100 ms each, at most 100x120 px."""

from __future__ import annotations

from eventclip.datasets.datamodule import EventDataModule
from eventclip.views.augment import Augmentation


class NCarsDataModule(EventDataModule):
    """``root/{train,test}/{background,cars}/*``: ``.dat.npy`` of the EST release, or Prophesee's ``.dat`` originals.

    Example:
        >>> from eventclip import NCarsDataModule
        >>> data = NCarsDataModule("N-Cars")
        >>> data.class_names, len(data.recordings("test"))
        (['background', 'car'], 2)
    """

    sensor_hw = (100, 120)
    events_per_frame = 30_000  # one frame shows all of a recording
    frames = {"count_non_zero": True, "white_background": False}  # noqa: RUF012
    p95_events = 12_500
    augmentation = Augmentation(max_shift=10, image=False)
    folders = {"training": "train", "test": "test"}  # noqa: RUF012
    names = {"cars": "car"}  # noqa: RUF012
