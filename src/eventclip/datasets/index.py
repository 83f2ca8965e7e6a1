"""Keep the listing of a folder, so that a million files are listed once and not at every start.

A kept listing holds for as long as the folder and its class folders have the times they had when it was made: adding,
removing or renaming a file or a class changes one of them. Folders that changed within the last seconds are listed
anew each time, since a further change could bear the same time.
"""

from __future__ import annotations

import contextlib
import os
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eventclip.datasets.recordings import Recordings, list_recordings
from eventclip.files import fingerprint, open_regular, plain_name, whole_file

REVISION = 1  # of what is kept: raise it whenever the same folders would be listed differently
SETTLED_S = 3.0
"""A folder that has not changed for so long is kept; file systems count time in steps of up to 2 s."""

_Stamp = list[list[int]]


def list_kept(
    root: str | Path,
    folder: str,
    *,
    class_folders: Sequence[str] | None = None,
    suffixes: Sequence[str],
    cache: str | Path | None,
) -> Recordings:
    """List a folder as :func:`eventclip.datasets.recordings.list_recordings`, or find its listing in the cache.

    A cache that cannot be read or written is no error: the folder is listed then. Processes may do so at once.

    Args:
        root: the data set's folder.
        folder: the split's folder below it.
        class_folders: the classes to list, None for all.
        suffixes: endings of files that are recordings.
        cache: folder to keep listings in, below ``index/``; None keeps nothing.

    Raises:
        UserError: as :func:`eventclip.datasets.recordings.list_recordings`.
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
