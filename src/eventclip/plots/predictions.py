"""Recordings side by side, each with its true class and what a model takes it for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eventclip.plots.style import INK, LARGE, RIGHT, SMALL, WRONG, new_figure, show_view

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
