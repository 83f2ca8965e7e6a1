"""Split files: JSON lists of recordings to train on, with the folders' labels or a teacher's; and folders of links."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventclip.datasets.recordings import Recordings
from eventclip.errors import UserError
from eventclip.files import ODD_NAME, plain_name, plain_path, read_json, whole_file, whole_folder

PSEUDO = "pseudo"
"""A head's ``kind`` where labels are a teacher's guesses."""

LARGEST_BYTES = 128 << 20
"""Of a split file; all guesses for N-ImageNet's 1.3 million recordings take 100 MB."""

_EXPECTED = (
    'expected JSON: {"training/<class>/<recording>": label, ...} or {"recordings": [[path, label], ...]}, or of '
    "eventclip.pseudo_label [path, label, probability, true]"
)


@dataclass(frozen=True)
class Split:
    """The content of a split file.

    Attributes:
        path: the file.
        pairs: (relative path, label) in the file's order, a path possibly twice.
        probabilities: (n,) the teacher's, 1 where the label is true; None in a file without guesses.
        guessed: (n,) True where the label is a teacher's guess; None in a file without guesses.
        head: everything beside the recordings.
    """

    path: Path
    pairs: list[tuple[str, int]]
    probabilities: NDArray[np.float64] | None = None
    guessed: NDArray[np.bool_] | None = None
    head: dict[str, Any] = field(default_factory=dict)

    def find_in(self, recordings: Recordings) -> Recordings:
        """Find the split's recordings in a data set, with the labels of the split.

        Args:
            recordings: the training split.

        Raises:
            UserError: a recording is missing, a true label is not its class folder's, or the guesses were made for
                other recordings or other classes.
        """
        if self.guessed is None:
            return recordings.subset(split_positions(self.pairs, recordings, self.path))
        self._check_head(recordings)
        found = recordings.subset(split_positions(self.pairs, recordings, self.path, guessed=self.guessed))
        return found.relabelled([label for _, label in self.pairs], self.guessed)

    def _check_head(self, recordings: Recordings) -> None:
        folders, checksum = self.head.get("class_folders"), recordings.checksum()
        if folders != list(recordings.class_folders):
            pairs = zip(folders if isinstance(folders, list) else [], recordings.class_folders, strict=False)
            first = next((f"{a!r:.80} and {b!r}" for a, b in pairs if a != b), "their number")
            raise UserError(
                f"the labels of split file {self.path} are places among other classes than those of {recordings.root} "
                f"(they differ first in {first}): give the data set whose recordings the teacher guessed, and its "
                f"fewshot.classes"
            )
        checksums = self.head.get("checksums")
        made_for = checksums.get("training") if isinstance(checksums, dict) else None
        if made_for != checksum:
            raise UserError(
                f"split file {self.path} was made for other training recordings (checksum {made_for!s:.12}) than "
                f"the {len(recordings)} of {recordings.root} (checksum {checksum[:12]}): give the data set as the "
                f"teacher saw it, or run eventclip.pseudo_label again"
            )
        largest = max(label for _, label in self.pairs)
        if largest >= len(recordings.class_folders) or min(label for _, label in self.pairs) < 0:
            raise UserError(
                f"split file {self.path} holds a label outside 0 to {len(recordings.class_folders) - 1}: it was "
                f"changed by hand or is damaged; run eventclip.pseudo_label again"
            )


def read_split(path: str | Path) -> Split:
    """Read a list of recordings.

    Args:
        path: JSON, either an object of relative path -> label (the authors' files), or an object with a list
            ``recordings`` of [relative path, label], which can hold a path twice, or of [relative path, label,
            probability, whether the label is true] in a file of ``eventclip.pseudo_label``.

    Raises:
        UserError: no such file, no JSON, another content, or a path that leaves the data set's folder.
    """
    path = Path(str(path)).expanduser()
    if path.suffix == ".pkl":
        raise UserError(f"{path} is a pickle, which may run code when read: give the JSON of the same split")
    try:
        content = read_json(path, largest=LARGEST_BYTES)
    except OSError as error:
        raise UserError(f"split file {path} cannot be read ({error.strerror}): check fewshot.split_file") from None
    except ValueError as error:
        raise UserError(f"split file {path} is not JSON ({error}): {_EXPECTED}") from None
    if isinstance(content, dict):
        listed = isinstance(content.get("recordings"), list)
        entries: list[Any] = content["recordings"] if listed else list(content.items())
        head = {name: value for name, value in content.items() if name != "recordings"} if listed else {}
        guesses = head.get("kind") == PSEUDO
        if entries and all(_is_guess(entry) if guesses else _is_pair(entry) for entry in entries):
            pairs = [(str(entry[0]), int(entry[1])) for entry in entries]
            outside = next((name for name, _ in pairs if not plain_path(name)), None)
            if outside is not None:
                raise UserError(
                    f"split file {path} names {outside!r:.80}, no path below the data set's folder: {_EXPECTED}"
                )
            if not guesses:
                return Split(path, pairs, head=head)
            probabilities = np.array([entry[2] for entry in entries], dtype=np.float64)
            return Split(path, pairs, probabilities, ~np.array([entry[3] for entry in entries], dtype=bool), head)
    raise UserError(f"split file {path} holds no recordings: {_EXPECTED}")


def write_split(
    path: str | Path, recordings: Recordings, *, head: Mapping[str, Any], probabilities: ArrayLike | None = None
) -> None:
    """Write a draw for :func:`read_split`; whoever reads meanwhile never sees half a file.

    Args:
        path: JSON file, replaced where it exists; its folder is made.
        recordings: what was drawn, with repeats, as ``recordings.subset(positions)`` gives it; with guessed labels as
            ``recordings.relabelled(labels, guessed)`` does.
        head: plain values that tell where the draw comes from, such as shots and seed; not "recordings".
        probabilities: (n,) the teacher's, needed if and only if there are guessed labels.

    Raises:
        UserError: a recording's path is one that :func:`read_split` refuses.
        OSError: the file cannot be written.
    """
    if "recordings" in head:
        raise ValueError("head must leave the name 'recordings' to the draw itself")
    if (recordings.guessed is None) != (probabilities is None) or (probabilities is None) != (
        head.get("kind") != PSEUDO
    ):
        raise ValueError(f"guessed labels, probabilities and kind={PSEUDO!r} in the head go together")
    check_names(recordings)
    path = Path(str(path)).expanduser()
    fields = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    entries: list[list[Any]] = [[recordings.relative(i), int(label)] for i, label in enumerate(recordings.labels)]
    if probabilities is not None and recordings.guessed is not None:
        given = np.asarray(probabilities, dtype=np.float64).tolist()
        for entry, probability, guessed in zip(entries, given, recordings.guessed.tolist(), strict=True):
            entry += [round(probability, 6), not guessed]
    fields.append('"recordings": [\n    ' + ",\n    ".join(json.dumps(entry) for entry in entries) + "\n  ]")
    with whole_file(path) as part:
        part.write_text("{\n  " + ",\n  ".join(fields) + "\n}\n", encoding="utf-8")


def check_names(recordings: Recordings) -> None:
    """Refuse recordings whose names :func:`read_split` would not take back.

    Raises:
        UserError: names the first.
    """
    odd = next((name for name in map(recordings.relative, range(len(recordings))) if not plain_path(name)), None)
    if odd is not None:
        raise UserError(f"{odd!r:.200} of {recordings.root} cannot be in a split file ({ODD_NAME}): rename it")


def split_positions(
    pairs: list[tuple[str, int]],
    recordings: Recordings,
    path: str | Path,
    *,
    guessed: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Find the recordings of a split file among those of the data set.

    Args:
        pairs: (relative path, label).
        recordings: those of the data set.
        path: the split file, for messages.
        guessed: (n,) True where a label need not be the class folder's; None = nowhere.

    Raises:
        UserError: names the first recording that is missing, or whose label is not its class folder's.
    """
    names = (name.decode("utf-8", "surrogateescape") for name in recordings.paths.tolist())
    places = {name: position for position, name in enumerate(names)}
    missing = [name for name, _ in pairs if name not in places]
    if missing:
        raise UserError(
            f"{missing[0]} of split file {path} is not among the {len(recordings)} training recordings of "
            f"{recordings.root} ({len(missing)} of {len(pairs)} are missing): check data.root and that the data set is "
            f"complete"
        )
    positions = np.array([places[name] for name, _ in pairs], dtype=np.int64)
    labels = np.array([label for _, label in pairs], dtype=np.int64)
    differ = recordings.labels[positions] != labels
    wrong = np.flatnonzero(differ if guessed is None else differ & ~guessed)
    if len(wrong):
        name, label = pairs[wrong[0]]
        raise UserError(
            f"split file {path} gives {name} the label {label}, but its folder is class "
            f"{recordings.labels[positions[wrong[0]]]} of {recordings.root}: the class folders differ from the split's"
        )
    return positions


def _is_pair(entry: Any) -> bool:
    return (
        isinstance(entry, list | tuple)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], int)
        and not isinstance(entry[1], bool)
    )


def _is_guess(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 4
        and _is_pair(entry[:2])
        and isinstance(entry[2], int | float)
        and not isinstance(entry[2], bool)
        and 0 <= entry[2] <= 1
        and isinstance(entry[3], bool)
    )


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
