"""Which recordings a user means by files, folders and globs."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from eventclip.errors import UserError
from eventclip.io.formats import READABLE_SUFFIXES


def find_recordings(asked: str | Sequence[str]) -> list[Path]:
    """List recordings, each once.

    Args:
        asked: a file, a folder (all readable files in and below it, hidden ones left out), a glob ("**" is any depth;
            what matches is taken whatever its suffix, folders as folders), or several of them.

    Returns:
        Paths in the order asked for; within a folder or glob sorted by name. A file that is named but is not there
        is among them: reading will tell.

    Raises:
        UserError: nothing was asked for, a folder without recordings, or a glob that matches nothing.
    """
    patterns = [asked] if isinstance(asked, str) else [str(one) for one in asked]
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            found |= dict.fromkeys(_in_folder(path))
        elif path.is_file() or not glob.has_magic(pattern):
            found[path] = None
        else:
            matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True))  # noqa: PTH207  (absolute)
            if not matches:
                raise UserError(f"nothing matches recordings={pattern}: expected the path of at least one recording")
            for match in matches:
                found |= dict.fromkeys(_in_folder(match) if match.is_dir() else [match])
    if not found:
        raise UserError("recordings= is an empty list: give files, folders or globs")
    return list(found)


def _in_folder(folder: Path) -> list[Path]:
    inside = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in READABLE_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not inside:
        raise UserError(f"there is no recording in {folder}: expected files that end in {', '.join(READABLE_SUFFIXES)}")
    return inside
