"""One look for every picture: sizes, letters, and colours that colour-blind readers tell apart too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from eventclip.files import whole_file
from eventclip.views.resize import as_image

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""For lines, in the order in which they are taken (Okabe and Ito 2008, without their yellow)."""

RIGHT, WRONG = COLOURS[0], COLOURS[1]
"""What a model got right and what not; a sign says it too."""

LIGHT, INK, MUTED, SHADE, PAPER = "#a6cbe3", "#222222", "#777777", "#eeeeee", "#ffffff"
"""Bars behind a line; letters; what is only there to compare with; areas without data; the page."""

LINES = ("-", "--", ":", "-.")
"""For lines beyond the colours."""

SMALL, LARGE = 8, 10
"""Letters [pt]: everything, and titles."""

DPI = 130


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size [inch], drawn without a window."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor=PAPER)
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.08, h_pad=0.08)  # titles must not touch the edge
    return figure


def tidy(axis: Axes, *, title: str = "", grid: bool = False) -> None:
    """Give axes the look that all have: small letters, no box around them, perhaps a faint grid.

    To be called once labels are set.
    """
    axis.tick_params(labelsize=SMALL, colors=INK)
    axis.xaxis.label.set(fontsize=SMALL, color=INK)
    axis.yaxis.label.set(fontsize=SMALL, color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["bottom", "left"]].set_color(MUTED)
    if title:
        axis.set_title(title, fontsize=LARGE, color=INK)
    if grid:
        axis.grid(alpha=0.3)
        axis.set_axisbelow(True)


def show_view(axis: Axes, view: NDArray[np.uint8]) -> None:
    """Show a view, uint8 (C, S, S), in axes of its own without scales; a thin border tells it from white paper."""
    axis.imshow(as_image(view), cmap="gray", vmin=0, vmax=255)
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set(visible=True, color=SHADE, linewidth=0.8)


def legend(axis: Axes, **place: Any) -> None:
    """Name what is drawn, in small letters that lines may pass below; ``place`` is matplotlib's."""
    axis.legend(fontsize=SMALL, labelcolor=INK, edgecolor="none", framealpha=0.8, **place)


def as_pixels(figure: Figure) -> NDArray[np.uint8]:
    """Draw a figure: uint8 (h, w, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3]
    return pixels


def save_pixels(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a PNG, whole or not at all.

    Raises:
        OSError: as for :func:`eventclip.files.whole_file`.
    """
    with whole_file(path) as part:
        Image.fromarray(pixels).save(part, format="PNG")


def save_figure(path: Path, figure: Figure) -> None:
    """Draw a figure and write it as a PNG, see :func:`save_pixels`."""
    save_pixels(path, as_pixels(figure))
