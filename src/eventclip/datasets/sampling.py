"""Which recordings a few-shot learner gets: the reference's sample, seeded ones of ours, or a list in a file."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from eventclip.datasets.recordings import Recordings
from eventclip.datasets.split_files import read_split
from eventclip.errors import UserError
from eventclip.rng import generator

Positions = NDArray[np.int64]
SAMPLINGS = ("seeded", "reference")
HALVES = ("all", "base", "new")


class FewShot(Protocol):
    """The training split -> what to train on, repeats allowed, labels possibly a teacher's."""

    def __call__(self, recordings: Recordings, /, *, whole: Recordings | None = None) -> Recordings:
        """Choose among ``recordings``, where ``whole``, if given, has the classes that are not learned as well."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which recordings a run learns from, and which it is selected on.

    Attributes:
        few_shot: few-shot sampling of the training split, such as ``partial(sample_few_shot, shots=5)``; None trains on
            all of it.
        selection: what validation looks at: "validation", "test", or None for no validation at all.
        split_fraction: fraction of each class split off where a split has no folder of its own, in (0, 1).
        half: "all"; "base", the first half of them in their order, the larger one where they are odd; or "new", for
            which those are learned from and the others are tested on (base-to-new, CoCoOp, arXiv 2203.05557).

    Raises:
        UserError: an option outside its range.
    """

    few_shot: FewShot | None = None
    selection: str | None = None
    split_fraction: float = 0.2
    half: str = "all"

    def __post_init__(self) -> None:
        if self.selection not in (None, "validation", "test"):
            raise UserError(f"selection must look at 'validation', 'test' or nothing (null), got {self.selection!r}")
        if self.half not in HALVES:
            raise UserError(f"fewshot.classes must be one of {', '.join(HALVES)}, got {self.half!r}")
        if not 0.0 < self.split_fraction < 1.0:
            raise UserError(f"data.split_fraction must lie between 0 and 1, got {self.split_fraction}")


def sample_few_shot(
    recordings: Recordings,
    *,
    shots: int | None,
    seed: int = 0,
    sampling: str = "seeded",
    repeat: bool = False,
    split_file: str | Path | None = None,
    whole: Recordings | None = None,
) -> Recordings:
    """Choose the training recordings.

    Args:
        recordings: the training split.
        shots: recordings per class; None takes all of the split.
        seed: seed of a seeded sample.
        sampling: "seeded", or "reference" for the paper's own.
        repeat: a class with too few recordings gives some of them again.
        split_file: JSON file that lists the recordings; shots and sampling are not used then. Labels that a teacher
            guessed take the place of the folders'.
        whole: the split with the classes that are not learned as well, labelled alike where they are; None where all
            are learned. The reference's draws and lists of true labels are of it, and what they have of the learned
            classes is taken. Guesses are of the learned classes alone.

    Returns:
        What to train on, with the labels to train with; with repeats where ``repeat``.

    Raises:
        UserError: impossible options, too few recordings in a class, or a file that does not fit.
    """
    everything = recordings if whole is None else whole
    if split_file is not None:
        split = read_split(split_file)
        if split.guessed is not None:
            return split.find_in(recordings)
        found = _also_in(recordings, split.find_in(everything))
        if not len(found):
            raise UserError(
                f"split file {split_file} lists no recording of the {len(recordings.class_folders)} classes that are "
                f"learned: list some, or give fewshot.classes=all"
            )
        return found
    if sampling not in SAMPLINGS:
        raise UserError(f"fewshot.sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")
    if shots is None:
        return recordings
    if isinstance(shots, bool) or not isinstance(shots, int) or shots < 1:
        raise UserError(f"fewshot.shots must be a whole number from 1 on, or null for everything, got {shots!r}")
    if sampling == "reference":
        return _also_in(recordings, everything.subset(reference_sample(everything, shots, repeat=repeat)))
    return recordings.subset(seeded_sample(recordings, shots, seed, repeat=repeat))


def _also_in(recordings: Recordings, drawn: Recordings) -> Recordings:
    """Those of a draw that are among ``recordings`` and as labelled there, in the draw's order with its repeats."""
    places = {path: position for position, path in enumerate(recordings.paths.tolist())}
    return recordings.subset([places[path] for path in drawn.paths.tolist() if path in places])


def reference_sample(recordings: Recordings, shots: int, *, repeat: bool) -> Positions:
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


def seeded_sample(recordings: Recordings, shots: int, seed: int, *, repeat: bool) -> Positions:
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


def stratified_split(
    recordings: Recordings, fraction: float, *, seed: int, spared: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Choose a part of each class.

    Which recordings of a class depends on the seed, the class folder's name and its own file names alone: other
    classes may come and go. ``spared`` ones are taken only where the others do not suffice, and then in the same
    order, so that few-shot draws of any size leave nearly the same part held out.

    Args:
        recordings: of one split.
        fraction: of each class, in (0, 1); at least one recording of a class and never all of them.
        seed: the run's seed.
        spared: (n,) True where a recording is wanted elsewhere.

    Returns:
        (n,) True where a recording is held out.

    Raises:
        UserError: a class has a single recording.
    """
    held_out = np.zeros(len(recordings), dtype=bool)
    for folder, own in zip(recordings.class_folders, recordings.by_class(), strict=True):
        if len(own) < 2:
            raise UserError(
                f"class {folder!r} of {recordings.root} has {len(own)} recording, where at least 2 are needed to hold "
                f"one out: add recordings, or make a folder for each split"
            )
        count = min(max(1, round(fraction * len(own))), len(own) - 1)
        order = generator(seed, f"holdout {folder}").permutation(own)
        if spared is not None:
            order = order[np.argsort(spared[order], kind="stable")]
        held_out[order[:count]] = True
    return held_out
