"""One recording on disk -> one sample, the same whoever asks, whenever, in whatever order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from eventclip.datasets.recordings import Recordings
from eventclip.datasets.sources import EventFiles
from eventclip.errors import RecordingError
from eventclip.rng import generator
from eventclip.views.transform import ViewMaker

Sample = dict[str, Any]
"""views uint8 (V,C,S,S), valid bool (V,), label int, index int; a batch adds B in front."""

_DRAWS = 10
"""Training draws of one recording before giving up: a shift of 20 px empties none that fills a sensor."""


class RecordingDataset(Dataset[Sample]):
    """Samples of a set of recordings.

    A sample is asked for by ``(epoch, position)``; what is random in it is drawn from a generator keyed by seed, epoch
    and the recording itself (its relative path, and which of its repeats it is), so it depends neither on workers,
    ranks, batches or interruptions, nor on what else was drawn: the one shot of a class is augmented alike among five.

    Args:
        recordings: what to read, in order; few-shot draws may repeat a recording.
        files: path -> events.
        make_views: events -> views.
        seed: seed of the augmentation.
    """

    def __init__(self, recordings: Recordings, files: EventFiles, make_views: ViewMaker, *, seed: int = 0) -> None:
        self.recordings = recordings
        self.files = files
        self.make_views = make_views
        self.seed = seed
        # Without augmentation the repeats of a recording are one and the same sample.
        self.repeats = None if make_views.augmentation is None else repeats(recordings.paths)

    def __len__(self) -> int:
        return len(self.recordings)

    def describe(self) -> dict[str, Any]:
        """Plain values that decide what the views of a given recording look like."""
        seed = None if self.make_views.augmentation is None else self.seed
        return {"files": self.files.describe(), "views": self.make_views.describe(), "seed": seed}

    def row_name(self, position: int) -> bytes:
        """What tells this recording from all others of the same description; changes when its file does.

        Raises:
            RecordingError: the recording is not there.
        """
        repeat = 0 if self.repeats is None else self.repeats[position]
        stamp = self.files.stamp(self.recordings.path(position))
        return b"%d/%s/%s" % (repeat, stamp.encode(), bytes(self.recordings.paths[position]))

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, position = key
        path = self.recordings.path(position)
        events, sensor_hw = self.files(path)
        made = None
        if self.make_views.augmentation is None:
            made = self.make_views(events, sensor_hw)
        else:
            rng = self._generator(epoch, position)
            for _ in range(_DRAWS):
                made = self.make_views(events, sensor_hw, rng)
                if made is not None:
                    break
        if made is None:
            raise RecordingError(
                f"{path} has {len(events)} events and none was left on the {sensor_hw[0]}x{sensor_hw[1]} sensor "
                f"after {_DRAWS} random shifts: lower data.augmentation.max_shift or leave the recording out"
            )
        views, valid = made
        return {
            "views": torch.from_numpy(views),
            "valid": torch.from_numpy(valid),
            "label": int(self.recordings.labels[position]),
            "index": position,
        }

    def _generator(self, epoch: int, position: int) -> np.random.Generator:
        name = ascii(self.recordings.relative(position))  # file names need not be UTF-8
        repeat = 0 if self.repeats is None else int(self.repeats[position])
        return generator(self.seed, f"augment {name}", epoch=epoch, index=repeat)


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
