"""A split file's recordings as a folder of links, in the layout of the data set itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath

from eventclip.datasets.recordings import Recordings
from eventclip.errors import UserError
from eventclip.files import ODD_NAME, plain_name, plain_path, whole_folder


def check_new_folder(folder: Path) -> None:
    """Refuse a folder for links that holds something already.

    Raises:
        UserError: it does, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"links={folder} is not empty: give a new folder, or remove it")


def check_linkable(recordings: Recordings) -> None:
    """Refuse recordings that no link can lead to, or whose names could lead links out of their folder.

    Raises:
        UserError: they lie in a pack, or a name is odd.
    """
    if not recordings.root.is_dir():
        raise UserError(
            f"links= leads to the recordings' own files and {recordings.root} is no folder: leave links= out, or give "
            f"the folder by data.root in place of data.packed"
        )
    paths = (recordings.relative(i) for i in range(len(recordings)))
    odd = next((name for name in recordings.class_folders if not plain_name(name)), None)
    odd = next((path for path in paths if not plain_path(path)), None) if odd is None else odd
    if odd is not None:
        raise UserError(
            f"{odd!r:.200} of {recordings.root} cannot be linked ({ODD_NAME}): rename it, or leave links= out"
        )


def link_recordings(folder: Path, recordings: Recordings) -> int:
    """Make links ``folder/<split>/<class>/<recording>``, where class is the one that was guessed, all or none.

    What else lies in the data set's folder, such as the test split, is linked as well, so that ``folder`` can be
    trained on in its place.

    Args:
        folder: a new folder, or an empty one.
        recordings: with the labels to link them by. Of two recordings with one name in a class, both get their own
            class folder's name in front.

    Returns:
        The number of recordings linked.

    Raises:
        UserError: the folder holds something already, it cannot be written to, or a link would lie outside it.
    """
    check_new_folder(folder)
    check_linkable(recordings)
    root = recordings.root.resolve()
    sources = [PurePosixPath(recordings.relative(i)) for i in range(len(recordings))]
    targets = [
        (source.parent.parent / recordings.class_folders[label], source)
        for source, label in zip(sources, recordings.labels.tolist(), strict=True)
    ]
    twice = {place for place, count in Counter((into, s.name) for into, s in set(targets)).items() if count > 1}
    try:
        with whole_folder(folder) as part:
            for into in {into for into, _ in targets}:
                (part / into).mkdir(parents=True, exist_ok=True)
                if not (part / into).resolve().is_relative_to(part.resolve()):
                    raise UserError(f"links={folder} holds a link that leads out of it: give a new folder")
            for into, source in set(targets):
                name = f"{source.parent.name}_{source.name}" if (into, source.name) in twice else source.name
                (part / into / name).symlink_to(root / source)
            tops = {source.parts[0] for source in sources if len(source.parts) > 2}
            for entry in root.iterdir() if tops else ():
                if entry.name not in tops and not entry.name.startswith("."):
                    (part / entry.name).symlink_to(entry)
    except OSError as error:
        raise UserError(f"links cannot be made in {folder} ({error.strerror or error}): give another folder") from error
    return len(set(targets))
