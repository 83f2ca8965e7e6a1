"""What an alignment looks like: how recall rose, and which images the views of an event camera find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eventclip.plots.style import COLOURS, MUTED, RIGHT, SMALL, legend, new_figure, show_view, tidy

NAMES = {"recall": "recall@1", "cosine": "mean cosine", "zero_shot": "zero-shot accuracy on held-out folders"}
"""What a validation of an alignment finds -> what it is called in pictures."""


def draw_progress(history: Sequence[Mapping[str, float]]) -> Figure:
    """Draw what validation found on held-out images over the epochs.

    Args:
        history: "epoch" and some of :data:`NAMES`, values in [0, 1], epochs rising; 0 is before anything learned.
    """
    figure = new_figure(6.4, 4.0)
    axis = figure.add_subplot()
    for (name, words), colour in zip(NAMES.items(), COLOURS, strict=False):
        points = [(entry["epoch"], 100 * entry[name]) for entry in history if name in entry]
        if points:
            axis.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=words)
    axis.set_ylim(0, 100)
    axis.set(xlabel="epochs", ylabel="held-out images, by simulated views [%]")
    tidy(axis, grid=True)
    legend(axis)
    return figure


def nearest(features: NDArray[np.floating], targets: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Which images' features are the nearest to each view's.

    Args:
        features: (n, D) of views.
        targets: (m, D) of images.
        count: k, how many are told; fewer where there are fewer images.

    Returns:
        (n, k) positions of images, the nearest first, by cosine.
    """
    seen, there = (value / np.linalg.norm(value, axis=-1, keepdims=True) for value in (features, targets))
    return np.argsort(-(seen @ there.T), axis=1, kind="stable")[:, :count].astype(np.int64)


def draw_nearest(
    views: Sequence[NDArray[np.uint8]],
    own: Sequence[NDArray[np.uint8]],
    found: Mapping[str, Sequence[Sequence[tuple[NDArray[np.uint8], bool]]]],
) -> Figure:
    """Draw views, the images that they are of, and the images that they find, before and after.

    Args:
        views: n event views, uint8 (C, S, S).
        own: their images, uint8 (3, S, S).
        found: heading -> for each view the images found, the nearest first, each with whether it is the view's own.
    """
    widths = [len(rows[0]) for rows in found.values()]
    columns = 2 + sum(widths)
    figure = new_figure(0.95 * columns + 0.4, 0.98 * len(views) + 0.5)
    axes = figure.subplots(len(views), columns, squeeze=False)
    for place, (view, image) in enumerate(zip(views, own, strict=True)):
        show_view(axes[place, 0], view)
        show_view(axes[place, 1], image)
        column = 2
        for rows in found.values():
            for shown, right in rows[place]:
                axis = axes[place, column]
                show_view(axis, shown)
                if right:
                    for side in axis.spines.values():
                        side.set(visible=True, color=RIGHT, linewidth=3)
                column += 1
    heads = ["view", "image"]
    for name, rows in found.items():
        heads += [name if not rank else f"{rank + 1}." for rank in range(len(rows[0]))]
    for axis, head in zip(axes[0], heads, strict=True):
        axis.set_title(head, fontsize=SMALL, color=MUTED)
    return figure
