"""Test-time versions of a recording: one sample holds the views of all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from eventclip.datasets.datamodule import EventDataModule
from eventclip.datasets.dataset import RecordingDataset, Sample
from eventclip.datasets.recordings import Recordings
from eventclip.datasets.sources import EventFiles
from eventclip.errors import UserError
from eventclip.views.transform import VERSIONS, ViewMaker


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


class StackedVersions(Dataset[Sample]):
    """Recordings to be guessed from features at hand: features (R, V, D) in place of the views of the other data set.

    Args:
        banked: the samples of each version, as a data module's ``bank`` gives them.
    """

    def __init__(self, banked: Sequence[Dataset[Sample]]) -> None:
        self.banked = list(banked)

    def __getitem__(self, position: int) -> Sample:
        samples = [version[0, position] for version in self.banked]
        stacked = {name: torch.stack([sample[name] for sample in samples]) for name in ("features", "valid")}
        return {**samples[0], **stacked}


class Shards:
    """Recordings cut into numbered parts, each of which is the same whoever makes it, and when.

    Args:
        size: number of recordings.
        shard_size: recordings in a shard; the last has what is left.
    """

    def __init__(self, size: int, shard_size: int) -> None:
        if shard_size < 1:
            raise UserError(f"pseudo.shard_size must be 1 recording or more, got {shard_size}")
        self.size, self.shard_size = size, shard_size

    def __len__(self) -> int:
        return math.ceil(self.size / self.shard_size)

    def positions(self, shard: int) -> range:
        """The recordings of one shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.size))

    def of_rank(self, rank: int, world_size: int) -> range:
        """Numbers of the shards that process ``rank`` of ``world_size`` makes, whatever is there already."""
        return range(rank, len(self), world_size)


class ShardBatches(Sampler[list[int]]):
    """Batches of some shards, one shard after the other; none crosses from one to the next.

    Args:
        shards: how the recordings are cut.
        wanted: numbers of the shards to go through.
        batch_size: recordings in a batch.
    """

    def __init__(self, shards: Shards, wanted: Sequence[int], batch_size: int) -> None:
        self.shards, self.wanted, self.batch_size = shards, wanted, batch_size

    def __len__(self) -> int:
        return sum(math.ceil(len(self.shards.positions(shard)) / self.batch_size) for shard in self.wanted)

    def __iter__(self) -> Iterator[list[int]]:
        for shard in self.wanted:
            own = self.shards.positions(shard)
            for start in range(0, len(own), self.batch_size):
                yield list(own[start : start + self.batch_size])


def versions_loader(
    datamodule: EventDataModule, recordings: Recordings, versions: Sequence[str], shards: Shards, wanted: Sequence[int]
) -> DataLoader[Sample]:
    """Load the recordings of some shards in all their versions, in order.

    A batch has as many views as an evaluation batch: its recordings are fewer by the number of versions. With a feature
    bank, every version is banked as a data set of its own.

    Args:
        datamodule: how recordings are read and viewed, and whether features are kept.
        recordings: all that are to be guessed.
        versions: names as in :data:`eventclip.views.transform.VERSIONS`.
        shards: how ``recordings`` are cut.
        wanted: numbers of the shards to load.
    """
    makers = [datamodule.view_maker("test", version=version) for version in versions]
    batch_size = max(1, datamodule.evaluation_batch_size // len(versions))
    samples: Dataset[Sample] = VersionsDataset(recordings, datamodule.files, makers)
    if datamodule.bank is not None:
        each = (RecordingDataset(recordings, datamodule.files, make) for make in makers)
        samples = StackedVersions([datamodule.bank(dataset) for dataset in each])
    return DataLoader(
        samples,
        batch_sampler=ShardBatches(shards, wanted, batch_size),
        num_workers=datamodule.num_workers if datamodule.bank is None else 0,
        pin_memory=torch.cuda.is_available(),
    )
