"""N-ImageNet (Kim et al. 2021): ImageNet filmed off a screen, 480x640 px; its Mini and its nine robustness variants."""

from __future__ import annotations

import functools

from open_clip import IMAGENET_CLASSNAMES

from eventclip.datasets.datamodule import EventDataModule
from eventclip.datasets.recordings import Recordings
from eventclip.errors import UserError
from eventclip.views.augment import Augmentation

_CORRECTED = {"n04008634": "projectile", "n04355933": "sunglass"}
"""Where the curated names would give two classes one name (missile, sunglasses)."""


class NImageNetDataModule(EventDataModule):
    """``root/extracted_{train,val}/<wnid>/*.npz``; any subset of the wnid folders is a data set too.

    The variants are test sets under other camera paths (mode) or lights (brightness): ``root/extracted_val_<name>``.

    Example:
        >>> from eventclip import NImageNetDataModule
        >>> data = NImageNetDataModule("N-ImageNet")
        >>> data.class_names
        ['tench', 'goldfish']
    """

    sensor_hw = (480, 640)
    events_per_frame = 70_000
    p95_events = 135_000
    augmentation = Augmentation(max_shift=20, flip_time=True)
    folders = {"training": "extracted_train", "test": "extracted_val"}  # noqa: RUF012
    variants = (
        *("mode_1", "mode_5", "mode_6", "mode_7", "mode_3"),
        *("brightness_4", "brightness_5", "brightness_6", "brightness_7"),
    )

    def list_split(self, split: str) -> Recordings:
        """List ``root/extracted_train``, or the test folder of the variant."""
        if split == "test" and self.variant and "test" not in self.splits:
            return self.list_folder(f"extracted_val_{self.variant}")
        return super().list_split(split)

    def name_of(self, class_folder: str) -> str:
        """The name that CLIP's authors gave the wnid."""
        names = imagenet_names()
        if class_folder not in names:
            raise UserError(
                f"class folder {class_folder!r} of {self.root} is none of ImageNet's 1000 wnids: move it away, or say "
                f"how to call it, data.class_names={{{class_folder}: NAME}}"
            )
        return super().name_of(names[class_folder])


@functools.cache
def imagenet_names() -> dict[str, str]:
    """Names of ImageNet's 1000 classes by wnid, all different.

    The names are the curated ones of CLIP's authors as open_clip ships them, with the two corrections that make them
    unique; timm tells which wnid has which index.
    """
    from timm.data import ImageNetInfo

    return dict(zip(ImageNetInfo("imagenet-1k").label_names(), IMAGENET_CLASSNAMES, strict=True)) | _CORRECTED
