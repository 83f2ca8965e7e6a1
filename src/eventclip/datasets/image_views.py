"""Unlabelled images as samples: what the frozen tower sees of them, and what an event camera would."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from eventclip.datasets.dataset import Batch, PairedViews, Sample
from eventclip.datasets.images import Crops, Images, put_beside, read_picture
from eventclip.errors import RecordingError, UserError
from eventclip.events.frames import FrameRenderer
from eventclip.rng import generator
from eventclip.simulation.ranges import SimulationRanges
from eventclip.views.augment import Augmentation
from eventclip.views.resize import clip_resize
from eventclip.views.transform import REVISION, ViewTransform

_ALL_EVENTS = 10**9
_MIRRORED = Augmentation(mirror=True, flip_time=True, image=False)


class Targets(Protocol):
    """Features of images, read by row."""

    def __getitem__(self, row: int) -> NDArray[Any]:
        """(1, D) raw feature."""


class ImageDataset(Dataset[Sample]):
    """Images as CLIP's own preprocessing shows them, whole or in part: samples for the feature cache.

    A sample asked for by ``(copy, position)`` is {"views": uint8 (1, 3, S, S), "index": int}. Which part copy c of an
    image shows depends on seed, c and the image's path; what is put beside it, on which images there are, too.

    Args:
        images: in order.
        image_size: side S of CLIP's input [px].
        crops: which part is seen; None shows all that the middle square holds.
        seed: of the parts.
    """

    def __init__(self, images: Images, *, image_size: int, crops: Crops | None = None, seed: int = 0) -> None:
        self.images, self.image_size, self.crops, self.seed = images, image_size, crops, seed

    def __len__(self) -> int:
        return len(self.images)

    def describe(self) -> dict[str, Any]:
        """Plain values that decide what is seen of a given image."""
        parts: dict[str, Any] | None = None if self.crops is None else {**asdict(self.crops), "seed": self.seed}
        if parts and parts["beside"]:
            parts["of"] = sha256(b"\n".join(map(self.row_name, range(len(self))))).hexdigest()
        return {"images": {"revision": 1, "views": REVISION, "image_size": self.image_size, "crops": parts}}

    def row_name(self, position: int) -> bytes:
        """What tells this image from all others; changes when its file does.

        Raises:
            UserError: the image is not there.
        """
        path = self.images.path(position)
        try:
            status = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): is it still there?") from None
        return b"%d-%d/%s" % (status.st_size, status.st_mtime_ns, os.fsencode(path))

    def picture(self, copy: int, position: int) -> Image.Image:
        """The part of an image that a copy shows, in RGB, and what is put beside it.

        Raises:
            UserError: an image cannot be read, or shows nothing.
        """
        path = self.images.path(position)
        picture = read_picture(path)
        if self.crops is None:
            return picture
        part = self.crops(picture, generator(self.seed, f"crop {_named(path)}", epoch=copy))
        rng = generator(self.seed, f"mix {_named(path)}", epoch=copy)
        if rng.random() < self.crops.beside:
            other = read_picture(self.images.path(int(rng.integers(len(self)))))
            return put_beside(part, self.crops(other, rng), rng)
        return part

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        copy, position = key
        return {"views": as_view(self.picture(copy, position), self.image_size), "index": position}


def as_view(picture: Image.Image, image_size: int) -> Tensor:
    """What CLIP's own preprocessing makes of a picture: uint8 (1, 3, S, S)."""
    return torch.from_numpy(clip_resize(np.asarray(picture)[None], image_size))


class SimulatedViews(Dataset[Sample]):
    """What an event camera would see of images: one simulated view a sample, another one in each epoch.

    A sample asked for by ``(epoch, position)`` is {"view": uint8 (C, S, S), "target": float32 (D,), "image": uint8
    (3, S, S) or None, "index": int}. Camera, motion and events depend on seed, epoch and the image's path alone.

    Args:
        images: what is filmed, and how CLIP sees it.
        targets: raw feature of copy c of image i in row c * n + i.
        copies: epoch e shows copy e modulo their number.
        ranges: what camera, motion and scene are drawn from.
        renderer: events -> frame; its ``events_per_frame`` is not heeded, a view shows all events of its recording.
        keep_share: share of the samples that bring their image along.
        seed: of all of it.
        purpose: which of several draws of one seed this is.
    """

    def __init__(
        self,
        images: ImageDataset,
        targets: Targets,
        *,
        ranges: SimulationRanges,
        renderer: FrameRenderer,
        copies: int = 1,
        keep_share: float = 0.0,
        seed: int = 0,
        purpose: str = "learned",
    ) -> None:
        self.images, self.targets, self.copies, self.ranges = images, targets, copies, ranges
        self.keep_share, self.seed, self.purpose = keep_share, seed, purpose
        self.transform = one_view(renderer, images.image_size)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, position = key
        copy, path = epoch % self.copies, self.images.images.path(position)
        rng = generator(self.seed, f"simulate {self.purpose} {_named(path)}", epoch=epoch)
        picture = self.images.picture(copy, position)
        try:
            events, sensor_hw = self.ranges.simulate(picture.convert("L"), rng)
            view = self.transform(events, sensor_hw, rng).pixels[0]
        except RecordingError as error:
            raise RecordingError(f"{path}: {error}") from None
        kept = bool(rng.random() < self.keep_share)
        return {
            "view": torch.from_numpy(view),
            "target": torch.from_numpy(self.targets[copy * len(self) + position][0].astype(np.float32)),
            "image": as_view(picture, self.images.image_size)[0] if kept else None,
            "index": position,
        }


class RecordedViews(Dataset[Sample]):
    """Real recordings of images, in the samples of :class:`SimulatedViews`; one view of each, another in each epoch.

    Args:
        pairs: views of the recordings, with one view each.
        targets: raw feature of image i in row i.
    """

    def __init__(self, pairs: PairedViews, targets: Targets) -> None:
        self.pairs, self.targets = pairs, targets

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        position = key[1]
        return {
            "view": self.pairs[key]["views"][0],
            "target": torch.from_numpy(self.targets[position][0].astype(np.float32)),
            "image": None,
            "index": position,
        }


class Together(Dataset[Sample]):
    """Several data sets, one after the other, asked for by ``(epoch, position)``."""

    def __init__(self, parts: Sequence[Dataset[Sample]]) -> None:
        self.parts = [part for part in parts if len(part)]  # type: ignore[arg-type]
        self.ends = np.cumsum([len(part) for part in self.parts])  # type: ignore[arg-type]

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, position = key
        part = int(np.searchsorted(self.ends, position, side="right"))
        before = int(self.ends[part - 1]) if part else 0
        sample: Sample = self.parts[part][epoch, position - before]
        return {**sample, "index": position}


def one_view(renderer: FrameRenderer, image_size: int, *, all_events: bool = True) -> ViewTransform:
    """Events -> one view, mirrored and flipped in time at random.

    Args:
        renderer: events -> frame.
        image_size: side S of CLIP's input [px].
        all_events: whether the view shows all events, as of a short simulated recording, or a window anywhere of
            ``renderer.events_per_frame``.
    """
    every = replace(renderer, events_per_frame=_ALL_EVENTS) if all_events else renderer
    return ViewTransform(every, image_size=image_size, max_views=1, augmentation=_MIRRORED)


def collate_views(samples: Sequence[Sample]) -> Batch:
    """Put samples together.

    Returns:
        "views" uint8 (B, C, S, S), "targets" float32 (B, D), "index" int64 (B,); "images" uint8 (b, 3, S, S) of those
        that brought theirs along, and "kept" int64 (b,), their places.
    """
    kept = [place for place, sample in enumerate(samples) if sample["image"] is not None]
    side = samples[0]["view"].shape[-1]
    images = [samples[place]["image"] for place in kept]
    return {
        "views": torch.stack([sample["view"] for sample in samples]),
        "targets": torch.stack([sample["target"] for sample in samples]),
        "index": torch.tensor([sample["index"] for sample in samples]),
        "images": torch.stack(images) if images else torch.zeros(0, 3, side, side, dtype=torch.uint8),
        "kept": torch.tensor(kept, dtype=torch.int64),
    }


def _named(path: Path) -> str:
    """An image in a key of randomness: by its folder and name, so that the same images elsewhere look alike."""
    return f"{'/'.join(path.parts[-2:])!a}"
