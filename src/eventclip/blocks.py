"""Immutable blocks: rows found by key, in HDF5 files that are written once, whole, and named by their checksum.

A block never changes, so a process killed at any moment leaves nothing but whole blocks, and readers need no lock.
Features, a teacher's scores (both :class:`RowStore`) and packed recordings (:mod:`eventclip.datasets.packs`) lie in
them.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, Generic, NamedTuple, Protocol, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from eventclip.errors import UserError
from eventclip.files import open_regular, whole_file

Keys = NDArray[np.bytes_]
"""(n,) 20 bytes each, see :func:`row_key`."""

B = TypeVar("B", bound="Keyed")
T = TypeVar("T")

KEY = "S20"
SUFFIX = ".h5"
IN_MEMORY_BYTES = 2 << 30
"""Rows up to this size are read at once; more are mapped, and the operating system keeps what is used often."""

_VERSIONS = ("v110", "v110")  # of HDF5: their heads have checksums, and all that were made since 2016 read them
_AT_ONCE = 1 << 20  # bytes hashed at a time
_NO_KEYS: Keys = np.zeros(0, KEY)


def row_key(name: bytes) -> bytes:
    """Make the key of a row: 20 characters that no two names share by accident."""
    # characters, because numpy's bytes end at the last that is not zero
    return base64.b64encode(hashlib.blake2b(name, digest_size=15).digest())


def stored(
    file: h5py.File, name: str, kind: np.dtype[Any] | None, *, width: int = 0, chunk: int = 0, packed: int = 1
) -> h5py.Dataset:
    """A table of a block, once it is known that the file itself holds what its shape promises.

    Args:
        file: the block.
        name: of the table.
        kind: of its values; None takes any fixed-width bytes.
        width: of a table of two dimensions; 0 is one dimension.
        chunk: rows in a chunk; 0 is a table in one piece.
        packed: how often smaller than its values a filter may have made the table.

    Raises:
        ValueError: it is of another kind, lies in another file, or is not there in full.
        Exception: whatever HDF5 makes of damaged bytes.
    """
    damaged = ValueError(f"its {name} cannot be what was written")
    # HDF5's own calls, which take a tenth of the time: a pack opens a block for nearly every recording it reads.
    if file.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise damaged
    table = h5py.Dataset(h5py.h5d.open(file.id, name.encode()))
    dtype, shape, made = table.id.dtype, table.id.shape, table.id.get_create_plist()
    right = dtype == kind if kind is not None else dtype.kind == "S" and dtype.itemsize > 0
    if not right or shape is None or shape[1:] != ((width,) if width else ()) or made.get_external_count():
        raise damaged
    size, layout, held = file.id.get_filesize(), made.get_layout(), math.prod(shape) * dtype.itemsize
    if chunk:
        there = layout == h5py.h5d.CHUNKED and made.get_chunk() == (chunk,) and held <= packed * size
    else:
        place = table.id.get_offset() if layout == h5py.h5d.CONTIGUOUS else None  # None where nothing was stored
        there = layout == h5py.h5d.CONTIGUOUS and (held == 0 or (place is not None and place + held <= size))
    if not there:
        raise damaged
    return table


def written(folder: Path, prefix: str, fill: Callable[[h5py.File], None]) -> Path:
    """Write a block, whole or not at all.

    Args:
        folder: where it goes; made if it is not there.
        prefix: of its name, which its checksum follows.
        fill: puts the tables into the file.

    Raises:
        OSError: the folder cannot be written to, or the disk is full.
    """
    image = io.BytesIO()  # in memory first: HDF5 tells a full disk late, and not as an OSError
    with h5py.File(image, "w", libver=_VERSIONS) as file:
        fill(file)
    path = folder / f"{prefix}-{_checksum(image)}{SUFFIX}"
    with whole_file(path) as part:
        part.write_bytes(image.getbuffer())
    return path


def read_whole(path: Path, read: Callable[[h5py.File], T]) -> T | None:
    """Read a block every byte of which is what was written; None where it is not.

    Args:
        path: the block.
        read: takes what is needed; whatever it raises means that this is no such block.

    Raises:
        FileNotFoundError: it is gone.
        PermissionError: it may not be read.
    """
    try:
        with open_regular(path) as content:
            if _checksum(content) != path.stem.rpartition("-")[2]:
                return None
            with h5py.File(content, "r") as file:
                return read(file)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception:  # noqa: BLE001  (HDF5 tells damage by any of a dozen exceptions)
        return None


def _checksum(content: BinaryIO) -> str:
    digest = hashlib.sha256()
    content.seek(0)
    while piece := content.read(_AT_ONCE):
        digest.update(piece)
    content.seek(0)
    return digest.hexdigest()[:16]


class Keyed(Protocol):
    """What is known of a block."""

    @property
    def path(self) -> Path:
        """Where it lies."""

    @property
    def keys(self) -> Keys:
        """(n,) keys of its rows."""


class Blocks(Generic[B]):
    """The blocks of one folder, and where each key is among them.

    Args:
        folder: where they are; made by the first :meth:`append`.
        read: file and its path -> what is to be known of a block; raises where it is none of these.
        name: what they hold, for messages.
        remedy: what to do where a block may not be read, for messages.

    Attributes:
        damaged: blocks whose bytes are not those that were written; their rows count as missing.
    """

    def __init__(self, folder: Path, read: Callable[[h5py.File, Path], B], *, name: str, remedy: str) -> None:
        self.folder, self._read = folder, read
        self.name, self.remedy = name, remedy
        self.damaged: list[Path] = []
        self.blocks: list[B] = []
        self._keys, self._places = _NO_KEYS, np.zeros((0, 2), np.int64)
        self.refresh()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> Keys:
        """All keys, sorted."""
        return self._keys

    def refresh(self) -> None:
        """Look for blocks written since; every byte of a new one is checked.

        Raises:
            UserError: a block may not be read.
        """
        known = {block.path for block in self.blocks} | set(self.damaged)
        for path in sorted(self.folder.glob(f"[0-9]*-*{SUFFIX}")):
            if path in known:
                continue
            try:
                block = read_whole(path, partial(self._read_as, path))
            except FileNotFoundError:  # another process makes them anew
                continue
            except PermissionError as error:
                raise UserError(f"{self.name}'s {path} cannot be read ({error.strerror}): {self.remedy}") from None
            if block is None or not self.fits(block):
                self.damaged.append(path)
            else:
                self.blocks.append(block)
        self._sort()

    def add(self, block: B | None) -> None:
        """Take over a block that was just written and need not be read again."""
        if block is not None:
            self.blocks.append(block)
            self._sorted = False

    def _sort(self) -> None:
        """Bring blocks and keys in order, whoever wrote them first."""
        self._sorted = True
        if not self.blocks:
            return
        self.blocks = sorted(self.blocks, key=lambda block: block.path)  # another list: rows that are out keep theirs
        keys = np.concatenate([block.keys for block in self.blocks])
        order = np.argsort(keys, kind="stable")
        places = [
            np.stack([np.full(len(b.keys), i), np.arange(len(b.keys))], axis=1) for i, b in enumerate(self.blocks)
        ]
        self._keys, self._places = keys[order], np.concatenate(places)[order]

    def _read_as(self, path: Path, file: h5py.File) -> B:
        return self._read(file, path)

    def fits(self, block: B) -> bool:
        """Whether a block belongs to those that are known."""
        return True

    def missing(self, keys: Keys) -> NDArray[np.int64]:
        """Positions of the keys that are not here, each key once, in the order given."""
        absent = np.flatnonzero(self.find(keys)[0] < 0)
        _, first = np.unique(keys[absent], return_index=True)
        return absent[np.sort(first)]

    def find(self, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n,) index of each key's block, -1 where it is missing, and (n,) its row in it."""
        if not self._sorted:
            self._sort()
        if not len(self._keys):
            return np.full(len(keys), -1), np.zeros(len(keys), np.int64)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        block, row = self._places[places].T
        return np.where(self._keys[places] == keys, block, -1), row

    def append(self, fill: Callable[[h5py.File], None]) -> None:
        """Write a block; :meth:`refresh` finds it.

        Raises:
            OSError: the folder cannot be written to, or the disk is full.
        """
        numbers = [int(path.name.split("-")[0]) for path in self.folder.glob(f"[0-9]*-*{SUFFIX}")]
        written(self.folder, f"{max(numbers, default=-1) + 1:06d}", fill)

    def remove(self, *, damaged_only: bool) -> None:
        """Delete the damaged blocks, or all of them.

        Raises:
            OSError: the folder cannot be written to.
        """
        for path in [*self.damaged, *([] if damaged_only else [block.path for block in self.blocks])]:
            path.unlink(missing_ok=True)
        self.damaged = []
        if not damaged_only:
            self.blocks, self._keys, self._places = [], _NO_KEYS, np.zeros((0, 2), np.int64)

    def tidy(self) -> None:
        """Delete what killed writers left behind; only for who alone may write here."""
        for path in self.folder.glob(".*.part"):
            with contextlib.suppress(OSError):
                path.unlink()


class RowBlock(NamedTuple):
    """What is known of a block of rows without keeping its values in memory."""

    path: Path
    keys: Keys
    counts: NDArray[np.int64]
    """(n,) values of each row."""
    offset: int
    """Where the values begin in the file [bytes]."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Rows:
    """Some rows of a store, in the order they were asked for; what a data set reads.

    Args:
        blocks: where they lie.
        block: (n,) index of each row's block.
        start: (n,) first value of each row in it.
        counts: (n,) values of each row.
    """

    def __init__(
        self, blocks: Sequence[RowBlock], block: NDArray[np.int64], start: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> None:
        self._blocks, self._block, self._start, self.counts = blocks, block, start, counts
        self._mapped = lru_cache(maxsize=128)(lambda index: _mapped(blocks[index]))  # each map holds a file open
        self._loaded: NDArray[Any] | None = None
        if len(blocks):
            empty = np.empty((0, *blocks[0].shape[1:]), blocks[0].dtype)
            if int(counts.sum()) * empty.dtype.itemsize * int(np.prod(empty.shape[1:])) <= IN_MEMORY_BYTES:
                self._load(empty)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, row: int) -> NDArray[Any]:
        """(v, ...) values of a row, in the store's precision."""
        first, last = int(self._start[row]), int(self._start[row] + self.counts[row])
        if self._loaded is not None:
            return self._loaded[first:last]
        return self._mapped(int(self._block[row]))[first:last]

    def filled(self, rows: NDArray[np.int64], most: int) -> NDArray[Any]:
        """(n, most, ...) values of several rows, each filled up with zeros, in the store's precision.

        Args:
            rows: (n,) which.
            most: values of the longest of them, or more.
        """
        counts, start = self.counts[rows], self._start[rows]
        places, there = start[:, None] + np.arange(most), np.arange(most) < counts[:, None]
        filled = np.zeros((len(rows), most, *self._blocks[0].shape[1:]), self._blocks[0].dtype)
        if self._loaded is not None:
            filled[there] = self._loaded[places[there]]
            return filled
        block = self._block[rows]
        for index in np.unique(block):
            own = there & (block == index)[:, None]
            filled[own] = self._mapped(int(index))[places[own]]
        return filled

    def _load(self, empty: NDArray[Any]) -> None:
        ends = np.cumsum(self.counts)
        loaded = np.empty((int(self.counts.sum()), *empty.shape[1:]), empty.dtype)
        for index in np.unique(self._block):
            values = _mapped(self._blocks[index])
            for row in np.flatnonzero(self._block == index):
                first = self._start[row]
                loaded[ends[row] - self.counts[row] : ends[row]] = values[first : first + self.counts[row]]
        self._loaded, self._start = loaded, ends - self.counts


class RowStore(Blocks[RowBlock]):
    """Rows of values, several for each key: (v, D) numbers, or (v,) of a structured dtype.

    Args:
        folder: where the blocks are; made by the first :meth:`write`.
        dtype: of the values; None takes numbers of any precision, the same in all blocks.
        name: what is kept, for messages.
        remedy: what to do where it may not be read, for messages.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: np.dtype[Any] | None = None,
        name: str = "the feature cache",
        remedy: str = "set features.folder",
    ) -> None:
        self.dtype = dtype
        super().__init__(folder, self._read_rows, name=name, remedy=remedy)

    def fits(self, block: RowBlock) -> bool:
        """Whether its values are of the width and the precision of the others."""
        first = self.blocks[0] if self.blocks else block
        return (block.shape[1:], block.dtype) == (first.shape[1:], first.dtype)

    def rows(self, keys: Keys) -> Rows:
        """Find rows.

        Raises:
            KeyError: one is missing.
        """
        block, row = self.find(keys)
        if (block < 0).any():
            raise KeyError(f"{int((block < 0).sum())} of {len(keys)} rows are not in {self.folder}")
        start, counts = np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
        for index in np.unique(block):
            own, theirs = block == index, self.blocks[index].counts
            start[own], counts[own] = (np.cumsum(theirs) - theirs)[row[own]], theirs[row[own]]
        return Rows(self.blocks, block, start, counts)

    def write(self, keys: Keys, values: Sequence[NDArray[Any]]) -> None:
        """Write a block; :meth:`refresh` finds it.

        Args:
            keys: (n,) keys of its rows.
            values: n arrays (v, D), v values each, alike in dtype.

        Raises:
            OSError: the folder cannot be written to, or the disk is full.
        """

        def fill(file: h5py.File) -> None:
            file["keys"] = keys
            file["counts"] = np.array([len(row) for row in values], np.uint16)
            file["values"] = np.concatenate(values)

        self.append(fill)

    def _read_rows(self, file: h5py.File, path: Path) -> RowBlock:
        keys, counts = stored(file, "keys", np.dtype(KEY))[:], stored(file, "counts", np.dtype("<u2"))[:]
        kind, shape = file["values"].dtype, file["values"].shape
        values = stored(file, "values", kind, width=shape[-1] if len(shape) > 1 else 0)
        if keys.shape != counts.shape or counts.sum(dtype=np.int64) != shape[0]:
            raise ValueError("rows that do not belong together")
        if kind != self.dtype if self.dtype is not None else kind.kind != "f":
            raise ValueError(f"values of {kind}")
        return RowBlock(path, keys, counts.astype(np.int64), int(values.id.get_offset() or 0), shape, kind)


def _mapped(block: RowBlock) -> NDArray[Any]:
    if not block.shape[0]:
        return np.empty(block.shape, block.dtype)
    try:
        return np.memmap(block.path, block.dtype, "r", block.offset, block.shape)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{block.path} is gone or cannot be read ({getattr(error, 'strerror', None) or error}): another process "
            f"may have made it anew; start again"
        ) from None
