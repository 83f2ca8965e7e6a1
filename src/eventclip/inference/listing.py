"""Which recordings a user means by files, folders and globs."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eventclip.errors import UserError
from eventclip.io.formats import readable_suffixes

OWN_TABLES = (b"recording,", b"path,class,class_probability,")
"""How the tables of ``predict`` and ``evaluate`` begin."""


@dataclass(frozen=True)
class Found:
    """What was found.

    Attributes:
        paths: the recordings, each once, in the order asked for; within a folder or glob sorted by name. A file that
            is named but is not there is among them: reading will tell.
        nobody_named: those of them that only lie in a folder that was asked for.
        left_out: tables of our own commands that lie there.
    """

    paths: list[Path]
    nobody_named: frozenset[Path]
    left_out: list[Path]


def find_recordings(asked: str | Sequence[str], *, out: str | Path | None = None) -> Found:
    """List recordings, each once.

    Args:
        asked: a file, a folder (all readable files in and below it, hidden ones and tables of our own commands left
            out), a glob ("**" is any depth; what matches is taken whatever its suffix, folders as folders), or several
            of them.
        out: where the predictions go. A table of theirs that is there already is no recording.

    Raises:
        UserError: nothing was asked for, a folder without recordings, a glob that matches nothing, or ``out`` is one
            of the recordings.
    """
    several = isinstance(asked, Sequence) and not isinstance(asked, str)
    patterns = [str(one) for one in asked] if several else [str(asked)]  # a name may be a number
    if not patterns:
        raise UserError("recordings= is an empty list: give files, folders or globs")
    table = None if out is None else _identity(Path(out).expanduser())
    found: dict[Path, None] = {}
    named: set[Path] = set()
    left_out: dict[Path, None] = {}
    for pattern in patterns:
        for place in _matching(pattern):
            if place.is_dir():
                inside, own = _in_folder(place)
                found |= dict.fromkeys(inside)
                left_out |= dict.fromkeys(own)
            elif table is not None and _identity(place) == table and _is_own_table(place):
                left_out[place] = None
            else:
                found[place] = None
                named.add(place)
    if table is not None and any(_identity(path) == table for path in found):
        raise UserError(f"out={out} is one of the recordings and would be written over: give another out=")
    if not found:
        raise UserError(f"recordings={asked} holds no recording but {out}, a table: give files, folders or globs")
    others = [path for path in left_out if table is None or _identity(path) != table]
    return Found(list(found), frozenset(found) - named, others)


def _matching(pattern: str) -> list[Path]:
    """The files and folders of one pattern; a file that is named need not be there."""
    path = Path(pattern).expanduser()
    if path.exists() or not glob.has_magic(pattern):
        return [path]
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207  (absolute)
    if not matches:
        raise UserError(f"nothing matches recordings={pattern}: expected the path of at least one recording")
    return matches


def _in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Recordings in a folder, and tables of our own."""
    suffixes = readable_suffixes()
    inside = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in suffixes
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    own = [path for path in inside if path.suffix.lower() == ".csv" and _is_own_table(path)]
    tables = frozenset(own)
    recordings = [path for path in inside if path not in tables]
    if not recordings:
        raise UserError(f"there is no recording in {folder}: expected files that end in {', '.join(suffixes)}")
    return recordings, own


def _is_own_table(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(max(OWN_TABLES, key=len))).startswith(OWN_TABLES)
    except OSError:  # reading it as a recording will tell
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of a file; None where there is none."""
    try:
        told = path.stat()
    except OSError:
        return None
    return told.st_dev, told.st_ino
