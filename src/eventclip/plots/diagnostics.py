"""How far a model can be trusted: what it takes a recording for, which class for which, how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eventclip.plots.style import (
    COLOURS,
    INK,
    LARGE,
    LIGHT,
    MUTED,
    RIGHT,
    SMALL,
    WRONG,
    legend,
    new_figure,
    show_view,
    tidy,
)

NAMED, NUMBERED = 50, 20
"""Up to so many classes the confusion matrix has its classes' names, and its cells have numbers."""
_COLUMNS = 4


def draw_predictions(
    views: Sequence[NDArray[np.uint8]],
    probabilities: NDArray[np.floating[Any]],
    labels: Sequence[int],
    class_names: Sequence[str],
    *,
    top: int = 3,
) -> Figure:
    """Draw recordings side by side, each with its true class and the most probable ones.

    Args:
        views: one view of each recording, uint8 (C, S, S), C = 1 for gray and 3 for colour.
        probabilities: (n, K), in [0, 1].
        labels: n true classes.
        class_names: K names.
        top: how many classes to list under each view.

    Returns:
        A figure with one cell per recording; the true class stands above, blue with a tick where it was found and
        orange with a cross where not.
    """
    columns = min(_COLUMNS, len(views))
    rows = -(-len(views) // columns)
    figure = new_figure(2.4 * columns, 3.1 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(views) :]:
        axis.set_axis_off()
    for axis, view, row, label in zip(axes, views, probabilities, labels, strict=False):
        show_view(axis, view)
        best = np.argsort(-row, kind="stable")[:top]
        sign, colour = ("✓", RIGHT) if best[0] == label else ("✗", WRONG)
        axis.set_title(f"{sign} {class_names[label]}", color=colour, fontsize=LARGE)
        listed = "\n".join(f"{class_names[k]}  {100 * row[k]:.0f} %" for k in best)
        axis.text(0.5, -0.04, listed, transform=axis.transAxes, ha="center", va="top", fontsize=SMALL, color=INK)
    return figure


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
    figure = new_figure(side + (4.0 if listed else 0.6), side)
    axis = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0), interpolation="nearest")
    axis.set(xlabel="predicted", ylabel="true")
    tidy(axis, title=f"{np.trace(counts)} of {counts.sum()} right")
    axis.spines[["top", "right"]].set(visible=True, color=MUTED)
    if classes <= NAMED:
        axis.set_xticks(range(classes), class_names, rotation=90, fontsize=SMALL)
        axis.set_yticks(range(classes), class_names, fontsize=SMALL)
    if classes <= NUMBERED:
        _number(axis, counts, shares)
    bar = figure.colorbar(image, ax=axis, shrink=0.6, pad=0.02, ticks=[0, 0.05, 0.2, 0.5, 1])
    bar.set_label("share of the true class", fontsize=SMALL, color=INK)
    bar.ax.tick_params(labelsize=SMALL, colors=INK)
    if listed:
        text = "most frequent confusions\ntrue → predicted   recordings\n\n" + "\n".join(confusions or ["none"])
        bar.ax.text(5.0, 1.0, text, transform=bar.ax.transAxes, va="top", fontsize=SMALL, color=INK)
    return figure


def _number(axis: Axes, counts: NDArray[np.int64], shares: NDArray[np.floating[Any]]) -> None:
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.4 else INK
        axis.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=SMALL, color=colour)


def draw_reliability(binned: NDArray[np.float64], error: float) -> Figure:
    """Draw how often the most probable class was right, against its probability, with the counts below.

    Args:
        binned: (3, bins) recordings, sum of their highest probabilities, recordings that were right.
        error: expected calibration error, in [0, 1].
    """
    figure = new_figure(5.0, 6.0)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    _draw_bins(above, below, binned)
    tidy(above, title=f"expected calibration error {100 * error:.1f} %")
    return figure


def draw_label_quality(
    binned: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    kept: NDArray[np.float64],
    right: NDArray[np.float64],
    *,
    threshold: float,
) -> Figure:
    """Draw whether a teacher's labels are as often right as it says, and what each threshold alone would keep.

    Args:
        binned: (3, bins) as for :func:`draw_reliability`.
        thresholds: (T,) rising, in [0, 1].
        kept: (T,) part of all labels that is above a threshold.
        right: (T,) part of those that is right.
        threshold: the one that was used, marked.
    """
    figure = new_figure(9.6, 5.0)
    grid = figure.add_gridspec(2, 2, height_ratios=[3, 1])
    above = figure.add_subplot(grid[0, 0])
    below = figure.add_subplot(grid[1, 0], sharex=above)
    above.tick_params(labelbottom=False)
    _draw_bins(above, below, binned)
    tidy(above, title="as often right as it says?")
    swept = figure.add_subplot(grid[:, 1])
    swept.plot(thresholds, right, "o-", color=COLOURS[0], markersize=4, label="right of those kept")
    swept.plot(thresholds, kept, "s-", color=COLOURS[1], markersize=4, label="kept of all")
    swept.axvline(threshold, color=MUTED, linewidth=1, linestyle="--", label="the threshold used")
    swept.set(xlabel="threshold", ylabel="part", xlim=(0, 1), ylim=(0, 1.02))
    tidy(swept, title="what a threshold alone would keep", grid=True)
    legend(swept)
    return figure


def _draw_bins(above: Axes, below: Axes, binned: NDArray[np.float64]) -> None:
    """Accuracy over the highest probability, and the number of recordings in each bin."""
    count, confidence, right = binned
    bins = len(count)
    filled = count > 0
    middle, width = (np.arange(bins) + 0.5) / bins, 1.0 / bins
    accuracy = right[filled] / count[filled]
    mean = confidence[filled] / count[filled]
    above.bar(middle[filled], accuracy, width=0.92 * width, color=LIGHT, label="accuracy of the bin")
    above.plot(mean, accuracy, "o", color=COLOURS[0], markersize=4, label="at the mean probability")
    above.plot([0, 1], [0, 1], "--", color=MUTED, linewidth=1, label="as often right as it says")
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    legend(above, loc="upper left")
    below.bar(middle, count, width=0.92 * width, color=MUTED)
    for place, number in zip(middle[filled], count[filled], strict=True):
        below.text(place, number, f"{number:.0f}", ha="center", va="bottom", fontsize=6, color=INK)
    below.set(xlabel="probability of the most probable class", ylabel="recordings")
    below.margins(y=0.2)
    tidy(below)
