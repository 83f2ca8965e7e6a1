"""The unfinished file of a pack: recordings come in one by one, and a kill costs a few seconds of work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from eventclip.datasets.journal import JournaledFile
from eventclip.datasets.pack_format import (
    CHUNK,
    DAMAGED,
    ROW,
    STORED,
    Encoded,
    Listed,
    PackHeader,
    create_columns,
    row_crc,
    stored,
)
from eventclip.errors import UserError

COMMIT_S = 5.0
"""Work that a kill may cost [s]."""

_VERSIONS = ("v110", "v110")  # of HDF5: has an index that millions of chunks need, and is read by all since 2016


class PackWriter:
    """Open an unfinished pack, or begin it; to be used in a ``with`` statement, which commits the work at its end.

    Args:
        path: the unfinished file.
        header: what it is to hold.
        listed: the folders to begin it with.

    Attributes:
        rows: (n,) of ROW, one of each recording, in order of ``listed``.

    Raises:
        UserError: it was begun with other recordings, or is damaged.
        OSError: it cannot be written, here or in any other method.
    """

    rows: NDArray[Any]

    def __init__(self, path: Path, header: PackHeader, listed: Sequence[Listed]) -> None:
        self._journaled = JournaledFile(path)
        try:
            if self._journaled.size == 0:
                self._begin(header, listed)
            self._open()
            begun = PackHeader.from_json(stored(self._file, "header", np.dtype("u1"))[()].tobytes())
            if (begun.folders, begun.read_as) != (header.folders, header.read_as):
                raise UserError(
                    f"{path} was begun with other recordings or options: remove it to begin anew, or give another out="
                )
            self.rows, self._paths = stored(self._file, "rows", ROW)[()], stored(self._file, "paths", None)[()]
            if not len(self.rows) == len(self._paths) == sum(one.recordings for one in header.folders):
                raise ValueError("it has not a row for each recording")
        except BaseException as error:
            self._close()
            # HDF5 tells damage by any of a dozen exceptions; a disk's error has a number
            if isinstance(error, UserError) or not isinstance(error, Exception) or getattr(error, "errno", None):
                raise
            told = " ".join(str(error).split())[:200]
            raise UserError(f"{path} is damaged ({told}): remove it to begin anew") from None
        self._chunks = self._file["t"].shape[0] // CHUNK
        self._changed: list[int] = []
        self._committed_at = time.monotonic()

    def _open(self) -> None:
        self._file = h5py.File(self._journaled, "r+", libver=_VERSIONS)

    def _close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()
        self._journaled.close()

    def _begin(self, header: PackHeader, listed: Sequence[Listed]) -> None:
        """Write what is known beforehand."""
        paths = np.concatenate([one.recordings.paths for one in listed])
        with h5py.File(self._journaled, "w", libver=_VERSIONS) as file:
            file.attrs["complete"] = False
            file["header"] = np.frombuffer(header.as_json(), np.uint8)
            file["paths"] = paths
            file["by_path"] = np.argsort(paths, kind="stable").astype("<i8")
            file["labels"] = np.concatenate([one.recordings.labels for one in listed]).astype("<i8")
            file["rows"] = np.zeros(len(paths), ROW)
            create_columns(file, 0)
            file.create_dataset("gaps", (0, 2), "<i8", maxshape=(None, 2), chunks=(1024, 2), fletcher32=True)
            file.create_dataset("damage", (0,), "u1", maxshape=(None,), chunks=(4096,), fletcher32=True)
        self._journaled.commit()

    def __enter__(self) -> PackWriter:  # noqa: PYI034  (Self is not in Python 3.10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if self._journaled.failure is None:
                self._commit()
        finally:
            self._close()

    def store(self, row: int, encoded: Encoded, sensor_hw: tuple[int, int] | None) -> None:
        """Add a recording."""
        start = self._chunks * CHUNK
        self._chunks += len(encoded.chunks["t"])
        for name, chunks in encoded.chunks.items():
            column = self._file[name]
            column.resize((self._chunks * CHUNK,))
            for number, chunk in enumerate(chunks):
                column.id.write_direct_chunk((start + number * CHUNK,), chunk)
        gap = self._append("gaps", encoded.gaps) if len(encoded.gaps) else 0
        self._note(row, STORED, start, encoded.count, encoded.began, gap, len(encoded.gaps), sensor_hw)

    def store_damage(self, row: int, sentence: str) -> None:
        """Add a recording that cannot be read: its error takes its place."""
        told = np.frombuffer(sentence.encode("utf-8", "surrogateescape"), np.uint8)
        self._note(row, DAMAGED, self._append("damage", told), len(told), 0, 0, 0, None)

    def finish(self) -> None:
        """Mark the pack as complete."""
        self._file.attrs["complete"] = True
        self._commit()

    def _append(self, name: str, values: NDArray[Any]) -> int:
        """Add to a table; gives where it was added."""
        table = self._file[name]
        start = int(table.shape[0])
        table.resize(start + len(values), axis=0)
        table[start:] = values
        return start

    def _note(
        self,
        row: int,
        state: int,
        start: int,
        count: int,
        began: int,
        gap: int,
        gaps: int,
        sensor_hw: tuple[int, int] | None,
    ) -> None:
        self.rows[row] = (start, count, began, gap, gaps, *(sensor_hw or (0, 0)), state, 0)
        self.rows[row]["crc"] = row_crc(self.rows[row], bytes(self._paths[row]))
        self._changed.append(row)
        if self._journaled.failure is not None:
            raise self._journaled.failure
        if time.monotonic() - self._committed_at >= COMMIT_S:
            self._commit()

    def _commit(self) -> None:
        if self._changed:
            part = slice(min(self._changed), max(self._changed) + 1)
            self._file["rows"][part] = self.rows[part]
            self._changed.clear()
        # Closed, an HDF5 file is whole.
        self._file.close()
        self._journaled.commit()
        self._open()
        self._committed_at = time.monotonic()
