"""Which recordings a few-shot learner gets: the reference's draw, seeded draws of ours, or a list in a file."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eventclip.datasets.recordings import Recordings
from eventclip.datasets.split_files import read_split
from eventclip.errors import UserError
from eventclip.rng import generator

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
) -> Recordings:
    """Choose the training recordings.

    Args:
        recordings: the training split.
        shots: recordings per class; None takes all of the split.
        seed: seed of a seeded draw.
        draw: "seeded", or "reference" for the paper's own.
        repeat: a class with too few recordings gives some of them again.
        split_file: JSON file that lists the recordings; shots and draw are not used then. Labels that a teacher
            guessed take the place of the folders'.

    Returns:
        What to train on, with the labels to train with; with repeats where ``repeat``.

    Raises:
        UserError: impossible options, too few recordings in a class, or a file that does not fit.
    """
    if split_file is not None:
        return read_split(split_file).find_in(recordings)
    if draw not in DRAWS:
        raise UserError(f"fewshot.draw must be one of {', '.join(DRAWS)}, got {draw!r}")
    if shots is None:
        return recordings
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise UserError(f"fewshot.shots must be a whole number from 1 on, or null for everything, got {shots!r}")
    if draw == "reference":
        return recordings.subset(reference_draw(recordings, shots, repeat=repeat))
    return recordings.subset(seeded_draw(recordings, shots, seed, repeat=repeat))


def reference_draw(recordings: Recordings, shots: int, *, repeat: bool) -> Positions:
    """Draw as the EventCLIP authors do: one generator seeded with 0, classes and their files sorted by name.

    A class with fewer recordings than ``shots`` is drawn from with replacement where ``repeat``, and taken whole
    otherwise. The list is kept as drawn, repeats included.
    """
    chance = random.Random(0)  # noqa: S311  (the published draws come from this very generator)
    drawn: list[int] = []
    classes = [positions.tolist() for positions in recordings.by_class()]
    for _, own in sorted(zip(recordings.class_folders, classes, strict=True)):
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
    for folder, own in zip(recordings.class_folders, recordings.by_class(), strict=True):
        if not len(own) or (len(own) < shots and not repeat):
            raise UserError(
                f"class {folder!r} of {recordings.root} has {len(own)} training recordings, too few for {shots} shots: "
                f"lower fewshot.shots, or set fewshot.repeat=true to use some of them again"
            )
        order = generator(seed, f"few-shot {folder}").permutation(own)
        drawn.append(np.resize(order, shots))
    return np.concatenate(drawn)
