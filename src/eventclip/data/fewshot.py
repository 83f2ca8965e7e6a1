"""Which recordings a few-shot learner gets: the reference's draw, seeded draws of ours, or a list in a file."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventclip.data.randomness import generator
from eventclip.data.recordings import Recordings
from eventclip.errors import UserError
from eventclip.files import whole_file

Positions = NDArray[np.int64]
DRAWS = ("seeded", "reference")


def draw_few_shot(
    recordings: Recordings,
    *,
    shots: int | None,
    seed: int = 0,
    draw: str = "seeded",
    repeat: bool = False,
    split_file: str | Path | None = None,
) -> Positions:
    """Choose the training recordings.

    Args:
        recordings: the training split.
        shots: recordings per class; None takes all of the split.
        seed: seed of a seeded draw.
        draw: "seeded", or "reference" for the paper's own.
        repeat: a class with too few recordings gives some of them again.
        split_file: JSON file that lists the recordings; shots and draw are not used then.

    Returns:
        Positions in ``recordings``; with repeats where ``repeat``.

    Raises:
        UserError: impossible options, too few recordings in a class, or a file that does not fit.
    """
    if split_file is not None:
        return split_positions(read_split(split_file), recordings, split_file)
    if draw not in DRAWS:
        raise UserError(f"fewshot.draw must be one of {', '.join(DRAWS)}, got {draw!r}")
    if shots is None:
        return np.arange(len(recordings))
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise UserError(f"fewshot.shots must be a whole number from 1 on, or null for everything, got {shots!r}")
    if draw == "reference":
        return reference_draw(recordings, shots, repeat=repeat)
    return seeded_draw(recordings, shots, seed, repeat=repeat)


def reference_draw(recordings: Recordings, shots: int, *, repeat: bool) -> Positions:
    """Draw as the EventCLIP authors do: one generator seeded with 0, classes and their files sorted by name.

    A class with fewer recordings than ``shots`` is drawn from with replacement where ``repeat``, and taken whole
    otherwise. The list is kept as drawn, repeats included.
    """
    chance = random.Random(0)  # noqa: S311  (the published draws come from this very generator)
    drawn: list[int] = []
    for _, own in sorted(zip(recordings.class_folders, _by_class(recordings), strict=True)):
        if len(own) >= shots:
            drawn += chance.sample(own, shots)
        else:
            drawn += chance.choices(own, k=shots) if repeat else own
    return np.array(drawn, dtype=np.int64)


def seeded_draw(recordings: Recordings, shots: int, seed: int, *, repeat: bool) -> Positions:
    """Draw so that fewer shots are always part of more shots of the same seed.

    A class's draw depends on the seed, its folder's name and its own files alone, so other classes may come and go.
    With ``repeat`` a class that runs out begins its permutation again.

    Raises:
        UserError: a class has too few recordings and ``repeat`` is off.
    """
    drawn = []
    for folder, own in zip(recordings.class_folders, _by_class(recordings), strict=True):
        if not own or (len(own) < shots and not repeat):
            raise UserError(
                f"class {folder!r} of {recordings.root} has {len(own)} training recordings, too few for {shots} shots: "
                f"lower fewshot.shots, or set fewshot.repeat=true to use some of them again"
            )
        order = generator(seed, f"few-shot {folder}").permutation(np.array(own, dtype=np.int64))
        drawn.append(np.resize(order, shots))
    return np.concatenate(drawn)


def read_split(path: str | Path) -> list[tuple[str, int]]:
    """Read a list of recordings.

    Args:
        path: JSON, either an object of relative path -> label (the authors' files), or an object with a list
            ``recordings`` of [relative path, label], which can hold a path twice.

    Returns:
        (relative path, label) in the file's order.

    Raises:
        UserError: no such file, no JSON, or another content.
    """
    path = Path(path).expanduser()
    expected = 'expected JSON: {"training/<class>/<recording>": label, ...} or {"recordings": [[path, label], ...]}'
    if path.suffix == ".pkl":
        raise UserError(f"{path} is a pickle, which may run code when read: give the JSON of the same split")
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"split file {path} cannot be read ({error.strerror}): check fewshot.split_file") from None
    except ValueError:
        raise UserError(f"split file {path} is not JSON: {expected}") from None
    if isinstance(content, dict):
        pairs = content["recordings"] if isinstance(content.get("recordings"), list) else list(content.items())
        if pairs and all(_is_pair(pair) for pair in pairs):
            return [(str(name), int(label)) for name, label in pairs]
    raise UserError(f"split file {path} holds no recordings: {expected}")


def write_split(path: str | Path, recordings: Recordings, *, head: Mapping[str, Any]) -> None:
    """Write a draw for :func:`read_split`; whoever reads meanwhile never sees half a file.

    Args:
        path: JSON file, replaced where it exists; its folder is made.
        recordings: what was drawn, with repeats, as ``recordings.subset(positions)`` gives it.
        head: plain values that tell where the draw comes from, such as shots and seed; not "recordings".
    """
    if "recordings" in head:
        raise ValueError("head must leave the name 'recordings' to the draw itself")
    path = Path(path).expanduser()
    fields = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    pairs = [json.dumps([recordings.relative(i), int(label)]) for i, label in enumerate(recordings.labels)]
    fields.append('"recordings": [\n    ' + ",\n    ".join(pairs) + "\n  ]")
    with whole_file(path) as part:
        part.write_text("{\n  " + ",\n  ".join(fields) + "\n}\n", encoding="utf-8")


def split_positions(split: list[tuple[str, int]], recordings: Recordings, path: str | Path) -> Positions:
    """Find the recordings of a split file among those of the data set.

    Raises:
        UserError: names the first recording that is missing, or whose label is not its class folder's.
    """
    names = (name.decode("utf-8", "surrogateescape") for name in recordings.paths.tolist())
    places = {name: position for position, name in enumerate(names)}
    missing = [name for name, _ in split if name not in places]
    if missing:
        raise UserError(
            f"{missing[0]} of split file {path} is not among the {len(recordings)} training recordings of "
            f"{recordings.root} ({len(missing)} of {len(split)} are missing): check data.root and that the data set is "
            f"complete"
        )
    positions = np.array([places[name] for name, _ in split], dtype=np.int64)
    labels = np.array([label for _, label in split], dtype=np.int64)
    wrong = np.flatnonzero(recordings.labels[positions] != labels)
    if len(wrong):
        name, label = split[wrong[0]]
        raise UserError(
            f"split file {path} gives {name} the label {label}, but its folder is class "
            f"{recordings.labels[positions[wrong[0]]]} of {recordings.root}: the class folders differ from the split's"
        )
    return positions


def _by_class(recordings: Recordings) -> list[list[int]]:
    """Positions of each class's recordings, in order of their names however they were listed."""
    order = np.lexsort((recordings.paths, recordings.labels))
    bounds = np.searchsorted(recordings.labels[order], np.arange(len(recordings.class_folders) + 1))
    return [order[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def _is_pair(pair: Any) -> bool:
    return (
        len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], int) and not isinstance(pair[1], bool)
        if isinstance(pair, list | tuple)
        else False
    )
