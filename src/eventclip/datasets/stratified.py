"""A part of each class set aside, where a data set has no folder for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eventclip.datasets.recordings import Recordings
from eventclip.errors import UserError
from eventclip.rng import generator


def hold_out(
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
