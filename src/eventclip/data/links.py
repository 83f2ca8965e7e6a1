"""A split file's recordings as a folder of links, in the layout of the data set itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from eventclip.data.recordings import Recordings
from eventclip.errors import UserError


def check_new_folder(folder: Path) -> None:
    """Refuse a folder for links that holds something already.

    Raises:
        UserError: it does, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"links={folder} is not empty: give a new folder, or remove it")


def link_recordings(folder: Path, recordings: Recordings) -> int:
    """Make links ``folder/<split>/<class>/<recording>``, where class is the one that was guessed.

    What else lies in the data set's folder, such as the test split, is linked as well, so that ``folder`` can be
    trained on in its place.

    Args:
        folder: a new folder, or an empty one.
        recordings: with the labels to link them by. Of two recordings with one name in a class, both get their own
            class folder's name in front.

    Returns:
        The number of recordings linked.

    Raises:
        UserError: the folder holds something already, or it cannot be written to.
    """
    check_new_folder(folder)
    root = recordings.root.resolve()
    sources = [PurePosixPath(recordings.relative(i)) for i in range(len(recordings))]
    targets = [
        (source.parent.parent / recordings.class_folders[label], source)
        for source, label in zip(sources, recordings.labels.tolist(), strict=True)
    ]
    twice = {place for place, count in Counter((into, s.name) for into, s in set(targets)).items() if count > 1}
    try:
        for into, source in set(targets):
            name = f"{source.parent.name}_{source.name}" if (into, source.name) in twice else source.name
            (folder / into).mkdir(parents=True, exist_ok=True)
            (folder / into / name).symlink_to(root / source)
        tops = {source.parts[0] for source in sources if len(source.parts) > 2}
        for entry in root.iterdir() if tops else ():
            if entry.name not in tops and not entry.name.startswith("."):
                (folder / entry.name).symlink_to(entry)
    except OSError as error:
        raise UserError(f"links cannot be made in {folder} ({error.strerror or error}): give another folder") from error
    return len(set(targets))
