"""Read a packed data set in place of its folder: the same listing, the same events (written by ``eventclip.pack``)."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from eventclip.datasets.pack_format import (
    COLUMNS,
    DAMAGED,
    ROW,
    STORED,
    PackedFolder,
    PackHeader,
    check_paths,
    decode,
    row_crc,
    stored,
)
from eventclip.datasets.recordings import Recordings
from eventclip.errors import RecordingError, UserError
from eventclip.events.array import Events
from eventclip.files import open_regular

_open: weakref.WeakSet[Pack] = weakref.WeakSet()


def _close_all() -> None:
    for pack in list(_open):
        pack.close()


# A child that inherits an open HDF5 file shares its state with the parent; each process opens its own when it reads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_all)


class _NotSoundError(Exception):
    """Says what a file is in place of a complete pack."""


def _reason(error: BaseException) -> str:
    """What HDF5 says, in one line."""
    told = " ".join(str(error).split())
    return told[:200] or type(error).__name__


class Pack:
    """One packed file. May be handed to other processes, forked or spawned; each opens it when it first reads.

    Args:
        path: the file.

    Raises:
        UserError: there is no such file, or it is no complete pack.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: h5py.File | None = None
        self._again = "pack it again with python -m eventclip.pack"
        try:
            with open_regular(path), h5py.File(path, "r", locking=False) as file:
                self._take(file)
        except FileNotFoundError:
            raise UserError(
                f"there is no packed file {path}: check data.packed, or pack one with python -m eventclip.pack"
            ) from None
        except _NotSoundError as error:
            raise UserError(f"{path} is {error}") from None
        except Exception as error:  # noqa: BLE001  (HDF5 tells damage by any of a dozen exceptions)
            raise UserError(
                f"{path} is no pack of eventclip that can be read ({_reason(error)}): check data.packed"
            ) from None
        self._tables: dict[str, NDArray[Any]] = {}

    def _take(self, file: h5py.File) -> None:
        """Take over what the file says of itself, and where its tables lie.

        Raises:
            _NotSoundError: it is no complete pack; follows "is" in a sentence.
        """
        if "header" not in file:
            raise _NotSoundError("no pack of eventclip")
        try:
            self.header = PackHeader.from_json(stored(file, "header", np.dtype("u1"))[()].tobytes())
            if not file.attrs["complete"]:
                raise _NotSoundError("a pack that is not finished: run the same python -m eventclip.pack again")
            self.count = sum(folder.recordings for folder in self.header.folders)
            kinds = {"rows": ROW, "paths": None, "labels": np.dtype("<i8"), "by_path": np.dtype("<i8")}
            tables = {name: stored(file, name, kind) for name, kind in kinds.items()}
            for name, table in tables.items():
                if table.shape != (self.count,) or table.chunks is not None:
                    raise _NotSoundError(f"a damaged pack, {name} has not {self.count} entries: {self._again}")
            for name, kind in {**COLUMNS, "damage": np.dtype("u1")}.items():
                stored(file, name, kind)
            stored(file, "gaps", np.dtype("<i8"), width=2)
        except _NotSoundError:
            raise
        except ValueError as error:
            raise _NotSoundError(f"{_reason(error)}: {self._again}") from None
        self._rows_at, self._paths_at, self._by_path_at = (
            int(tables[name].id.get_offset() or 0) for name in ("rows", "paths", "by_path")
        )
        self._path_dtype = tables["paths"].dtype

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_tables": {}}

    def close(self) -> None:
        """Let go of the file; reading opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _handle(self) -> h5py.File:
        if self._file is None:
            # Every chunk is read once and whole, so that a cache of them would only copy.
            self._file = h5py.File(self.path, "r", locking=False, rdcc_nbytes=0)
            _open.add(self)
        return self._file

    def _table(self, name: str) -> NDArray[Any]:
        """A table of all recordings, mapped: its pages are shared by all processes."""
        if name not in self._tables:
            place, dtype = {
                "rows": (self._rows_at, ROW),
                "paths": (self._paths_at, self._path_dtype),
                "by_path": (self._by_path_at, np.dtype("<i8")),
            }[name]
            try:
                self._tables[name] = np.asarray(np.memmap(self.path, dtype, "r", place, (self.count,)))
            except (OSError, ValueError) as error:
                raise RecordingError(
                    f"{self.path} has changed or gone since it was opened ({_reason(error)})"
                ) from None
        return self._tables[name]

    def folder(self, name: str) -> PackedFolder | None:
        """What is packed of a folder."""
        return next((folder for folder in self.header.folders if folder.folder == name), None)

    def listing(
        self, root: Path, name: str, *, class_folders: Sequence[str] | None = None, suffixes: Sequence[str]
    ) -> Recordings:
        """List a folder that is in this pack as :func:`eventclip.datasets.recordings.list_recordings` does on disk.

        Raises:
            UserError: the folder or a class is not in it, or its list is damaged.
        """
        folder = self.folder(name)
        if folder is None:
            raise UserError(f"{self.path} does not hold {name}")
        if class_folders is None and not folder.all_classes:
            raise UserError(
                f"{self.path} holds {len(folder.class_folders)} chosen classes of {name} and all were asked for: pack "
                f"it with the data= that it is read with"
            )
        listed = self._list(root, folder)
        if not set(folder.suffixes) <= set(suffixes):
            endings = tuple(suffix.encode() for suffix in suffixes)
            listed = listed.subset(
                [i for i, path in enumerate(listed.paths.tolist()) if path.lower().endswith(endings)]
            )
        if class_folders is None or tuple(class_folders) == folder.class_folders:
            return listed
        missing = set(class_folders) - set(folder.class_folders)
        if missing:
            raise UserError(f"{self.path} has no class {min(missing)!r} in {name}: pack all classes that are read")
        return listed.of_classes(class_folders)

    def _list(self, root: Path, folder: PackedFolder) -> Recordings:
        """All recordings of a folder, checked against what its header says.

        Raises:
            UserError: they are not what was packed.
        """
        start = 0
        for other in self.header.folders[: self.header.folders.index(folder)]:
            start += other.recordings
        part = slice(start, start + folder.recordings)
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                paths, labels = file["paths"][part], file["labels"][part]
        except Exception as error:  # noqa: BLE001  (HDF5 tells damage by any of a dozen exceptions)
            raise UserError(f"{self.path} cannot be read ({_reason(error)}): {self._again}") from None
        listed = Recordings(root, paths, labels, folder.class_folders)
        if listed.checksum() != folder.checksum:
            raise UserError(
                f"{self.path} is damaged, its list of {folder.folder} is not what was packed: {self._again}"
            )
        try:
            check_paths(folder, paths, labels)  # class names are in no checksum
        except ValueError as error:
            raise UserError(f"{self.path} is {error}: {self._again}") from None
        if "revision" not in self.header.read_as and any(path.lower().endswith(b".raw") for path in paths.tolist()):
            raise UserError(f"{self.path} holds .raw files with the times that an older version read: {self._again}")
        return listed

    def find(self, relative: bytes) -> int | None:
        """The row of a recording, None where it is not packed.

        Raises:
            RecordingError: the pack is damaged.
        """
        if len(relative) > self._path_dtype.itemsize:
            return None
        paths, order = self._table("paths"), self._table("by_path")
        key = np.array(relative, self._path_dtype)
        try:
            place = int(np.searchsorted(paths, key, sorter=order))
            row = int(order[place]) if place < self.count else -1
            return row if row >= 0 and bytes(paths[row]) == relative else None
        except (ValueError, IndexError):
            raise RecordingError(f"{self.path} is damaged in the order of its paths: {self._again}") from None

    def read(self, row: int) -> tuple[Events, tuple[int, int] | None]:
        """Events of one recording, and the sensor's (height, width) where its file knew it.

        Raises:
            RecordingError: it could not be read when it was packed (the very sentence), or the pack is damaged.
        """
        told = self._table("rows")[row]
        path = bytes(self._table("paths")[row])
        name = path.decode("utf-8", "surrogateescape")
        damaged = f"{self.path} is damaged where {name} lies"
        if row_crc(told, path) != told["crc"] or told["state"] not in (STORED, DAMAGED):
            raise RecordingError(f"{damaged}: {self._again}")
        start, count, gap = int(told["start"]), int(told["count"]), int(told["gap"])
        try:
            file = self._handle()
            if min(start, count, gap, int(told["gaps"])) < 0:
                raise ValueError("a place before the file's beginning")
            if told["state"] == DAMAGED:
                sentence = file["damage"][start : start + count].tobytes().decode("utf-8", "surrogateescape")
                raise RecordingError(sentence)
            columns = {column: file[column][start : start + count] for column in COLUMNS}
            if len(columns["t"]) != count:
                raise ValueError("its end is missing")
            gaps = file["gaps"][gap : gap + int(told["gaps"])] if told["gaps"] else np.zeros((0, 2), np.int64)
            events = decode(int(told["began"]), columns, gaps)
        except RecordingError:
            raise
        except Exception as error:  # noqa: BLE001  (HDF5 tells damage by any of a dozen exceptions)
            raise RecordingError(f"{damaged} ({_reason(error)}): {self._again}") from None
        return events, (int(told["height"]), int(told["width"])) if told["height"] else None


class PackedFolders:
    """The folders of a data set in one or several packs.

    Args:
        paths: one file or several.

    Raises:
        UserError: one of them is no complete pack, or two hold the same folder.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path]) -> None:
        several = list(paths) if isinstance(paths, Sequence) and not isinstance(paths, str) else [paths]
        if not several:
            raise UserError("data.packed names no file: give one or several, or null to read the folder")
        self.packs = [Pack(Path(str(path)).expanduser().absolute()) for path in several]
        names = [folder.folder for pack in self.packs for folder in pack.header.folders]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise UserError(f"data.packed names several files that hold {min(twice)}: give each folder once")
        self.folders = tuple(names)

    def listing(
        self, root: Path, name: str, *, class_folders: Sequence[str] | None = None, suffixes: Sequence[str]
    ) -> Recordings:
        """List a folder as :func:`eventclip.datasets.recordings.list_recordings` does on disk.

        Raises:
            UserError: it is not packed, or as for :meth:`Pack.listing`.
        """
        for pack in self.packs:
            if pack.folder(name) is not None:
                return pack.listing(root, name, class_folders=class_folders, suffixes=suffixes)
        files = ", ".join(str(pack.path) for pack in self.packs)
        raise UserError(
            f"data.packed={files} holds {', '.join(self.folders)} and not {name}, so it belongs to another data set or "
            f"another split: pack the split that is missing and name both files, data.packed=[A.h5,B.h5]"
        )

    def classes(self, name: str) -> tuple[str, ...]:
        """Class folders of a folder, none where it is not packed."""
        found = (pack.folder(name) for pack in self.packs)
        return next((folder.class_folders for folder in found if folder is not None), ())

    def read(self, relative: bytes) -> tuple[Events, tuple[int, int] | None]:
        """Events of the recording at a relative path, and the sensor's (height, width) where its file knew it.

        Raises:
            RecordingError: it is not packed, or as for :meth:`Pack.read`.
        """
        for pack in self.packs:
            row = pack.find(relative)
            if row is not None:
                return pack.read(row)
        raise RecordingError(f"{os.fsdecode(relative)} is not in {', '.join(str(pack.path) for pack in self.packs)}")
