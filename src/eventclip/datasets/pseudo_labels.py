"""Which of a teacher's guesses become labels: pure selection over a few numbers a recording."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eventclip.errors import UserError

Guesses = NDArray[np.void]
"""(n,) array of :func:`guess_dtype`; static types cannot name its fields."""


def guess_dtype(versions: int) -> np.dtype[Any]:
    """What is kept of a recording's probabilities: 8 bytes and 8 more a version, however many classes there are.

    ``probability`` and ``label`` of the mean over versions, ``top`` (R,) and ``tops`` (R,) of each version: its own
    top probability and the class it falls on.
    """
    return np.dtype(
        [("probability", "<f4"), ("label", "<i4"), ("top", "<f4", (versions,)), ("tops", "<i4", (versions,))]
    )


def summarise(probabilities: ArrayLike) -> Guesses:
    """Keep what a selection looks at: the top of the mean over versions, and each version's own.

    Args:
        probabilities: (n, R, K), each row over K sums to 1; R versions of each recording, K classes.

    Returns:
        (n,) guesses; among equally probable classes the first.
    """
    given = np.asarray(probabilities, dtype=np.float32)
    guesses = np.zeros(len(given), guess_dtype(given.shape[1]))
    mean = given.mean(axis=1)
    guesses["label"], guesses["probability"] = mean.argmax(axis=-1), mean.max(axis=-1)
    guesses["tops"], guesses["top"] = given.argmax(axis=-1), given.max(axis=-1)
    return guesses


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which guesses are taken.

    Args:
        threshold: the mean's top probability must exceed it, in [0, 1].
        tta_consistent: all test-time versions must fall on the mean's class.
        tta_min_prob: each version's own top probability must exceed the threshold as well.
        topk: the most confident of each class, after the other filters; -1 = all.

    Raises:
        UserError: an option out of its range.
    """

    threshold: float
    tta_consistent: bool = False
    tta_min_prob: bool = False
    topk: int = -1

    def __post_init__(self) -> None:
        number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        if not number or not 0.0 <= self.threshold <= 1.0:
            raise UserError(f"pseudo.threshold is a probability and must lie in [0, 1], got {self.threshold!r}")
        if isinstance(self.topk, bool) or not isinstance(self.topk, int) or (self.topk < 1 and self.topk != -1):
            raise UserError(f"pseudo.topk must be a whole number from 1 on, or -1 for all, got {self.topk!r}")

    def describe(self) -> dict[str, Any]:
        """The options, plain values."""
        return asdict(self)

    def __call__(self, guesses: Guesses, paths: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Select recordings.

        Args:
            guesses: (n,) of :func:`guess_dtype`.
            paths: (n,) relative paths, which break ties: of equally confident recordings the first by path.

        Returns:
            Positions in ``guesses``, by class and in each class the most confident first.

        Raises:
            UserError: nothing was selected; says the highest probability seen and what to change.
        """
        kept = np.flatnonzero(self.passes(guesses))
        if not len(kept):
            raise UserError(self._nothing(guesses))
        label, probability = guesses["label"][kept], guesses["probability"][kept]
        order = np.lexsort((paths[kept], -probability, label))
        if self.topk != -1:
            ordered = label[order]
            place = np.arange(len(order)) - np.searchsorted(ordered, ordered)  # 0 = its class's most confident
            order = order[place < self.topk]
        chosen: NDArray[np.int64] = kept[order]
        return chosen

    def passes(self, guesses: Guesses) -> NDArray[np.bool_]:
        """(n,) True where a guess passes the filters; ``topk`` comes after them."""
        good: NDArray[np.bool_] = guesses["probability"] > self.threshold
        if self.tta_consistent:
            good &= (guesses["tops"] == guesses["label"][:, None]).all(axis=1)
        if self.tta_min_prob:
            good &= (guesses["top"] > self.threshold).all(axis=1)
        return good

    def _nothing(self, guesses: Guesses) -> str:
        if not len(guesses):
            return "there is no recording left to guess: all of the training split have true labels already"
        highest = float(guesses["probability"].max())
        if highest <= self.threshold:
            return (
                f"no recording was selected: the highest probability among {len(guesses)} recordings is {highest:.4f} "
                f"and pseudo.threshold={self.threshold:g} must be exceeded; lower pseudo.threshold"
            )
        above = int((guesses["probability"] > self.threshold).sum())
        asked = [name for name in ("tta_consistent", "tta_min_prob") if getattr(self, name)]
        return (
            f"no recording was selected: {above} of {len(guesses)} exceed pseudo.threshold={self.threshold:g} (the "
            f"highest probability is {highest:.4f}) and none of them passes {' and '.join(asked)}; lower "
            f"pseudo.threshold or set {', '.join(f'pseudo.{name}=false' for name in asked)}"
        )
