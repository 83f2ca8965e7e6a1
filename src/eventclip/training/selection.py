"""Which of a teacher's scores become labels, and how good those are: a few numbers a recording, no files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from eventclip.errors import UserError
from eventclip.plots.diagnostics import draw_label_quality
from eventclip.tables import aligned
from eventclip.training.callbacks import bin_confidences

BINS = 15
"""Of the top probability, in the report and its picture."""

_FEW = 120  # classes that a terminal shows at once
_THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)

Scores = NDArray[np.void]
"""(n,) array of :func:`score_dtype`; static types cannot name its fields."""


def score_dtype(versions: int) -> np.dtype[Any]:
    """What is kept of a recording's probabilities: 8 bytes and 8 more a version, however many classes there are.

    ``probability`` and ``label`` of the mean over versions, ``top`` (R,) and ``tops`` (R,) of each version: its own
    top probability and the class it falls on.
    """
    return np.dtype(
        [("probability", "<f4"), ("label", "<i4"), ("top", "<f4", (versions,)), ("tops", "<i4", (versions,))]
    )


def summarise(probabilities: ArrayLike) -> Scores:
    """Keep what a selection looks at: the top of the mean over versions, and each version's own.

    Args:
        probabilities: (n, R, K), each row over K sums to 1; R versions of each recording, K classes.

    Returns:
        (n,) scores; among equally probable classes the first.
    """
    given = np.asarray(probabilities, dtype=np.float32)
    scores = np.zeros(len(given), score_dtype(given.shape[1]))
    mean = given.mean(axis=1)
    scores["label"], scores["probability"] = mean.argmax(axis=-1), mean.max(axis=-1)
    scores["tops"], scores["top"] = given.argmax(axis=-1), given.max(axis=-1)
    return scores


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which recordings are taken.

    Args:
        threshold: the mean's top probability must exceed it, in [0, 1].
        tta_consistent: all test-time augmented versions must fall on the mean's class.
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

    def __call__(self, scores: Scores, paths: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Select recordings.

        Args:
            scores: (n,) of :func:`score_dtype`.
            paths: (n,) relative paths, which break ties: of equally confident recordings the first by path.

        Returns:
            Positions in ``scores``, by class and in each class the most confident first.

        Raises:
            UserError: nothing was selected; says the highest probability seen and what to change.
        """
        kept = np.flatnonzero(self.passes(scores))
        if not len(kept):
            raise UserError(self._nothing(scores))
        label, probability = scores["label"][kept], scores["probability"][kept]
        order = np.lexsort((paths[kept], -probability, label))
        if self.topk != -1:
            ordered = label[order]
            place = np.arange(len(order)) - np.searchsorted(ordered, ordered)  # 0 = its class's most confident
            order = order[place < self.topk]
        chosen: NDArray[np.int64] = kept[order]
        return chosen

    def passes(self, scores: Scores) -> NDArray[np.bool_]:
        """(n,) True where a recording passes the filters; ``topk`` comes after them."""
        good: NDArray[np.bool_] = scores["probability"] > self.threshold
        if self.tta_consistent:
            good &= (scores["tops"] == scores["label"][:, None]).all(axis=1)
        if self.tta_min_prob:
            good &= (scores["top"] > self.threshold).all(axis=1)
        return good

    def _nothing(self, scores: Scores) -> str:
        if not len(scores):
            return "there is no recording left to guess: all of the training split have true labels already"
        highest = float(scores["probability"].max())
        if highest <= self.threshold:
            return (
                f"no recording was selected: the highest probability among {len(scores)} recordings is {highest:.4f} "
                f"and pseudo.threshold={self.threshold:g} must be exceeded; lower pseudo.threshold"
            )
        above = int((scores["probability"] > self.threshold).sum())
        asked = [name for name in ("tta_consistent", "tta_min_prob") if getattr(self, name)]
        return (
            f"no recording was selected: {above} of {len(scores)} exceed pseudo.threshold={self.threshold:g} (the "
            f"highest probability is {highest:.4f}) and none of them passes {' and '.join(asked)}; lower "
            f"pseudo.threshold or set {', '.join(f'pseudo.{name}=false' for name in asked)}"
        )


def label_report(
    scores: Scores, chosen: NDArray[np.int64], labels: NDArray[np.int64], class_names: Sequence[str], *, added: int
) -> dict[str, Any]:
    """Measure scores and what was selected by them.

    Args:
        scores: (n,) of :func:`score_dtype`.
        chosen: (m,) positions that were selected.
        labels: (n,) true labels.
        class_names: K names.
        added: number of recordings that keep their true label.

    Returns:
        Plain values: counts; accuracy of all guesses and of the selected ones; ``classes``, for each class how many
        recordings were labelled so, how many of them rightly, and how many there really are among the guessed;
        ``empty``, the classes without a selected recording; ``reliability``, in bins of the top probability; and
        ``thresholds``, what a threshold alone would keep and how much of it would be right.
    """
    right = scores["label"] == labels
    selected = np.bincount(scores["label"][chosen], minlength=len(class_names))
    correct = np.bincount(scores["label"][chosen][right[chosen]], minlength=len(class_names))
    truly = np.bincount(labels, minlength=len(class_names))
    rows = zip(class_names, selected.tolist(), correct.tolist(), truly.tolist(), strict=True)
    return {
        "guessed": len(scores),
        "selected": len(chosen),
        "true_labels_added": added,
        "highest_probability": float(scores["probability"].max()),
        "accuracy_of_all_guesses": float(right.mean()),
        "accuracy_of_selected": float(right[chosen].mean()),
        "empty": [name for name, count in zip(class_names, selected.tolist(), strict=True) if count == 0],
        "classes": {
            name: {"selected": m, "right": r, "accuracy": r / m if m else None, "recordings": n}
            for name, m, r, n in rows
        },
        "reliability": _reliability(scores["probability"], right),
        "thresholds": [_kept(scores["probability"], right, threshold) for threshold in _THRESHOLDS],
    }


def _reliability(probability: NDArray[np.float32], right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Bins of equal width that hold a recording, with their mean probability and accuracy."""
    binned = bin_confidences(torch.from_numpy(probability), torch.from_numpy(right), BINS).tolist()
    return [
        {
            "from": i / BINS,
            "to": (i + 1) / BINS,
            "recordings": int(count),
            "probability": confidence / count,
            "accuracy": correct / count,
        }
        for i, (count, confidence, correct) in enumerate(zip(*binned, strict=True))
        if count
    ]


def _kept(probability: NDArray[np.float32], right: NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    kept = probability > threshold
    count = int(kept.sum())
    return {"threshold": threshold, "recordings": count, "accuracy": float(right[kept].mean()) if count else None}


def draw_report(report: dict[str, Any], *, threshold: float) -> Figure:
    """Draw the bins and the thresholds of a :func:`label_report`, the one that was used marked."""
    binned = np.zeros((3, BINS))
    for row in report["reliability"]:
        share = np.array([1.0, row["probability"], row["accuracy"]])
        binned[:, round(row["from"] * BINS)] = row["recordings"] * share
    swept = [row for row in report["thresholds"] if row["recordings"]]
    columns = ([row[key] for row in swept] for key in ("threshold", "recordings", "accuracy"))
    thresholds, kept, right = (np.array(column, np.float64) for column in columns)
    return draw_label_quality(binned, thresholds, kept / report["guessed"], right, threshold=threshold)


def report_lines(report: dict[str, Any]) -> list[str]:
    """The report in a few lines, and a table of the classes where they are few enough to read."""
    lines = [
        "selected {selected} of {guessed} guessed recordings, highest probability {highest_probability:.4f}",
        "right: {accuracy_of_selected:.1%} of the selected, {accuracy_of_all_guesses:.1%} of all guesses",
    ]
    lines = [line.format(**report) for line in lines]
    if report["true_labels_added"]:
        lines.append(f"added {report['true_labels_added']} recordings with their true labels")
    classes = report["classes"]
    if len(classes) <= _FEW:
        lines.append("selected (rightly) of each class:")
        cells = [f"{name} {row['selected']} ({row['right']})" for name, row in classes.items()]
        columns = max(1, 100 // (max(map(len, cells)) + 2))
        rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
        lines += ["  " + "  ".join(row).rstrip() for row in aligned(rows, left=columns)]
    if report["empty"]:
        lines.append(f"{len(report['empty'])} of {len(classes)} classes have none: {', '.join(report['empty'])}")
    return lines
