"""The pictures of a test: which class was taken for which, and how often a probability was right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

NAMED, NUMBERED = 50, 20
"""Up to so many classes the confusion matrix has its classes' names, and its cells have numbers."""


def draw_confusion(counts: NDArray[np.int64], class_names: Sequence[str], confusions: Sequence[str]) -> Figure:
    """Draw the confusion matrix, each row as shares of its true class.

    Args:
        counts: (K, K) recordings by true class (row) and predicted class (column). A class without any stays white.
        class_names: K names, written on the axes of up to 50 classes.
        confusions: the most frequent confusions in words, listed beside the matrix of more than 20 classes, where
            the cells are too small for numbers.

    Returns:
        A figure with a pixel or more for every cell of up to 1000 classes. Colours grow with the root of the share,
        so that a rare confusion is seen.
    """
    classes = len(counts)
    side = float(np.clip(2.5 + 0.32 * classes, 4.5, 9.5))
    listed = classes > NUMBERED
    figure = Figure(figsize=(side + (4.0 if listed else 0.6), side), dpi=130, layout="constrained")
    axis = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0), interpolation="nearest")
    axis.set(xlabel="predicted", ylabel="true")
    axis.set_title(f"{np.trace(counts)} of {counts.sum()} right", fontsize=10)
    if classes <= NAMED:
        axis.set_xticks(range(classes), class_names, rotation=90, fontsize=8)
        axis.set_yticks(range(classes), class_names, fontsize=8)
    if classes <= NUMBERED:
        _number(axis, counts, shares)
    bar = figure.colorbar(image, ax=axis, shrink=0.6, pad=0.02, ticks=[0, 0.05, 0.2, 0.5, 1])
    bar.set_label("share of the true class", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    if listed:
        text = "most frequent confusions\ntrue → predicted   recordings\n\n" + "\n".join(confusions or ["none"])
        bar.ax.text(5.0, 1.0, text, transform=bar.ax.transAxes, va="top", fontsize=8)
    return figure


def _number(axis: Axes, counts: NDArray[np.int64], shares: NDArray[np.floating[Any]]) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.4 else "black"
        axis.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)


def draw_reliability(binned: NDArray[np.float64], error: float) -> Figure:
    """Draw how often the most probable class was right, against its probability, with the counts below.

    Args:
        binned: (3, bins) recordings, sum of their highest probabilities, recordings that were right.
        error: expected calibration error, in [0, 1].
    """
    count, confidence, right = binned
    bins = len(count)
    filled = count > 0
    middle, width = (np.arange(bins) + 0.5) / bins, 1.0 / bins
    figure = Figure(figsize=(5.0, 6.0), dpi=130, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    accuracy = right[filled] / count[filled]
    above.bar(middle[filled], accuracy, width=0.92 * width, color="#9ec1e6", label="accuracy of the bin")
    above.plot(
        confidence[filled] / count[filled],
        accuracy,
        "o",
        color="#1f4e8c",
        markersize=4,
        label="at the mean probability",
    )
    above.plot([0, 1], [0, 1], "--", color="gray", linewidth=1, label="calibrated")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    above.set_title(f"expected calibration error {100 * error:.1f} %", fontsize=10)
    above.legend(loc="upper left", fontsize=8)
    below.bar(middle, count, width=0.92 * width, color="#5b7083")
    for place, number in zip(middle[filled], count[filled], strict=True):
        below.text(place, number, f"{number:.0f}", ha="center", va="bottom", fontsize=6)
    below.set(xlabel="probability of the most probable class", ylabel="recordings")
    below.margins(y=0.2)
    return figure
