"""Packs: a data set's folders as one folder of blocks, which is read in place of the recordings, their events exactly.

    000000-CHECKSUM.h5, …   blocks of recordings, see :mod:`eventclip.blocks`
        keys         (n,) of path, file and how it was read
        rows         (n,) ROW: where each recording lies in the columns, and when it began
        t, x, y, p   columns of all events; each recording begins at a multiple of CHUNK, zeros fill its last chunk
                     t [µs]: uint16 time since the event before (65535: see ``gaps``), x, y [px]: int16, p: 1 = ON
        gaps         (m, 2) int64: event of its recording, and the time before it [µs], from 65535 µs on
    index-CHECKSUM.h5       what is known of all recordings, mapped by whoever reads them
        paths        (N,) relative paths in UTF-8, folder after folder in the order of their listing
        labels       (N,) place of each recording's class among its folder's classes
        by_path      (N,) the recordings in order of their paths
        rows         (N,) INDEX: each recording's block, and its row there
        damage       text of the errors that recordings gave when they were packed
    pack.json               format, version, folders, how the files were read, names of index and blocks; written last

Chunks go through HDF5's bitshuffle-LZ4 filter (``import hdf5plugin`` and any h5py reads them) and have a checksum; so
do a recording's events together. The filter was chosen by measurement, on N-ImageNet-like recordings against HDF5's own
ones: it packs ten times and reads two and a half times as fast as shuffled deflate at level 4, into 4 % less room.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from eventclip.blocks import KEY, Keys, read_whole, stored
from eventclip.datasets.recordings import Recordings
from eventclip.errors import RecordingError, UserError, reason
from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.events.kernels import kernel
from eventclip.files import ODD_NAME, fingerprint, plain_name, plain_path, read_json

HEADER = "pack.json"
FORMAT, VERSION = "eventclip pack", 2
CHUNK = 32_768
COLUMNS: dict[str, np.dtype[Any]] = {
    "t": np.dtype("<u2"),
    "x": np.dtype("<i2"),
    "y": np.dtype("<i2"),
    "p": np.dtype("u1"),
}
ROW = np.dtype(
    [
        ("start", "<i8"),  # first event in the columns
        ("count", "<i8"),  # events
        ("began", "<i8"),  # time of the first event [µs]
        ("gap", "<i8"),  # first of its rows in gaps
        ("gaps", "<i8"),
        ("checksum", "<u8"),  # of the events, see _join
        ("height", "<i4"),  # of the sensor [px], 0 where the file does not know
        ("width", "<i4"),
    ]
)
INDEX = np.dtype([("block", "<i8"), *ROW.descr])
"""A row and its block; block -1 is an error, its text from ``start`` on, ``count`` bytes of ``damage``."""

_LONG = 65_535
_SMALLEST = 256  # LZ4 makes no block smaller than a 255th of what it holds
_MOST_OPEN = 128  # blocks that a process holds open
_BLOCK_NAME = re.compile(r"\d{6,9}-[0-9a-f]{16}\.h5")
_INDEX_NAME = re.compile(r"index-[0-9a-f]{16}\.h5")
_PLAIN = rb"(?!\.\.?$)(?:[^\x00-\x1f\x7f/\\\xc2]+|\xc2(?![\x80-\x9f]))+"  # a name, see plain_name
_AGAIN = "remove it and pack again with eventclip pack"

_open: weakref.WeakSet[Pack] = weakref.WeakSet()


def _close_all() -> None:
    for pack in list(_open):
        pack.close()


# A child that inherits an open HDF5 file shares its state with the parent; each process opens its own when it reads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_close_all)


class PackedFolder(NamedTuple):
    """One folder of a data set as it was listed."""

    folder: str
    """Path below the data set's root, "." for the root itself."""
    suffixes: tuple[str, ...]
    """Endings that recordings were listed by."""
    class_folders: tuple[str, ...]
    """The classes in order of their labels."""
    all_classes: bool
    """Whether these are all class folders there were, not chosen ones."""
    recordings: int
    checksum: str
    """:meth:`eventclip.datasets.recordings.Recordings.checksum`"""

    def check(self) -> None:
        """Check that no name may lead out of the folder that it is joined to.

        Raises:
            ValueError: one may; follows "is" in a sentence.
        """
        odd = [] if self.folder == "." or plain_path(self.folder) else [self.folder]
        odd += [name for name in self.class_folders if not plain_name(name)]
        if odd:
            raise ValueError(f"a pack that calls a folder {odd[0]!r:.80}, which is refused ({ODD_NAME})")

    def check_paths(self, paths: NDArray[np.bytes_], labels: NDArray[np.int64]) -> None:
        """Check that recordings lie in the folder and in the class folders.

        Args:
            paths: (n,) paths below the data set's root.
            labels: (n,) places among the folder's classes.

        Raises:
            ValueError: one does not; follows "is" in a sentence.
        """
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_folders):
            raise ValueError("a damaged pack, it has labels of no class")
        bounds = np.flatnonzero(np.diff(labels, prepend=-1, append=-1))
        for start, end in itertools.pairwise(bounds.tolist()):
            own, name = paths[start:end].tolist(), self.class_folders[labels[start]]
            begin = os.fsencode(f"{name}/" if self.folder == "." else f"{self.folder}/{name}/")
            inside, together = re.escape(begin) + _PLAIN, b"\n".join(own)  # one by one, a million take seconds
            lines = re.findall(b"^" + inside + b"$", together, re.MULTILINE)
            if together.count(b"\n") >= len(own) or len(lines) < len(own):
                odd = next(path for path in own if not re.fullmatch(inside, path))
                raise ValueError(
                    f"a pack that holds {os.fsdecode(odd)!r:.200} as a recording of class {name!r:.80}, which is "
                    f"refused (it must lie in its class folder, and {ODD_NAME})"
                )


class Listed(NamedTuple):
    """A folder as a data module listed it."""

    folder: str
    suffixes: tuple[str, ...]
    all_classes: bool
    recordings: Recordings

    def packed(self) -> PackedFolder:
        """What a pack's header says of it."""
        own = self.recordings
        return PackedFolder(self.folder, self.suffixes, own.class_folders, self.all_classes, len(own), own.checksum())


@dataclass(frozen=True)
class PackHeader:
    """What a pack says about itself."""

    folders: tuple[PackedFolder, ...]
    read_as: dict[str, Any]
    """:meth:`eventclip.datasets.sources.EventFiles.describe` of how the files were read."""
    eventclip: str
    """Version of the package that made it."""
    index: str
    """Name of the index."""
    blocks: tuple[tuple[str, int], ...]
    """(name, bytes) of each block."""

    def as_json(self) -> dict[str, Any]:
        """The header as the file holds it, with a fingerprint of all the rest."""
        folders = [folder._asdict() for folder in self.folders]
        told = {"format": FORMAT, "version": VERSION, **self.__dict__, "folders": folders}
        return {**told, "fingerprint": fingerprint(told)}

    @classmethod
    def from_json(cls, told: Any) -> PackHeader:
        """Take what :meth:`as_json` gave.

        Raises:
            ValueError: it is something else; follows "is" in a sentence.
        """
        if not isinstance(told, dict) or told.get("format") != FORMAT:
            raise ValueError("no pack of eventclip")
        version = told.get("version")
        if version != VERSION:
            raise ValueError(f"a pack of version {version!r:.40} and this eventclip reads version {VERSION}")
        if told.get("fingerprint") != fingerprint({name: told[name] for name in told if name != "fingerprint"}):
            raise ValueError(f"a damaged pack, {HEADER} is not what was written: {_AGAIN}")
        try:
            folders = tuple(_folder_from(one) for one in told["folders"])
            index, read_as = str(told["index"]), told["read_as"]
            blocks = tuple((str(name), int(size)) for name, size in told["blocks"])
            if not isinstance(read_as, dict) or len({one.folder for one in folders}) < len(folders):
                raise TypeError("read_as or folders")
            if not _INDEX_NAME.fullmatch(index) or not all(_BLOCK_NAME.fullmatch(name) for name, _ in blocks):
                raise TypeError("index or blocks")
        except (KeyError, TypeError) as error:
            raise ValueError(f"a damaged pack, its header says nothing sound of {str(error)[:80]}: {_AGAIN}") from None
        return cls(folders, read_as, str(told["eventclip"]), index, blocks)


def _folder_from(told: dict[str, Any]) -> PackedFolder:
    """A folder as a header tells it; raises KeyError, TypeError and ValueError."""
    for name, kind in zip(PackedFolder._fields, (str, list, list, bool, int, str), strict=True):
        if type(told[name]) is not kind:
            raise TypeError(name)
    names = [*told["class_folders"], *told["suffixes"]]
    if not all(isinstance(name, str) for name in names) or told["recordings"] < 0:
        raise TypeError("class_folders or recordings")
    if len(set(told["class_folders"])) < len(told["class_folders"]):
        raise TypeError("class_folders")
    lists = {name: tuple(told[name]) for name in ("suffixes", "class_folders")}
    folder = PackedFolder(**{**{name: told[name] for name in PackedFolder._fields}, **lists})
    folder.check()
    return folder


def encode(events: Events) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64], int]:
    """Take events apart into columns.

    Args:
        events: (N,) array of EVENT_DTYPE in order of time, x and y not negative, as every reader gives them.

    Returns:
        (N,) columns by name, (m, 2) gaps, and the checksum.
    """
    since = np.diff(events["t"].view(np.uint64), prepend=events["t"][:1].view(np.uint64))
    long = np.flatnonzero(since >= _LONG)
    gaps = np.stack([long, since[long].view(np.int64)], axis=1).astype(np.int64)
    columns = {name: np.ascontiguousarray(events[name]) for name in "xyp"}
    columns["t"] = np.minimum(since, _LONG).astype(np.uint16)
    return columns, gaps, decode(int(events["t"][0]) if len(events) else 0, columns, gaps)[1]


def create_columns(file: h5py.File, size: int) -> None:
    """Create the columns of that many events."""
    options = {"maxshape": (None,), "chunks": (CHUNK,), "fletcher32": True, **hdf5plugin.Bitshuffle(cname="lz4")}
    for name, dtype in COLUMNS.items():
        file.create_dataset(name, (size,), dtype, **options)


def decode(began: int, columns: dict[str, NDArray[Any]], gaps: NDArray[np.int64]) -> tuple[Events, int]:
    """Undo :func:`encode`, given the columns without their filling.

    Returns:
        The events, and their checksum.

    Raises:
        ValueError: the columns or the gaps cannot have come from one recording.
    """
    count = len(columns["t"])
    inside = len(gaps) == 0 or (gaps[:, 0].min() >= 0 and gaps[:, 0].max() < count)
    if not inside or any(len(column) != count for column in columns.values()):
        raise ValueError("parts that do not belong together")
    events: Events = np.zeros(count, EVENT_DTYPE)
    checksum = _join(began, columns["t"], columns["x"], columns["y"], columns["p"], gaps, events)
    return events, int(checksum)


@kernel
def _join(
    began: int,
    t: NDArray[Any],
    x: NDArray[Any],
    y: NDArray[Any],
    p: NDArray[Any],
    gaps: NDArray[np.int64],
    events: Events,
) -> Any:
    """Columns to events, times added up; gives a polynomial of the events in 64 bits, which each of them changes."""
    now, gap = np.int64(began), 0
    checksum = np.uint64(len(events))
    for i in range(len(events)):
        if gap < len(gaps) and gaps[gap, 0] == i:
            now += gaps[gap, 1]
            gap += 1
        else:
            now += np.int64(t[i])
        event = events[i]
        event.t = now
        event.x = x[i]
        event.y = y[i]
        event.p = p[i]
        place = np.uint64(x[i]) | (np.uint64(y[i]) << np.uint64(16)) | (np.uint64(p[i]) << np.uint64(32))
        term = np.uint64(now) * np.uint64(0x9E3779B97F4A7C15) + place
        checksum = (checksum ^ term) * np.uint64(0xD1B54A32D192ED03)
    return checksum ^ (checksum >> np.uint64(32))


class PackBlock(NamedTuple):
    """What is known of a block without its events."""

    path: Path
    keys: Keys
    rows: NDArray[Any]
    """(n,) of ROW."""


def read_block(file: h5py.File, path: Path) -> PackBlock:
    """Keys and rows of a block; raises whatever HDF5 makes of another file."""
    _columns_of(file)
    _gaps_of(file)
    keys, rows = stored(file, "keys", np.dtype(KEY))[:], stored(file, "rows", ROW)[:]
    if keys.shape != rows.shape:
        raise ValueError("rows that do not belong together")
    return PackBlock(path, keys, rows)


def _columns_of(file: h5py.File) -> dict[str, h5py.Dataset]:
    """The columns of a block, once it is known that they are what they say."""
    return {name: stored(file, name, kind, chunk=CHUNK, packed=_SMALLEST) for name, kind in COLUMNS.items()}


def _gaps_of(file: h5py.File) -> h5py.Dataset:
    return stored(file, "gaps", np.dtype("<i8"), width=2)


class Pack:
    """One pack. May be handed to other processes, forked or spawned; each opens its blocks when it first reads them.

    Args:
        path: the folder.

    Raises:
        UserError: there is no such folder, or it is no complete pack.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[int, dict[str, h5py.Dataset]] = {}
        self._tables: dict[str, NDArray[Any]] = {}
        if not path.exists():
            raise UserError(f"there is no pack {path}: check data.packed, or make one with eventclip pack")
        if not path.is_dir():
            raise UserError(
                f"{path} is no folder, and packs are folders (those of version 0.1 were files): pack the data set "
                f"again with eventclip pack data=... out=FOLDER"
            )
        try:
            told = read_json(path / HEADER)
        except FileNotFoundError:
            raise UserError(
                f"{path} is no pack, or one that is not finished: run the same eventclip pack again, or check "
                f"data.packed"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path / HEADER} cannot be read ({reason(error)}): check data.packed") from None
        try:
            self.header = PackHeader.from_json(told)
            self.count = sum(folder.recordings for folder in self.header.folders)
            self._places = self._find_tables()
            self._check_blocks()
        except ValueError as error:
            raise UserError(f"{path} is {error}") from None
        self.fingerprint = str(told["fingerprint"])

    def _find_tables(self) -> dict[str, tuple[int, np.dtype[Any], int]]:
        """Offset, dtype and length of the tables of the index.

        Raises:
            ValueError: it is not what was written; follows "is" in a sentence.
        """

        def places(file: h5py.File) -> dict[str, tuple[int, np.dtype[Any], int]]:
            kinds = {"rows": INDEX, "paths": None, "labels": np.dtype("<i8"), "by_path": np.dtype("<i8")}
            tables = {name: stored(file, name, kind) for name, kind in kinds.items()}
            if any(table.shape != (self.count,) for table in tables.values()):
                raise ValueError("rows that do not belong together")
            tables["damage"] = stored(file, "damage", np.dtype("u1"))
            return {name: (int(one.id.get_offset() or 0), one.dtype, one.shape[0]) for name, one in tables.items()}

        try:
            found = read_whole(self.path / self.header.index, places)
        except OSError as error:
            raise ValueError(f"a pack whose {self.header.index} cannot be read ({error.strerror}): {_AGAIN}") from None
        if found is None:
            raise ValueError(f"a damaged pack, its {self.header.index} is not what was written: {_AGAIN}")
        return found

    def _check_blocks(self) -> None:
        """Look whether all blocks are there in full; their bytes are checked as they are read.

        Raises:
            ValueError: one is not; follows "is" in a sentence.
        """
        for name, size in self.header.blocks:
            try:
                status = (self.path / name).stat()
            except OSError:
                status = None
            if status is None or not stat.S_ISREG(status.st_mode) or status.st_size != size:
                raise ValueError(
                    f"a damaged pack, its {name} is not what was written: remove {HEADER} and run the same eventclip "
                    f"pack again, which makes only what is missing"
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_tables": {}}

    def close(self) -> None:
        """Let go of the blocks; reading opens them again."""
        while self._files:
            _, tables = self._files.popitem()
            tables["t"].file.close()

    def _block(self, number: int) -> dict[str, h5py.Dataset]:
        """The columns of a block, opened if it is not open."""
        if number in self._files:
            self._files[number] = self._files.pop(number)  # the last that goes
        else:
            if len(self._files) >= _MOST_OPEN:
                self._files.pop(next(iter(self._files)))["t"].file.close()
            # Every chunk is read once and whole, so that a cache of them would only copy.
            file = h5py.File(self.path / self.header.blocks[number][0], "r", locking=False, rdcc_nbytes=0)
            self._files[number] = _columns_of(file)
            _open.add(self)
        return self._files[number]

    def _table(self, name: str) -> NDArray[Any]:
        """A table of all recordings, mapped: its pages are shared by all processes."""
        if name not in self._tables:
            place, dtype, size = self._places[name]
            try:
                mapped: Any = np.memmap(self.path / self.header.index, dtype, "r", place, (size,)) if size else []
            except (OSError, ValueError) as error:
                raise RecordingError(f"{self.path} has changed or gone since it was opened ({reason(error)})") from None
            self._tables[name] = np.asarray(mapped, dtype)
        return self._tables[name]

    @property
    def rows(self) -> NDArray[Any]:
        """(N,) of INDEX: where each recording lies."""
        return self._table("rows")

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
        before = self.header.folders[: self.header.folders.index(folder)]
        start = sum(other.recordings for other in before)
        part = slice(start, start + folder.recordings)
        paths, labels = self._table("paths")[part], self._table("labels")[part]
        try:
            folder.check_paths(paths, labels)  # class names are in no checksum
        except ValueError as error:
            raise UserError(f"{self.path} is {error}: {_AGAIN}") from None
        listed = Recordings(root, paths, labels, folder.class_folders)
        listed.checksum_is(folder.checksum)
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

    def find(self, relative: bytes) -> int | None:
        """The place of a recording, None where it is not packed.

        Raises:
            RecordingError: the pack is damaged.
        """
        paths, order = self._table("paths"), self._table("by_path")
        if len(relative) > paths.dtype.itemsize:
            return None
        try:
            place = int(np.searchsorted(paths, np.array(relative, paths.dtype), sorter=order))
            row = int(order[place]) if place < self.count else -1
            return row if row >= 0 and bytes(paths[row]) == relative else None
        except (ValueError, IndexError):
            raise RecordingError(f"{self.path} is damaged in the order of its paths: {_AGAIN}") from None

    def read(self, row: int) -> tuple[Events, tuple[int, int] | None]:
        """Events of one recording, and the sensor's (height, width) where its file knew it.

        Raises:
            RecordingError: it could not be read when it was packed (the very sentence), or the pack is damaged.
        """
        told = self._table("rows")[row]
        number, start, count, gap = (int(told[name]) for name in ("block", "start", "count", "gap"))
        if number < 0:
            sentence = self._table("damage")[start : start + count].tobytes()
            raise RecordingError(sentence.decode("utf-8", "surrogateescape"))
        try:
            if min(start, count, gap, int(told["gaps"])) < 0:
                raise ValueError("a place before the file's beginning")
            stored_columns = self._block(number)
            columns = {name: column[start : start + count] for name, column in stored_columns.items()}
            gaps = np.zeros((0, 2), np.int64)
            if told["gaps"]:  # rare, and each table costs time to open
                gaps = _gaps_of(stored_columns["t"].file)[gap : gap + int(told["gaps"])]
            events, checksum = decode(int(told["began"]), columns, gaps)
            if len(events) != count or checksum != told["checksum"]:
                raise ValueError("other events than were packed")
        except Exception as error:  # noqa: BLE001  (HDF5 tells damage by any of a dozen exceptions)
            name = os.fsdecode(self._table("paths")[row])
            block = self.header.blocks[number][0] if number < len(self.header.blocks) else self.header.index
            raise RecordingError(
                f"{self.path} is damaged where {name} lies ({reason(error)}): remove {block} and {HEADER} and run the "
                f"same eventclip pack again, which makes only what is missing"
            ) from None
        return events, (int(told["height"]), int(told["width"])) if told["height"] else None


class PackedFolders:
    """The folders of a data set in one or several packs.

    Args:
        paths: one pack or several.

    Raises:
        UserError: one of them is no complete pack, or two hold the same folder.
    """

    def __init__(self, paths: str | Path | Sequence[str | Path]) -> None:
        several = list(paths) if isinstance(paths, Sequence) and not isinstance(paths, str) else [paths]
        if not several:
            raise UserError("data.packed names no pack: give one or several, or null to read the folder")
        self.packs = [Pack(Path(str(path)).expanduser().absolute()) for path in several]
        names = [folder.folder for pack in self.packs for folder in pack.header.folders]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise UserError(f"data.packed names several packs that hold {min(twice)}: give each folder once")
        self.folders = tuple(names)

    def fingerprint(self) -> str:
        """What changes with any event in the packs, and with nothing else but how they were read."""
        return "+".join(pack.fingerprint for pack in self.packs)

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
        packs = ", ".join(str(pack.path) for pack in self.packs)
        raise UserError(
            f"data.packed={packs} holds {', '.join(self.folders)} and not {name}, so it belongs to another data set or "
            f"another split: pack the split that is missing and name both packs, data.packed=[A,B]"
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
