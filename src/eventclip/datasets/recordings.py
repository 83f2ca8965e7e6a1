"""What recordings exist: paths and labels of a split, listed without opening a single file, and once only.

A kept listing holds for as long as the folder and its class folders have the times they had when it was made: adding,
removing or renaming a file or a class changes one of them. Folders that changed within the last seconds are listed
anew each time, since a further change could bear the same time.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventclip.errors import UserError
from eventclip.files import fingerprint, open_regular, plain_name, read_text, whole_file

SPLITS = ("training", "validation", "test")

REVISION = 1  # of what is kept: raise it whenever the same folders would be listed differently
SETTLED_S = 3.0
"""A folder that has not changed for so long is kept; file systems count time in steps of up to 2 s."""

_Stamp = list[list[int]]

_LINES = 65_536  # hashed at a time


@dataclass(frozen=True, eq=False)
class Recordings:
    """Labelled recordings below one folder, as flat arrays: a million of them cost no Python objects.

    Example:
        >>> from eventclip import NCarsDataModule
        >>> recordings = NCarsDataModule("N-Cars").recordings("test")
        >>> type(recordings).__name__, len(recordings), recordings.labels.tolist()
        ('Recordings', 2, [0, 1])
        >>> recordings.relative(0)
        'test/background/obj_0_td.dat.npy'

    Attributes:
        root: folder that the paths are relative to.
        paths: (n,) relative POSIX paths, UTF-8 in fixed-width bytes.
        labels: (n,) index of each recording's class.
        class_folders: folder names of the K classes; a label is a place in them.
        guessed: (n,) True where a teacher guessed the label, which need not be the folder's then; None = nowhere.
    """

    root: Path
    paths: NDArray[np.bytes_]
    labels: NDArray[np.int64]
    class_folders: tuple[str, ...]
    guessed: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def relative(self, position: int) -> str:
        """Path of one recording relative to the root."""
        return bytes(self.paths[position]).decode("utf-8", "surrogateescape")

    def path(self, position: int) -> Path:
        """Path of one recording."""
        return self.root / self.relative(position)

    def subset(self, positions: ArrayLike) -> Recordings:
        """The recordings at ``positions``, in that order; a position may come twice."""
        chosen = np.asarray(positions, dtype=np.int64)
        guessed = None if self.guessed is None else self.guessed[chosen]
        return Recordings(self.root, self.paths[chosen], self.labels[chosen], self.class_folders, guessed)

    def relabelled(self, labels: ArrayLike, guessed: ArrayLike) -> Recordings:
        """The same recordings with (n,) other labels, and (n,) True where a teacher guessed them."""
        given, marks = np.asarray(labels, dtype=np.int64), np.asarray(guessed, dtype=bool)
        if given.shape != self.labels.shape or marks.shape != self.labels.shape:
            raise ValueError(f"{len(self)} recordings need a label and a mark each, got {given.shape}, {marks.shape}")
        return replace(self, labels=given, guessed=marks)

    def of_classes(self, class_folders: Sequence[str]) -> Recordings:
        """The recordings of some classes, labelled by their place in ``class_folders``, class after class."""
        old = [self.class_folders.index(name) for name in class_folders]
        own = [np.flatnonzero(self.labels == label) for label in old]
        labels = np.repeat(np.arange(len(old)), [len(one) for one in own])
        return Recordings(self.root, self.paths[np.concatenate(own)], labels, tuple(class_folders))

    def by_class(self) -> list[NDArray[np.int64]]:
        """Positions of each class's recordings, in order of their names however they were listed."""
        order = np.lexsort((self.paths, self.labels))
        bounds = np.searchsorted(self.labels[order], np.arange(len(self.class_folders) + 1))
        return [order[start:end] for start, end in itertools.pairwise(bounds)]

    def class_counts(self) -> NDArray[np.int64]:
        """(K,) recordings of each class."""
        return np.bincount(self.labels, minlength=len(self.class_folders)).astype(np.int64)

    def checksum(self) -> str:
        """sha256 of what is here, path and label, whatever the order and wherever the root lies."""
        return self._checksum

    def checksum_is(self, known: str) -> None:
        """Take over a checksum that was computed before, as hashing a million paths takes a second."""
        self.__dict__["_checksum"] = known

    @cached_property
    def _checksum(self) -> str:
        paths, labels = self.paths, self.labels
        if not (paths[:-1] < paths[1:]).all():  # sorting a million paths takes longer than all the rest
            order = np.lexsort((labels, paths))
            paths, labels = paths[order], labels[order]
        digest = hashlib.sha256()
        for start in range(0, len(paths), _LINES):
            pairs = zip(paths[start : start + _LINES].tolist(), labels[start : start + _LINES].tolist(), strict=True)
            digest.update(b"".join([b"%b\t%d\n" % pair for pair in pairs]))
        return digest.hexdigest()


def list_recordings(
    root: str | Path, folder: str, *, class_folders: Sequence[str] | None = None, suffixes: Sequence[str]
) -> Recordings:
    """List ``root/folder/<class>/<recording>``: classes and files sorted by name, hidden ones left out.

    Args:
        root: the data set's folder, which paths are relative to.
        folder: the split's folder below it; "." for class folders right below the root.
        class_folders: the classes to list, in order of their labels; None takes all folders found.
        suffixes: endings of files that are recordings, lower case with the dot; compared without case.

    Raises:
        UserError: the folder or a class folder is missing or cannot be read, a class has no recording, or a recording
            lies outside the class folders.
    """
    root = Path(root)
    top = root / folder
    layout = f"expected {root / folder}/<class>/<recording> with recordings ending in {', '.join(suffixes)}"
    if not top.is_dir():
        missing = root if not root.is_dir() else top
        raise UserError(f"there is no folder {missing}: {layout}; set data.root to the data set's folder")
    endings = tuple(suffixes)
    found, stray = _children(top, endings)
    if stray:
        raise UserError(f"{top / stray[0]} is a recording outside the class folders: {layout}")
    names = sorted(found) if class_folders is None else list(class_folders)
    if not names:
        raise UserError(f"{top} has no class folders: {layout}")
    prefix = "" if folder == "." else f"{folder}/"
    paths: list[bytes] = []
    labels = []
    for label, name in enumerate(names):
        if name not in found:
            raise UserError(f"class folder {top / name} is missing: {layout}")
        files = sorted(_children(top / name, endings)[1])
        if not files:
            raise UserError(f"class {name!r} has no recording in {top / name}: {layout}")
        # Names need not be UTF-8 on Linux; such bytes come back as they were.
        paths += [f"{prefix}{name}/{file}".encode("utf-8", "surrogateescape") for file in files]
        labels.append(np.full(len(files), label, np.int64))
    return Recordings(root, np.array(paths, dtype=np.bytes_), np.concatenate(labels), tuple(names))


def read_class_list(path: str | Path) -> list[str]:
    """Read names of class folders from the starts of a text file's lines, without empty ones and those after a #.

    Raises:
        UserError: no such text file, no name in it, one that is none of a folder, or one name twice.
    """
    path = Path(str(path)).expanduser()
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise UserError(f"class list {path} cannot be read ({told}): check data.classes") from None
    names = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    odd = [repr(name)[:80] for name in names if not plain_name(name)]
    if not names or odd or len(set(names)) < len(names):
        twice = (name for name, count in Counter(names).items() if count > 1)
        found = f"{odd[0]}, no name of a folder" if odd else f"{next(twice)} twice" if names else "no name"
        raise UserError(f"class list {path} has {found}: expected a class folder at the start of each line, each once")
    return names


def _children(folder: Path, endings: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Names of the folders and of the recordings in a folder, unsorted, without hidden ones.

    Raises:
        UserError: it cannot be read.
    """
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.name.lower().endswith(endings) and not _is_folder(entry):
                    files.append(entry.name)
                elif _is_folder(entry):
                    folders.append(entry.name)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be read ({error.strerror}): check data.root") from None
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """What a link that leads nowhere or round in a circle is not: whoever reads it as a recording tells."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def list_kept(
    root: str | Path,
    folder: str,
    *,
    class_folders: Sequence[str] | None = None,
    suffixes: Sequence[str],
    cache: str | Path | None,
) -> Recordings:
    """List a folder as :func:`list_recordings`, or find its listing in the cache.

    A cache that cannot be read or written is no error: the folder is listed then. Processes may do so at once.

    Args:
        root: the data set's folder.
        folder: the split's folder below it.
        class_folders: the classes to list, None for all.
        suffixes: endings of files that are recordings.
        cache: folder to keep listings in, below ``index/``; None keeps nothing.

    Raises:
        UserError: as :func:`list_recordings`.
    """
    root = Path(root)
    if cache is None:
        return list_recordings(root, folder, class_folders=class_folders, suffixes=suffixes)
    chosen = None if class_folders is None else list(class_folders)
    key = fingerprint([REVISION, os.path.realpath(root), folder, chosen, list(suffixes)], length=32)
    path = Path(cache).expanduser() / "index" / f"{key}.npz"
    kept = _find(path, root, folder)
    if kept is not None:
        return kept
    now = time.time()
    listed = list_recordings(root, folder, class_folders=class_folders, suffixes=suffixes)
    with contextlib.suppress(OSError):
        stamp = _stamp(root / folder, listed.class_folders)
        if max(modified for modified, *_ in stamp) < (now - SETTLED_S) * 1e9:
            _keep(path, listed, stamp)
    return listed


def _stamp(top: Path, class_folders: Sequence[str]) -> _Stamp:
    """Times and identity of a folder and its class folders."""
    told = (folder.stat() for folder in (top, *(top / name for name in class_folders)))
    return [[one.st_mtime_ns, one.st_ctime_ns, one.st_ino] for one in told]


def _find(path: Path, root: Path, folder: str) -> Recordings | None:
    """A kept listing that still holds."""
    try:
        with open_regular(path) as file:
            if any(member.file_size != member.compress_size for member in zipfile.ZipFile(file).infolist()):
                return None  # ours are stored as they are: what unpacks to more than the file is none
            file.seek(0)
            with np.load(file, allow_pickle=False) as kept:
                names = tuple(os.fsdecode(name) for name in kept["class_folders"].tolist())
                if kept["stamp"].tolist() != _stamp(root / folder, names):
                    return None
                paths, labels = np.asarray(kept["paths"]), np.asarray(kept["labels"])  # bytes, where one is no .npy
                listed = Recordings(root, paths, labels, names)
                listed.checksum_is(str(kept["checksum"]))
    except Exception:  # noqa: BLE001  (whatever numpy, zipfile and their parsers make of damage: it is listed anew)
        return None
    return listed if _whole(listed) else None


def _whole(listed: Recordings) -> bool:
    """Whether the parts of a kept listing fit each other."""
    labels, count = listed.labels, len(listed.class_folders)
    return (
        listed.paths.ndim == labels.ndim == 1
        and 0 < len(listed.paths) == len(labels)
        and listed.paths.dtype.kind == "S"
        and labels.dtype == np.dtype(np.int64)
        and bool(labels.min() >= 0 and labels.max() < count)
        and all(map(plain_name, listed.class_folders))
    )


def _keep(path: Path, listed: Recordings, stamp: _Stamp) -> None:
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(
            file,
            stamp=np.array(stamp, np.int64),
            class_folders=np.array([os.fsencode(name) for name in listed.class_folders]),
            paths=listed.paths,
            labels=listed.labels,
            checksum=np.array(listed.checksum()),
        )
