"""How good a teacher's labels are, measured against the folders' labels, which played no part in choosing them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eventclip.datasets.pseudo_labels import Guesses

_BINS = 15
_FEW = 120  # classes that a terminal shows at once
_THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)


def label_report(
    guesses: Guesses, chosen: NDArray[np.int64], labels: NDArray[np.int64], class_names: Sequence[str], *, added: int
) -> dict[str, Any]:
    """Measure guesses and what was selected of them.

    Args:
        guesses: (n,) of :func:`eventclip.datasets.pseudo_labels.guess_dtype`.
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
    right = guesses["label"] == labels
    selected = np.bincount(guesses["label"][chosen], minlength=len(class_names))
    correct = np.bincount(guesses["label"][chosen][right[chosen]], minlength=len(class_names))
    truly = np.bincount(labels, minlength=len(class_names))
    rows = zip(class_names, selected.tolist(), correct.tolist(), truly.tolist(), strict=True)
    return {
        "guessed": len(guesses),
        "selected": len(chosen),
        "true_labels_added": added,
        "highest_probability": float(guesses["probability"].max()),
        "accuracy_of_all_guesses": float(right.mean()),
        "accuracy_of_selected": float(right[chosen].mean()),
        "empty": [name for name, count in zip(class_names, selected.tolist(), strict=True) if count == 0],
        "classes": {
            name: {"selected": m, "right": r, "accuracy": r / m if m else None, "recordings": n}
            for name, m, r, n in rows
        },
        "reliability": _reliability(guesses["probability"], right),
        "thresholds": [_kept(guesses["probability"], right, threshold) for threshold in _THRESHOLDS],
    }


def _reliability(probability: NDArray[np.float32], right: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Bins of equal width that hold a recording, with their mean probability and accuracy."""
    place = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    return [
        {
            "from": i / _BINS,
            "to": (i + 1) / _BINS,
            "recordings": int((place == i).sum()),
            "probability": float(probability[place == i].mean()),
            "accuracy": float(right[place == i].mean()),
        }
        for i in range(_BINS)
        if (place == i).any()
    ]


def _kept(probability: NDArray[np.float32], right: NDArray[np.bool_], threshold: float) -> dict[str, Any]:
    kept = probability > threshold
    count = int(kept.sum())
    return {"threshold": threshold, "recordings": count, "accuracy": float(right[kept].mean()) if count else None}


def draw_reliability(report: dict[str, Any], *, threshold: float) -> Figure:
    """Draw whether the teacher is as often right as it says, and what each threshold would keep.

    Args:
        report: of :func:`label_report`.
        threshold: the one that was used, marked.
    """
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    left, middle = figure.subplots(1, 2)
    bins, swept = report["reliability"], [row for row in report["thresholds"] if row["recordings"]]
    width = 1 / _BINS
    left.bar([row["from"] for row in bins], [row["accuracy"] for row in bins], width, align="edge", color="#9db8d2")
    left.plot([0, 1], [0, 1], color="gray", linewidth=1, linestyle="--")
    left.plot([row["probability"] for row in bins], [row["accuracy"] for row in bins], "o-", color="#1f4e79")
    for row in bins:
        left.annotate(str(row["recordings"]), (row["from"] + width / 2, 0.02), ha="center", fontsize=7)
    left.set(xlabel="top probability", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    left.set_title("Reliability (recordings in each bin; dashed: as often right as it says)", fontsize=9)
    kept = [row["recordings"] / report["guessed"] for row in swept]
    middle.plot(
        [row["threshold"] for row in swept], [row["accuracy"] for row in swept], "o-", label="right of those kept"
    )
    middle.plot([row["threshold"] for row in swept], kept, "s-", label="kept of all")
    middle.axvline(threshold, color="gray", linewidth=1, linestyle="--")
    middle.set(xlabel="threshold", ylabel="fraction", xlim=(0, 1), ylim=(0, 1.02))
    middle.set_title("What a threshold alone would keep (dashed: the one used)", fontsize=9)
    middle.legend(fontsize=8)
    return figure


def told(report: dict[str, Any]) -> list[str]:
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
        width = max(len(cell) for cell in cells) + 2
        columns = max(1, 100 // width)
        rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
        lines += ["  " + "".join(cell.ljust(width) for cell in row).rstrip() for row in rows]
    if report["empty"]:
        lines.append(f"{len(report['empty'])} of {len(classes)} classes have none: {', '.join(report['empty'])}")
    return lines
