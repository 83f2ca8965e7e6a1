"""What a teacher thinks of every recording, kept in blocks on disk so that no recording is scored twice.

Recordings are cut into shards, and each shard is one block: the same whoever makes it, and when.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Fabric
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from eventclip.blocks import KEY, RowStore, row_key
from eventclip.datasets.datamodule import EventDataModule
from eventclip.datasets.dataset import Batch, RecordingDataset, Sample, collate
from eventclip.datasets.recordings import Recordings
from eventclip.datasets.sources import EventFiles
from eventclip.errors import UserError, printable
from eventclip.files import fingerprint, write_json
from eventclip.models.classifier import EventClassifier
from eventclip.progress import tqdm
from eventclip.training.selection import Scores, score_dtype, summarise
from eventclip.views.transform import TTA, ViewTransform

log = logging.getLogger(__name__)


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


class ScoreStore:
    """Scores of one teacher for one list of recordings, in a folder of their own.

    The folder's name is a fingerprint of everything that decides the scores, so a changed teacher, data set or
    rendering begins a new one, and another threshold finds the old one complete.

    Args:
        folder: where such folders lie.
        decides: plain values that decide the scores.
        paths: (n,) relative paths of what is scored, each once.
        shard_size: recordings in a shard.
        tta: R, kinds of test-time augmentation.

    Raises:
        UserError: a shard without a recording, or scores that may not be read.
    """

    def __init__(
        self, folder: Path, decides: dict[str, Any], paths: NDArray[np.bytes_], *, shard_size: int, tta: int
    ) -> None:
        self.shards = Shards(len(paths), shard_size)
        self.decides = {**decides, "recordings": len(paths), "shard_size": shard_size}
        self.folder = folder / fingerprint(self.decides)
        self.dtype = score_dtype(tta)
        self._keys = np.array([row_key(path) for path in paths.tolist()], KEY)
        remedy = "allow reading it, or give another out="
        self._store = RowStore(self.folder, dtype=self.dtype, name="the scores", remedy=remedy)

    def missing(self, wanted: Iterable[int]) -> list[int]:
        """Those of the wanted shards that are not there yet, or not as they were written."""
        self._store.refresh()
        if self._store.damaged:
            count = len(self._store.damaged)
            log.warning("%d damaged files in %s are scored again", count, printable(str(self.folder)))
            self._store.remove(damaged_only=True)
        absent = set((self._store.missing(self._keys) // self.shards.shard_size).tolist())
        return [shard for shard in wanted if shard in absent]

    def write(self, shard: int, scores: Scores) -> None:
        """Keep a shard, whole or not at all."""
        own = self.shards.positions(shard)
        if scores.dtype != self.dtype or len(scores) != len(own):
            raise ValueError(f"shard {shard} needs {len(own)} scores, got {len(scores)}")
        if not (self.folder / "head.json").is_file():
            write_json(self.folder / "head.json", self.decides)
        self._store.write(self._keys[own.start : own.stop], np.split(scores, len(own)))

    def read(self) -> Scores:
        """All scores in order of the recordings: (n,).

        Raises:
            UserError: some are gone or damaged.
        """
        self._store.refresh()
        absent = len(self._store.missing(self._keys))
        if absent:
            raise UserError(
                f"{absent} of {len(self._keys)} scores in {self.folder} are gone or damaged: run the same command "
                f"again, which makes them anew"
            )
        rows = self._store.rows(self._keys)
        return np.concatenate([np.zeros(0, self.dtype), *(rows[i] for i in range(len(rows)))])


def score_all(
    fabric: Fabric,
    classifier: EventClassifier,
    datamodule: EventDataModule,
    recordings: Recordings,
    store: ScoreStore,
    *,
    tta: Sequence[str],
    progress: bool = True,
) -> None:
    """Score what the store does not hold yet; every process takes its share, and all wait for the last.

    Args:
        fabric: launched; tells the device, the precision and which process this is.
        classifier: the teacher.
        datamodule: how recordings are read and viewed.
        recordings: all that are to be scored.
        store: where the scores go; killed at any moment, the next call goes on after the last whole shard.
        tta: of each recording, names as in :data:`eventclip.views.transform.TTA`.
        progress: show a bar on the first process.
    """
    own = store.shards.of_rank(fabric.global_rank, fabric.world_size)
    wanted = store.missing(own)
    total = sum(len(store.shards.positions(shard)) for shard in own)
    left = sum(len(store.shards.positions(shard)) for shard in wanted)
    fabric.to_device(classifier)
    classifier.eval()
    pending = iter(wanted)
    shard, parts, held = next(pending, -1), [], 0
    bar = tqdm(
        desc="scoring", total=total, initial=total - left, unit="rec", disable=not progress or fabric.global_rank > 0
    )
    with bar:
        for batch in tta_loader(datamodule, recordings, tta, store.shards, wanted) if wanted else ():
            scores = _score(fabric, classifier, batch, len(tta))
            parts.append(scores)
            held += len(scores)
            bar.update(len(scores))
            if held == len(store.shards.positions(shard)):
                store.write(shard, np.concatenate(parts))
                shard, parts, held = next(pending, -1), [], 0
    fabric.barrier()


@torch.inference_mode()
def _score(fabric: Fabric, classifier: EventClassifier, batch: Batch, tta: int) -> Scores:
    """Score a batch of B recordings in R kinds, views or features of B R samples: (B,) scores."""
    seen = {name: fabric.to_device(batch[name]) for name in ("views", "features") if name in batch}
    with fabric.autocast():
        prediction = classifier(valid=fabric.to_device(batch["valid"]), **seen)
    return summarise(prediction.probabilities.float().unflatten(0, (-1, tta)).cpu().numpy())
