"""Map files: which image each recording shows.

A map file is CSV in UTF-8 with the header ``recording,image``: a recording in each line, once, and the image that it
shows, as paths below two folders that the file does not name.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import UserError, printable
from eventclip.files import NAMES, plain_path, read_regular, whole_file

COLUMNS = ("recording", "image")

LARGEST_BYTES = 512 << 20
"""Of a map file; N-ImageNet's 1.3 million training recordings take 90 MB."""

_EXPECTED = "expected what eventclip pairs writes, the header recording,image and two relative paths in each line"


@dataclass(frozen=True, eq=False)
class Pairs:
    """Recordings, each with its image, as flat arrays: a million of them cost no Python objects.

    Attributes:
        root: folder of the recordings, absolute.
        recordings: (n,) absolute paths as the system's bytes, in the map file's order.
        images: (n,) absolute paths of their images; one may come several times.
    """

    root: Path
    recordings: NDArray[np.bytes_]
    images: NDArray[np.bytes_]

    def __len__(self) -> int:
        return len(self.recordings)

    def recording(self, position: int) -> Path:
        """Path of one recording."""
        return Path(os.fsdecode(self.recordings[position]))

    def image(self, position: int) -> Path:
        """Path of the image that it shows."""
        return Path(os.fsdecode(self.images[position]))


def write_pairs(path: Path, pairs: Mapping[str, str]) -> None:
    """Write a map file, whole or not at all: the same pairs give the same bytes.

    Args:
        path: the file, replaced where it exists; its folder is made.
        pairs: recording -> image, paths below their folders; names that are no UTF-8 keep their bytes.

    Raises:
        OSError: as for :func:`eventclip.files.whole_file`.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *sorted(pairs.items())])
    with whole_file(path) as part:
        part.write_bytes(text.getvalue().encode("utf-8", NAMES))


def read_pairs(map_file: str | Path, *, recordings: str | Path, images: str | Path) -> Pairs:
    """Read a map file, and see that all it names is there; no recording and no image is opened.

    Args:
        map_file: what :func:`write_pairs` wrote.
        recordings: folder that the paths of the recordings begin at.
        images: folder that the paths of the images begin at.

    Raises:
        UserError: no such file, another header, a line that holds no two paths, a recording named twice, a path that
            leaves its folder, by a link or otherwise, or one where no file is.
    """
    path = Path(str(map_file)).expanduser()
    rows = _rows(path)
    if not rows:
        raise UserError(f"map file {path} names no recording: {_EXPECTED}")
    recording, count = Counter(row[0] for row in rows).most_common(1)[0]
    if count > 1:
        told = f"names the recording {recording!a:.200} {count} times"
        raise UserError(f"map file {path} {told}: leave one of these lines")
    roots = [Path(str(root)).expanduser().absolute() for root in (recordings, images)]
    columns = []
    for place, (root, what) in enumerate(zip(roots, COLUMNS, strict=True)):
        names = [row[place] for row in rows]
        _check_there(path, root, names, what)
        start = os.fsencode(root / "_")[:-1]
        columns.append(np.array([start + name.encode("utf-8", NAMES) for name in names], dtype=np.bytes_))
    return Pairs(roots[0], *columns)


def _rows(path: Path) -> list[list[str]]:
    """The lines of a map file, checked one by one."""
    try:
        text = read_regular(path, largest=LARGEST_BYTES).decode("utf-8-sig", NAMES)
    except OSError as error:
        raise UserError(f"map file {path} cannot be read ({error.strerror}): {_EXPECTED}") from None
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        header = next(table, [])
        if tuple(header) != COLUMNS:
            raise UserError(f"map file {path} begins with {','.join(header)!a:.80}: {_EXPECTED}")
        for row in table:
            odd = next((name for name in row if not plain_path(name)), None)
            if odd is not None or len(row) != len(COLUMNS):
                told = f"{len(row)} columns" if odd is None else f"{odd!a:.80}, which is no path below a folder,"
                raise UserError(f"map file {path} has {told} in line {table.line_num}: {_EXPECTED}")
            rows.append(row)
    except csv.Error as error:
        raise UserError(f"map file {path} is no CSV at line {table.line_num} ({error}): {_EXPECTED}") from None
    return rows


def _check_there(path: Path, root: Path, names: Sequence[str], what: str) -> None:
    """Refuse names below a root where no file is, or that leave it by a link; each folder is listed but once."""
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: expected the {what}s that map file {path} names")
    wanted = defaultdict(list)
    for name in names:
        folder, _, last = name.rpartition("/")
        wanted[folder].append(last)
    top, missing = os.path.realpath(root), []
    for folder, lasts in wanted.items():
        there = _links_in(root / folder)
        missing += [root / folder / last for last in lasts if last not in there]
        links = [root / folder, *(root / folder / last for last in lasts if there.get(last))]
        out = next((one for one in links if not Path(os.path.realpath(one)).is_relative_to(top)), None)
        if out is not None:
            raise UserError(
                printable(f"{out}, which map file {path} names, leads out of {root}: give the folder that it leads to")
            )
    if missing:
        raise UserError(
            printable(
                f"{len(missing):,} of the {len(names):,} {what}s that map file {path} names are not there, the first "
                f"{missing[0]}: give the folder that they were paired in, or pair them again by eventclip pairs"
            )
        )


def _links_in(folder: Path) -> dict[str, bool]:
    """Names of the files in a folder, and whether each is a link; none where there is no such folder.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries if not entry.is_dir()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        told = f"{folder}, which a map file names, cannot be read ({error.strerror}): see that you may read it"
        raise UserError(printable(told)) from None
