"""The feature bank: a frozen tower sees each recording once, and every run after that reads what it saw.

What is kept, and under which key. A bank is a folder named by a hash of everything that shapes a feature of a given
recording: reader and sensor, frames, views, augmentation with its seed, the image tower's architecture and weights, the
precision, and the revision of the rendering. Inside, a row is found by the recording's relative path, its file's
size and time of change, the pass, and which repeat of the recording in the draw it is. So the bank is one of
recordings, not of draws: what one shot encoded serves five shots, every seed shares the evaluation views, and more
passes only add rows. Labels are not kept; they come from the recordings.

With augmentation, pass p is what online training sees in epoch p; epoch e reads pass e modulo the number of passes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader

from eventclip.datasets.dataset import RecordingDataset, Sample
from eventclip.datasets.samplers import heed_parent_only
from eventclip.errors import UserError
from eventclip.features.blocks import KEY, FeatureStore, Keys, row_key
from eventclip.features.dataset import BankedDataset
from eventclip.features.encode import DTYPES, encode_in_batches
from eventclip.files import write_json
from eventclip.models.encoder import ClipEncoder
from eventclip.progress import tqdm
from eventclip.training.requeue import leave_if_asked

log = logging.getLogger(__name__)

_LAYOUT = 1  # of the files
_ROWS_AT_ONCE = 16  # that a worker reads


class FeatureBank:
    """Encode recordings once with a frozen image tower, and keep the features.

    Any number of processes may ask for the same bank at once: one encodes, the others wait, and where the one is
    killed another goes on from what it had finished.

    Args:
        encoder: CLIP, its image tower frozen; features are computed where it lies at the time.
        folder: of all banks; made if it is not there.
        passes: K, how many augmented versions of a training recording are encoded.
        dtype: "fp16" or "fp32", precision of the stored features.
        precision: the Trainer's; with "16-mixed" and "bf16-mixed" the tower runs as it would in training.
        num_workers: processes that read and render.
        rebuild: encode everything again, once, whatever the folder holds.
        progress: whether to show a progress bar.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        *,
        folder: str | Path,
        passes: int = 10,
        dtype: str = "fp32",
        precision: str = "32-true",
        num_workers: int = 0,
        rebuild: bool = False,
        progress: bool = True,
    ) -> None:
        if passes < 1:
            raise UserError(f"features.passes must be 1 or more, got {passes}")
        if dtype not in DTYPES:
            raise UserError(f"features.dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self.encoder, self.folder = encoder, Path(folder).expanduser()
        self.passes, self.dtype, self.precision = passes, dtype, str(precision)
        self.num_workers, self.rebuild, self.progress = num_workers, rebuild, progress
        self._rebuilt: set[Path] = set()
        self._tower: dict[str, Any] | None = None

    def __call__(self, dataset: RecordingDataset) -> BankedDataset:
        """Give the data set's samples with features in place of views; what is not in the bank is encoded first.

        Raises:
            UserError: the tower learns, a recording cannot be read, or the bank's folder cannot be written to.
        """
        if any(parameter.requires_grad for parameter in self.encoder.parameters()):
            raise UserError(
                "features=bank keeps what a frozen image tower sees, but here it learns: set features=online"
            )
        passes = self.passes if dataset.make_views.augmentation else 1
        keys = row_keys(dataset, passes)
        store = self._complete(dataset, keys)
        return BankedDataset(
            dataset.recordings, store.rows(keys), max_views=dataset.make_views.max_views, passes=passes
        )

    def describe(self, dataset: RecordingDataset) -> dict[str, Any]:
        """Plain values that decide a feature of a given recording; their hash names the bank."""
        if self._tower is None:
            self._tower = self.encoder.describe_image_tower()
        return {
            "layout": _LAYOUT,
            **dataset.describe(),
            "clip": self._tower,
            "precision": self.precision,
            "dtype": self.dtype,
        }

    def place(self, dataset: RecordingDataset) -> Path:
        """The folder with the features of such samples."""
        text = json.dumps(self.describe(dataset), sort_keys=True)
        return self.folder / hashlib.sha256(text.encode()).hexdigest()[:16]

    def _complete(self, dataset: RecordingDataset, keys: Keys) -> FeatureStore:
        """The store with every row in it, encoded now where they were missing."""
        place = self.place(dataset)
        store = FeatureStore(place)
        # Under DDP every rank comes by here: one of them rebuilding is enough.
        rebuild = self.rebuild and place not in self._rebuilt and getattr(rank_zero_only, "rank", 0) == 0
        self._rebuilt.add(place)
        if not rebuild and not len(store.missing(keys)):
            return store
        with self._lock(place):
            store.refresh()
            if store.damaged:
                log.warning("%d damaged blocks of the feature bank %s are encoded again", len(store.damaged), place)
            self._write(store.remove, damaged_only=not rebuild)
            if not (place / "bank.json").is_file():
                self._write(write_json, place / "bank.json", self.describe(dataset))
            self._encode(dataset, keys, store)
        return store

    @contextmanager
    def _lock(self, place: Path) -> Iterator[None]:
        """Hold the bank; the operating system frees it when its owner dies."""
        lock = FileLock(place.with_suffix(".lock"))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.info("another process encodes features into %s: waiting for it", place)
                while not lock.is_locked:
                    leave_if_asked()
                    with suppress(Timeout):
                        lock.acquire(timeout=1)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            yield
        finally:
            lock.release()

    def _encode(self, dataset: RecordingDataset, keys: Keys, store: FeatureStore) -> None:
        """Encode what is missing, block after block.

        A block's rows are encoded together and with nothing else, and blocks are cut by the size of the request: after
        a kill the rest is encoded in the very batches that an unbroken build has.
        """
        missing = store.missing(keys)
        block = rows_in_block(len(keys))
        blocks = [missing[start : start + block] for start in range(0, len(missing), block)]
        pieces = [rows[i : i + _ROWS_AT_ONCE] for rows in blocks for i in range(0, len(rows), _ROWS_AT_ONCE)]
        loader = DataLoader(
            dataset,
            batch_sampler=[[divmod(int(row), len(dataset)) for row in piece] for piece in pieces],
            num_workers=self.num_workers,
            collate_fn=_valid_views,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=heed_parent_only,
        )
        read = iter(loader)
        with tqdm(total=len(missing), desc="encoding recordings", unit="rec", disable=not self.progress) as bar:
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
                self._write(store.append, keys[rows], np.split(features, np.cumsum(counts)[:-1]))
        store.refresh()

    def _read(self, pieces: Iterator[tuple[Tensor, list[int]]], counts: list[int], bar: Any) -> Iterator[Tensor]:
        """The views of several pieces; adds the number of each row's views to ``counts``."""
        for views, own in pieces:
            leave_if_asked()
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
            f"the feature bank cannot be written to {self.folder} ({error.strerror or error}): set features.folder to "
            f"a folder with room that you can write to, or features=online"
        )


def rows_in_block(size: int) -> int:
    """How many rows are encoded and written together: a kill loses no more, a million make a thousand files."""
    return min(max(size // 128, 64), 1024)


def row_keys(dataset: RecordingDataset, passes: int) -> Keys:
    """(passes * n,) keys of the rows of a data set, pass after pass.

    Raises:
        RecordingError: a recording is not there.
    """
    names = [dataset.row_name(i) for i in range(len(dataset))]
    return np.array([row_key(b"%d/%s" % (p, name)) for p in range(passes) for name in names], dtype=KEY)


def _valid_views(samples: list[Sample]) -> tuple[Tensor, list[int]]:
    """The views that there are of several samples, one after the other, and how many each has."""
    views = torch.cat([sample["views"][sample["valid"]] for sample in samples])
    return views, [int(sample["valid"].sum()) for sample in samples]
