"""Test-time augmentation: each recording as it is, mirrored, flipped in time, in shards that can be done again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from eventclip.datasets.datamodule import EventDataModule
from eventclip.datasets.dataset import Batch, RecordingDataset, Sample, collate
from eventclip.datasets.recordings import Recordings
from eventclip.datasets.sources import EventFiles
from eventclip.errors import UserError
from eventclip.views.transform import TTA, ViewTransform


def check_tta(tta: Sequence[str]) -> tuple[str, ...]:
    """The kinds of test-time augmentation in their one order.

    Raises:
        UserError: an unknown one, one given twice, or none.
    """
    if not tta or set(tta) - set(TTA) or len(set(tta)) < len(tta):
        raise UserError(f"pseudo.tta must be some of {', '.join(TTA)}, each once, got [{', '.join(map(str, tta))}]")
    return tuple(kind for kind in TTA if kind in tta)


class TTADataset(Dataset[list[Sample]]):
    """Recordings in several kinds of test-time augmentation: for each, a list of R samples.

    The file is read once for all of them.

    Args:
        recordings: what to read, in order.
        files: path -> events.
        transforms: events -> views, one for each kind.
    """

    def __init__(self, recordings: Recordings, files: EventFiles, transforms: Sequence[ViewTransform]) -> None:
        self.recordings, self.files, self.transforms = recordings, files, transforms

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, position: int) -> list[Sample]:
        events, sensor_hw = self.files(self.recordings.path(position))
        label = int(self.recordings.labels[position])
        return [
            {"views": torch.from_numpy(transform(events, sensor_hw).pixels), "label": label, "index": position}
            for transform in self.transforms
        ]


class CachedTTADataset(Dataset[list[Sample]]):
    """The same with features from the cache.

    Args:
        cached: the samples of each kind, as a data module's feature cache gives them.
    """

    def __init__(self, cached: Sequence[Dataset[Sample]]) -> None:
        self.cached = list(cached)

    def __getitem__(self, position: int) -> list[Sample]:
        return [samples[0, position] for samples in self.cached]


def collate_tta(recordings: Sequence[Sequence[Sample]], *, max_views: int | None = None) -> Batch:
    """B recordings of R samples each -> one batch of B R, recording after recording."""
    return collate(list(chain.from_iterable(recordings)), max_views=max_views)


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


def tta_loader(
    datamodule: EventDataModule, recordings: Recordings, tta: Sequence[str], shards: Shards, wanted: Sequence[int]
) -> DataLoader[list[Sample]]:
    """Load the recordings of some shards in all kinds of test-time augmentation, in order; see :func:`collate_tta`.

    A batch has as many views as an evaluation batch: its recordings are fewer by the number of kinds. With a feature
    cache, every kind is a data set of its own.

    Args:
        datamodule: how recordings are read and viewed, and whether features are kept.
        recordings: all that are to be labelled.
        tta: names as in :data:`eventclip.views.transform.TTA`.
        shards: how ``recordings`` are cut.
        wanted: numbers of the shards to load.
    """
    transforms = [datamodule.view_transform("test", tta=kind) for kind in tta]
    batch_size = max(1, datamodule.evaluation_batch_size // len(tta))
    samples: Dataset[list[Sample]] = TTADataset(recordings, datamodule.files, transforms)
    cache = datamodule.feature_cache
    if cache is not None:
        each = (RecordingDataset(recordings, datamodule.files, transform) for transform in transforms)
        samples = CachedTTADataset([cache(dataset) for dataset in each])
    return DataLoader(
        samples,
        batch_sampler=ShardBatches(shards, wanted, batch_size),
        collate_fn=partial(collate_tta, max_views=datamodule.evaluation_views),
        num_workers=datamodule.num_workers if cache is None else 0,
        pin_memory=torch.cuda.is_available(),
    )
