"""Test-time versions of a recording: one sample holds the views of all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from eventclip.data.dataset import EventFiles, Sample
from eventclip.data.recordings import Recordings
from eventclip.data.view_maker import VERSIONS, ViewMaker
from eventclip.errors import UserError


def check_versions(versions: Sequence[str]) -> tuple[str, ...]:
    """The versions in their one order.

    Raises:
        UserError: an unknown one, one given twice, or none.
    """
    if not versions or set(versions) - set(VERSIONS) or len(set(versions)) < len(versions):
        raise UserError(
            f"pseudo.versions must be some of {', '.join(VERSIONS)}, each once, got [{', '.join(map(str, versions))}]"
        )
    return tuple(version for version in VERSIONS if version in versions)


class VersionsDataset(Dataset[Sample]):
    """Recordings to be guessed, each in several versions.

    A sample: views uint8 (R, V, C, S, S), valid bool (R, V), label int (of the folder), index int; R versions. The
    file is read once for all of them.

    Args:
        recordings: what to read, in order.
        files: path -> events.
        makers: events -> views, one maker a version.
    """

    def __init__(self, recordings: Recordings, files: EventFiles, makers: Sequence[ViewMaker]) -> None:
        self.recordings, self.files, self.makers = recordings, files, makers

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, position: int) -> Sample:
        events, sensor_hw = self.files(self.recordings.path(position))
        made = []
        for make in self.makers:
            one = make(events, sensor_hw)
            if one is None:
                raise ValueError("a recording to be guessed must not be augmented")
            made.append(one)
        views, valid = zip(*made, strict=True)
        return {
            "views": torch.from_numpy(np.stack(views)),
            "valid": torch.from_numpy(np.stack(valid)),
            "label": int(self.recordings.labels[position]),
            "index": position,
        }


class ShardBatches(Sampler[list[int]]):
    """Batches that never cross the bounds of shards, so that a shard is the same whoever makes it, and when.

    Args:
        size: number of samples.
        shard_size: samples in a shard; the last has what is left.
        batch_size: samples in a batch.
        shards: numbers of the shards to make.
    """

    def __init__(self, size: int, shard_size: int, batch_size: int, *, shards: Sequence[int]) -> None:
        self.size, self.shard_size, self.batch_size, self.shards = size, shard_size, batch_size, shards

    def __len__(self) -> int:
        return sum(math.ceil(len(self.positions(shard)) / self.batch_size) for shard in self.shards)

    def __iter__(self) -> Iterator[list[int]]:
        for shard in self.shards:
            own = self.positions(shard)
            for start in range(0, len(own), self.batch_size):
                yield list(own[start : start + self.batch_size])

    def positions(self, shard: int) -> range:
        """The samples of one shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.size))
