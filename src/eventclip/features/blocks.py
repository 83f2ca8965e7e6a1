"""Features on disk: rows found by key, in HDF5 blocks that are written once, whole, and named by their checksum.

A block never changes, so a process killed at any moment leaves nothing but whole blocks, and readers need no lock.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from eventclip.datasets.pack_format import stored
from eventclip.errors import UserError
from eventclip.files import read_regular, whole_file

Keys = NDArray[np.bytes_]
"""(n,) 20 bytes each, see :func:`row_key`."""

KEY = "S20"
IN_MEMORY_BYTES = 2 << 30
"""Rows up to this size are read at once; more are mapped, and the operating system keeps what is used often."""

_SUFFIX = ".h5"
_LARGEST_BYTES = 1 << 30  # of a block: 1024 rows of 50 views of 1024 numbers take 200 MB


def row_key(name: bytes) -> bytes:
    """Make the key of a row: 20 characters that no two names share by accident."""
    # characters, because numpy's bytes end at the last that is not zero
    return base64.b64encode(hashlib.blake2b(name, digest_size=15).digest())


class Block(NamedTuple):
    """What is known of a block without keeping its features in memory."""

    path: Path
    keys: Keys
    counts: NDArray[np.int64]
    """(n,) views of each row."""
    offset: int
    """Where the features begin in the file [bytes]."""
    shape: tuple[int, int]
    dtype: str


class Rows:
    """Some rows of a store, in the order they were asked for; what a data set reads.

    Args:
        blocks: where they lie.
        block: (n,) index of each row's block.
        start: (n,) first view of each row in it.
        counts: (n,) views of each row.
    """

    def __init__(
        self, blocks: Sequence[Block], block: NDArray[np.int64], start: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> None:
        self._blocks, self._block, self._start, self.counts = blocks, block, start, counts
        self._mapped = lru_cache(maxsize=128)(lambda index: _mapped(blocks[index]))  # each map holds a file open
        self._loaded: NDArray[np.floating[Any]] | None = None
        if len(blocks):
            width, dtype = blocks[0].shape[1], np.dtype(blocks[0].dtype)
            if int(counts.sum()) * width * dtype.itemsize <= IN_MEMORY_BYTES:
                self._load(width, dtype)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, row: int) -> NDArray[np.floating[Any]]:
        """(v, D) features of a row's v views, in the store's precision."""
        first, last = int(self._start[row]), int(self._start[row] + self.counts[row])
        if self._loaded is not None:
            return self._loaded[first:last]
        return self._mapped(int(self._block[row]))[first:last]

    def _load(self, width: int, dtype: np.dtype[Any]) -> None:
        ends = np.cumsum(self.counts)
        loaded = np.empty((int(self.counts.sum()), width), dtype)
        for index in np.unique(self._block):
            features = _mapped(self._blocks[index])
            for row in np.flatnonzero(self._block == index):
                first = self._start[row]
                loaded[ends[row] - self.counts[row] : ends[row]] = features[first : first + self.counts[row]]
        self._loaded, self._start = loaded, ends - self.counts


class FeatureStore:
    """Blocks of rows in one folder.

    Args:
        folder: where they are; made by the first :meth:`append`.

    Attributes:
        damaged: blocks whose bytes are not those that were written; their rows count as missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[Path] = []
        self._blocks: list[Block] = []
        self._keys: Keys = np.zeros(0, KEY)
        self._places: NDArray[np.int64] = np.zeros((0, 3), np.int64)  # block, start, count
        self.refresh()

    def __len__(self) -> int:
        return len(self._keys)

    def refresh(self) -> None:
        """Look for blocks written since; every byte of a new one is checked.

        Raises:
            UserError: a block may not be read.
        """
        known = {block.path for block in self._blocks} | set(self.damaged)
        for path in sorted(self.folder.glob(f"*{_SUFFIX}")):
            if path.name.startswith(".") or path in known:
                continue
            try:
                block = _read_block(path)
            except FileNotFoundError:  # another process rebuilds the bank
                continue
            first = self._blocks[0] if self._blocks else block
            if block is None or first is None or (block.shape[1], block.dtype) != (first.shape[1], first.dtype):
                self.damaged.append(path)
            else:
                self._blocks.append(block)
        if not self._blocks:
            return
        self._keys = np.concatenate([block.keys for block in self._blocks])
        order = np.argsort(self._keys, kind="stable")
        places = [
            np.stack([np.full(len(b.counts), i), np.cumsum(b.counts) - b.counts, b.counts], axis=1)
            for i, b in enumerate(self._blocks)
        ]
        self._keys, self._places = self._keys[order], np.concatenate(places)[order]

    def missing(self, keys: Keys) -> NDArray[np.int64]:
        """Positions of the keys that are not here, each key once, in the order given."""
        absent = np.flatnonzero(~self._found(keys)[1])
        _, first = np.unique(keys[absent], return_index=True)
        return absent[np.sort(first)]

    def rows(self, keys: Keys) -> Rows:
        """Find rows.

        Raises:
            KeyError: one is missing.
        """
        places, found = self._found(keys)
        if not found.all():
            raise KeyError(f"{int((~found).sum())} of {len(keys)} rows are not in {self.folder}")
        block, start, counts = self._places[places].T.copy() if len(self._keys) else np.zeros((3, 0), np.int64)
        return Rows(self._blocks, block, start, counts)

    def append(self, keys: Keys, features: Sequence[NDArray[np.floating[Any]]]) -> None:
        """Write a block; :meth:`refresh` finds it.

        Args:
            keys: (n,) keys of its rows.
            features: n arrays (v, D), v views each, alike in dtype.

        Raises:
            OSError: the folder cannot be written to, or the disk is full.
        """
        image = io.BytesIO()  # in memory first: HDF5 tells a full disk late, and not as an OSError
        with h5py.File(image, "w", libver="latest") as file:
            file["keys"] = keys
            file["views"] = np.array([len(row) for row in features], np.uint16)
            file["features"] = np.concatenate(features)
        content = image.getvalue()
        numbers = [int(path.name.split("-")[0]) for path in self.folder.glob(f"[0-9]*-*{_SUFFIX}")]
        name = f"{max(numbers, default=-1) + 1:06d}-{_checksum(content)}{_SUFFIX}"
        with whole_file(self.folder / name) as part:
            part.write_bytes(content)

    def remove(self, *, damaged_only: bool) -> None:
        """Delete the damaged blocks, or all of them.

        Raises:
            OSError: the folder cannot be written to.
        """
        for path in [*self.damaged, *([] if damaged_only else [block.path for block in self._blocks])]:
            path.unlink(missing_ok=True)
        self.damaged = []
        if not damaged_only:
            self._blocks, self._keys, self._places = [], np.zeros(0, KEY), np.zeros((0, 3), np.int64)

    def _found(self, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        if not len(self._keys):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.bool_)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return places, self._keys[places] == keys


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _read_block(path: Path) -> Block | None:
    """Read all but the features; None where the bytes are not those that the name promises, or no block.

    Raises:
        FileNotFoundError: it is gone.
        UserError: it may not be read.
    """
    try:
        content = read_regular(path, largest=_LARGEST_BYTES)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise UserError(f"the feature bank's {path} cannot be read ({error.strerror}): set features.folder") from None
    except OSError:
        return None
    if _checksum(content) != path.stem.partition("-")[2]:
        return None
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            keys, views = stored(file, "keys", np.dtype(KEY))[:], stored(file, "views", np.dtype("<u2"))[:]
            kind, width = file["features"].dtype, file["features"].shape[-1]
            features = stored(file, "features", kind, width=width)
            if keys.shape != views.shape or views.sum(dtype=np.int64) != features.shape[0] or kind.kind != "f":
                return None
            return Block(path, keys, views.astype(np.int64), int(features.id.get_offset()), features.shape, kind.str)
    except Exception:  # noqa: BLE001  (HDF5 tells damage by any of a dozen exceptions)
        return None


def _mapped(block: Block) -> NDArray[np.floating[Any]]:
    try:
        return np.memmap(block.path, block.dtype, "r", block.offset, block.shape)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the feature bank's {block.path} is gone or cannot be read ({getattr(error, 'strerror', None) or error}): "
            f"another process may have rebuilt the bank; start again"
        ) from None
