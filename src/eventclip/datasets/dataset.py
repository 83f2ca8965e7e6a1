"""One recording on disk -> one sample, the same whoever asks, whenever, in whatever order; samples -> a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from eventclip.datasets.pairs import Pairs
from eventclip.datasets.recordings import Recordings
from eventclip.datasets.sources import EventFiles
from eventclip.errors import RecordingError
from eventclip.rng import generator
from eventclip.views.transform import ViewTransform

Sample = dict[str, Any]
"""views uint8 (v, C, S, S) with v >= 1, or features float (v, D) in their place; label int, index int."""

Batch = dict[str, Any]
"""views uint8 (B, V, C, S, S) or features (B, V, D); valid bool (B, V), label int64 (B,), index int64 (B,)."""


class RecordingDataset(Dataset[Sample]):
    """Samples of a set of recordings.

    A sample is asked for by ``(epoch, position)``; what is random in it is drawn from a generator keyed by seed, epoch
    and the recording itself (its relative path, and which of its repeats it is), so it depends neither on workers,
    ranks, batches or interruptions, nor on what else was sampled: the one shot of a class is augmented alike among
    five. A position alone is of epoch 0.

    Example:
        >>> from eventclip import NCaltech101DataModule
        >>> data = NCaltech101DataModule("N-Caltech101")
        >>> data.connect(image_size=64)
        >>> dataset = data.dataset("test")
        >>> sample = dataset[0]
        >>> type(dataset).__name__, sorted(sample), sample["views"].shape
        ('RecordingDataset', ['index', 'label', 'views'], torch.Size([1, 1, 64, 64]))

    Args:
        recordings: what to read, in order; few-shot sampling may repeat a recording.
        files: path -> events.
        transform: events -> views.
        seed: seed of the augmentation.
    """

    def __init__(self, recordings: Recordings, files: EventFiles, transform: ViewTransform, *, seed: int = 0) -> None:
        self.recordings = recordings
        self.files = files
        self.transform = transform
        self.seed = seed
        # Without augmentation the repeats of a recording are one and the same sample.
        self.repeats = None if transform.augmentation is None else repeats(recordings.paths)

    def __len__(self) -> int:
        return len(self.recordings)

    def describe(self) -> dict[str, Any]:
        """Plain values that decide what the views of a given recording look like."""
        seed = None if self.transform.augmentation is None else self.seed
        return {"files": self.files.describe(), "views": self.transform.describe(), "seed": seed}

    def row_name(self, position: int) -> bytes:
        """What tells this recording from all others of the same description; changes when its file does.

        Raises:
            RecordingError: the recording is not there.
        """
        repeat = 0 if self.repeats is None else self.repeats[position]
        stamp = self.files.stamp(self.recordings.path(position))
        return b"%d/%s/%s" % (repeat, stamp.encode(), bytes(self.recordings.paths[position]))

    def __getitem__(self, key: tuple[int, int] | int) -> Sample:
        epoch, position = key if isinstance(key, tuple) else (0, key)
        relative = self.recordings.relative(position)
        path = self.recordings.root / relative
        events, sensor_hw = self.files(path)
        rng = None
        if self.transform.augmentation is not None:
            repeat = 0 if self.repeats is None else int(self.repeats[position])
            rng = generator(self.seed, f"augment {relative!a}", epoch=epoch, index=repeat)  # names need not be UTF-8
        try:
            views = self.transform(events, sensor_hw, rng)
        except RecordingError as error:
            raise RecordingError(f"{path}: {error}") from None
        return {
            "views": torch.from_numpy(views.pixels),
            "label": int(self.recordings.labels[position]),
            "index": position,
        }


class PairedViews(Dataset[dict[str, Any]]):
    """Views of recordings whose images are known: ``{"views": uint8 (v, C, S, S), "index": position}``.

    A sample is asked for by ``(epoch, position)``, as in :class:`RecordingDataset`, and what is random in it depends on
    the same: seed, epoch and the recording's path below its root, not on which other pairs there are.

    Args:
        pairs: what to read, in order.
        files: path -> events.
        transform: events -> views.
        seed: seed of the augmentation.
    """

    def __init__(self, pairs: Pairs, files: EventFiles, transform: ViewTransform, *, seed: int = 0) -> None:
        self.pairs, self.files, self.transform, self.seed = pairs, files, transform, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int] | int) -> dict[str, Any]:
        epoch, position = key if isinstance(key, tuple) else (0, key)
        path = self.pairs.recording(position)
        events, sensor_hw = self.files(path)
        rng = None
        if self.transform.augmentation is not None:
            relative = path.relative_to(self.pairs.root).as_posix()
            rng = generator(self.seed, f"pair {relative!a}", epoch=epoch)
        try:
            views = self.transform(events, sensor_hw, rng)
        except RecordingError as error:
            raise RecordingError(f"{path}: {error}") from None
        return {"views": torch.from_numpy(views.pixels), "index": position}


def collate(samples: Sequence[Sample], *, max_views: int | None = None) -> Batch:
    """Put samples together to a batch, filled up to equally many views; the only place where views are padded.

    Args:
        samples: with views or with features.
        max_views: V; None takes that of the longest. Results do not depend on it; equal shapes cost a compiled tower
            nothing.

    Returns:
        A batch, zeros where a recording has no view, ``valid`` True where it has one.

    Raises:
        ValueError: a sample with no view, or with more than ``max_views``.
    """
    name = "views" if "views" in samples[0] else "features"
    counts = [len(sample[name]) for sample in samples]
    most = max(counts) if max_views is None else max_views
    if not 1 <= min(counts) <= max(counts) <= most:
        raise ValueError(f"a recording needs 1 to {most} views, got {min(counts)} to {max(counts)}")
    filled = samples[0][name].new_zeros(len(samples), most, *samples[0][name].shape[1:])
    for row, sample, count in zip(filled, samples, counts, strict=True):
        row[:count] = sample[name]
    return {
        name: filled,
        "valid": torch.arange(most) < torch.tensor(counts)[:, None],
        "label": torch.tensor([sample["label"] for sample in samples]),
        "index": torch.tensor([sample["index"] for sample in samples]),
    }


def repeats(paths: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """(n,) how often each path came before: 0 where it comes first."""
    order = np.argsort(paths, kind="stable")
    ordered = paths[order]
    first = np.ones(len(paths), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    places = np.arange(len(paths))
    counts = np.empty(len(paths), np.int64)
    counts[order] = places - np.maximum.accumulate(np.where(first, places, 0))
    return counts
