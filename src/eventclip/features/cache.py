"""The feature cache: a frozen tower sees each recording once, and every run after that reads what it saw.

What is kept, and under which key. Features lie in a folder named by a fingerprint of everything that shapes a feature
of a given recording: reader and sensor, frames, views, augmentation with its seed, the image tower's architecture and
weights, the precision, and the revision of the rendering. Inside, a row is found by the recording's relative path, its
file's size and time of change, the copy, and which repeat of the recording in the few-shot sample it is. So the cache
is one of recordings, not of samples: what one shot encoded serves five shots, every seed shares the evaluation views,
and more copies only add rows. Labels are not kept; they come from the recordings.

With augmentation, copy c is what live training sees in epoch c; epoch e reads copy e modulo their number.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eventclip.blocks import KEY, Keys, Rows, RowStore, row_key
from eventclip.datasets.dataset import Batch, RecordingDataset, Sample
from eventclip.datasets.recordings import Recordings
from eventclip.datasets.samplers import heed_parent_only
from eventclip.errors import UserError
from eventclip.features.encode import DTYPES, encode_in_batches
from eventclip.files import fingerprint, held, write_json
from eventclip.models.encoder import ClipEncoder
from eventclip.progress import tqdm

log = logging.getLogger(__name__)

HEAD = "cache.json"
"""What decides the features of a folder, beside them."""

_LAYOUT = 2  # of the files
_ROWS_AT_ONCE = 16  # that a worker reads


class Encodable(Protocol):
    """Samples whose views can be encoded: a :class:`RecordingDataset`, or images."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample (copy, position), with "views" uint8 (v, C, S, S)."""

    def describe(self) -> dict[str, Any]:
        """Plain values that decide the views of a given sample."""

    def row_name(self, position: int) -> bytes:
        """What tells this sample from all others."""


class FeatureCache:
    """Encode recordings once with a frozen image tower, and keep the features.

    Any number of processes may ask for the same features at once: one encodes, the others wait, and where the one is
    killed another goes on from what it had finished.

    Args:
        encoder: CLIP, its image tower frozen; features are computed where it lies at the time.
        folder: of all features, whatever shaped them; made if it is not there.
        copies: K, how many augmented copies of a training recording are encoded.
        dtype: "fp16" or "fp32", precision of the stored features.
        precision: the Trainer's; with "16-mixed" and "bf16-mixed" the tower runs as it would in training.
        num_workers: processes that read and render.
        rebuild: encode everything again, once, whatever the folder holds.
        progress: whether to show a progress bar.
        between: called often while recordings are encoded, and while another process does it; what it raises ends the
            work, and what was encoded is kept.

    Raises:
        UserError: an option outside its range.

    Example:
        >>> cache = FeatureCache(encoder, folder="features", copies=10)  # doctest: +SKIP
        >>> sample = cache(datamodule.dataset("test"))[0, 3]  # doctest: +SKIP
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        *,
        folder: str | Path,
        copies: int = 10,
        dtype: str = "fp32",
        precision: str = "32-true",
        num_workers: int = 0,
        rebuild: bool = False,
        progress: bool = True,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        if copies < 1:
            raise UserError(f"features.copies must be 1 or more, got {copies}")
        if dtype not in DTYPES:
            raise UserError(f"features.dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self.encoder, self.folder = encoder, Path(folder).expanduser()
        self.copies, self.dtype, self.precision = copies, dtype, str(precision)
        self.num_workers, self.rebuild, self.progress, self.between = num_workers, rebuild, progress, between
        self._rebuilt: set[Path] = set()
        self._tower: dict[str, Any] | None = None

    def __call__(self, dataset: RecordingDataset) -> FeatureDataset:
        """Give the data set's samples with features in place of views; what is not there is encoded first.

        Raises:
            UserError: the tower learns, a recording cannot be read, or the folder cannot be written to.
        """
        copies = self.copies if dataset.transform.augmentation else 1
        return FeatureDataset(dataset.recordings, self.rows(dataset, copies), copies=copies)

    def rows(self, dataset: Encodable, copies: int = 1) -> Rows:
        """Give the features of a data set's views, copy after copy; what is not there is encoded first.

        Args:
            dataset: recordings, or images.
            copies: how many copies of each sample are encoded.

        Returns:
            Row c * n + i holds the (v, D) raw features of copy c of sample i.

        Raises:
            UserError: the tower learns, a sample cannot be read, or the folder cannot be written to.
        """
        if any(parameter.requires_grad for parameter in self.encoder.parameters()):
            raise UserError(
                "features=cached keeps what a frozen image tower sees, but here it learns: set features=live"
            )
        keys = row_keys(dataset, copies)
        return self._complete(dataset, keys).rows(keys)

    def describe(self, dataset: Encodable) -> dict[str, Any]:
        """Plain values that decide a feature of a given recording; their fingerprint names the folder."""
        if self._tower is None:
            self._tower = self.encoder.describe_image_tower()
        return {
            "layout": _LAYOUT,
            **dataset.describe(),
            "clip": self._tower,
            "precision": self.precision,
            "dtype": self.dtype,
        }

    def place(self, dataset: Encodable) -> Path:
        """The folder with the features of such samples."""
        return self.folder / fingerprint(self.describe(dataset))

    def _complete(self, dataset: Encodable, keys: Keys) -> RowStore:
        """The store with every row in it, encoded now where they were missing."""
        place = self.place(dataset)
        store = RowStore(place)
        # Under DDP every rank comes by here: one of them rebuilding is enough.
        rebuild = self.rebuild and place not in self._rebuilt and getattr(rank_zero_only, "rank", 0) == 0
        self._rebuilt.add(place)
        if not rebuild and not len(store.missing(keys)):
            return store
        with self._lock(place):
            store.refresh()
            store.tidy()
            if store.damaged:
                log.warning("%d damaged blocks of the feature cache %s are encoded again", len(store.damaged), place)
            self._write(store.remove, damaged_only=not rebuild)
            if not (place / HEAD).is_file():
                self._write(write_json, place / HEAD, self.describe(dataset))
            self._encode(dataset, keys, store)
        return store

    @contextmanager
    def _lock(self, place: Path) -> Iterator[None]:
        """Hold the folder of such features; the operating system frees it when its owner dies."""
        told = False

        def waiting() -> None:
            nonlocal told
            if not told:
                log.info("another process encodes features into %s: waiting for it", place)
            told = True
            self.between()

        with ExitStack() as stack:
            self._write(stack.enter_context, held(place, waiting=waiting))
            yield

    def _encode(self, dataset: Encodable, keys: Keys, store: RowStore) -> None:
        """Encode what is missing, block after block.

        A block's rows are encoded together and with nothing else, and blocks are cut by the size of the request: after
        a kill the rest is encoded in the very batches that an unbroken build has.
        """
        missing = store.missing(keys)
        block = rows_in_block(len(keys))
        blocks = [missing[start : start + block] for start in range(0, len(missing), block)]
        pieces = [rows[i : i + _ROWS_AT_ONCE] for rows in blocks for i in range(0, len(rows), _ROWS_AT_ONCE)]
        loader: DataLoader[Sample] = DataLoader(
            cast("Dataset[Sample]", dataset),
            batch_sampler=[[divmod(int(row), len(dataset)) for row in piece] for piece in pieces],
            num_workers=self.num_workers,
            collate_fn=_put_together,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=heed_parent_only,
        )
        read = iter(loader)
        with tqdm(total=len(missing), desc="encoding views", unit="sample", disable=not self.progress) as bar:
            for rows in blocks:
                counts: list[int] = []
                views = self._read(islice(read, math.ceil(len(rows) / _ROWS_AT_ONCE)), counts, bar)
                features = encode_in_batches(self.encoder, views, dtype=self.dtype, precision=self.precision)
                if not np.isfinite(features).all():
                    raise UserError(
                        f"the image tower gives features that are no finite numbers (features.dtype={self.dtype}, "
                        f"precision {self.precision}): check clip.pretrained, or set features.dtype=fp32 and "
                        f"trainer.precision=32-true"
                    )
                self._write(store.write, keys[rows], np.split(features, np.cumsum(counts)[:-1]))
        store.refresh()

    def _read(self, pieces: Iterator[tuple[Tensor, list[int]]], counts: list[int], bar: Any) -> Iterator[Tensor]:
        """The views of several pieces; adds the number of each row's views to ``counts``."""
        for views, own in pieces:
            self.between()
            counts += own
            yield views
            bar.update(len(own))

    def _write(self, task: Any, *arguments: Any, **options: Any) -> None:
        try:
            task(*arguments, **options)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"the feature cache cannot be written to {self.folder} ({error.strerror or error}): set features.folder to "
            f"a folder with room that you can write to, or features=live"
        )


def rows_in_block(size: int) -> int:
    """How many rows are encoded and written together: a kill loses no more, a million make a thousand files."""
    return min(max(size // 128, 64), 1024)


def row_keys(dataset: Encodable, copies: int) -> Keys:
    """(copies * n,) keys of the rows of a data set, copy after copy.

    Raises:
        RecordingError: a recording is not there.
    """
    names = [dataset.row_name(i) for i in range(len(dataset))]
    return np.array([row_key(b"%d/%s" % (c, name)) for c in range(copies) for name in names], dtype=KEY)


def _put_together(samples: list[Sample]) -> tuple[Tensor, list[int]]:
    """The views of several samples, one after the other, and how many each has."""
    views = [sample["views"] for sample in samples]
    return torch.cat(views), list(map(len, views))


class FeatureDataset(Dataset[Sample]):
    """Samples of a set of recordings with the features of their views, read from the feature cache.

    Asked for by ``(epoch, position)``, as a :class:`RecordingDataset` is. A sample is {"features": float32 (v, D),
    "label": int, "index": int}.

    Args:
        recordings: in order.
        rows: features of every recording, copy after copy.
        copies: K; epoch e reads copy e modulo K.
    """

    def __init__(self, recordings: Recordings, rows: Rows, *, copies: int = 1) -> None:
        self.recordings, self.rows, self.copies = recordings, rows, copies

    def __len__(self) -> int:
        return len(self.recordings)

    def epoch(self, epoch: int, max_views: int) -> Batch:
        """All samples of an epoch as one batch, in order, each filled up to ``max_views`` (see `datasets.dataset`)."""
        rows = epoch % self.copies * len(self) + np.arange(len(self))
        counts = self.rows.counts[rows]
        if not 1 <= counts.min() <= counts.max() <= max_views:
            raise ValueError(f"a recording needs 1 to {max_views} views, got {counts.min()} to {counts.max()}")
        return {
            "features": torch.from_numpy(self.rows.filled(rows, max_views).astype(np.float32, copy=False)),
            "valid": torch.from_numpy(np.arange(max_views) < counts[:, None]),
            "label": torch.from_numpy(np.asarray(self.recordings.labels, dtype=np.int64)),
            "index": torch.arange(len(self)),
        }

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, position = key
        stored = self.rows[epoch % self.copies * len(self) + position]
        return {
            "features": torch.from_numpy(stored.astype(np.float32)),
            "label": int(self.recordings.labels[position]),
            "index": position,
        }
