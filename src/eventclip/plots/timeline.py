"""A recording over time: what was in view, how sure the model is of it, how many events there were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eventclip.files import printable
from eventclip.inference.result import WindowClassification
from eventclip.views.square import as_image

_SHOWN, _PICTURES = 5, 8


class Timeline:
    """Collect windows and draw them.

    Of each window 4 bytes a class are kept, and some pictures, however long the recording. Where nothing happened the
    lines are broken and the time is shaded, from its start to its end.

    Args:
        class_names: the K classes.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        self._spans: list[tuple[int, int, int]] = []
        self._probabilities: list[NDArray[np.floating[Any]]] = []
        self._pictures: dict[int, NDArray[np.uint8]] = {}
        self._every = 1

    def add(self, window: WindowClassification) -> None:
        """Take in the next window."""
        number = len(self._spans)
        self._spans.append((window.window.start_us, window.window.end_us, len(window.window.events)))
        found = window.found
        blank = np.full(len(self.class_names), np.nan, np.float32)
        self._probabilities.append(blank if found is None else found.probabilities)
        if found is not None and number % self._every == 0:
            frames = found.views.frames
            self._pictures[number] = as_image(frames[len(frames) // 2])
            if len(self._pictures) > 2 * _PICTURES:
                self._every *= 2
                self._pictures = {n: image for n, image in self._pictures.items() if n % self._every == 0}

    def draw(self, name: str) -> Figure:
        """The picture: views on top, probabilities of the classes that were most probable, and the event rate."""
        spans = np.array(self._spans, np.int64)
        starts, ends = ((spans[:, :2] - spans[0, 0]) / 1e6).T
        middles = (starts + ends) / 2
        probabilities = np.stack(self._probabilities)
        figure = Figure(figsize=(10, 5.4), layout="constrained")
        grid = figure.add_gridspec(3, _PICTURES, height_ratios=(1.5, 3, 1))
        self._draw_pictures(figure, grid, middles)
        axis = figure.add_subplot(grid[1, :])
        colors = {}
        for k in self._most_probable(probabilities):
            (line,) = axis.plot(
                middles, probabilities[:, k], marker="o", markersize=3, linewidth=1.4, label=self.class_names[k]
            )
            colors[k] = line.get_color()
        axis.set(ylabel="probability", ylim=(0, 1.02))
        empty = spans[:, 2] == 0
        if empty.any():
            silences = np.stack([starts, ends - starts], axis=1)[empty]
            axis.broken_barh(silences, (0, 1.02), color="#eeeeee", zorder=0, label="no events")
        axis.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
        axis.grid(alpha=0.25)
        rate = figure.add_subplot(grid[2, :], sharex=axis)
        rates = spans[:, 2] / np.maximum(spans[:, 1] - spans[:, 0], 1)  # events per microsecond: millions a second
        rate.stairs(rates, np.append(starts, ends[-1]), fill=True, color="#777777")  # each until the next begins
        rate.set_ylim(0)
        rate.set(ylabel="Mev/s", xlabel=f"time in {printable(name)} [s]")
        rate.grid(alpha=0.25)
        return figure

    def _draw_pictures(self, figure: Figure, grid: Any, middles: NDArray[np.float64]) -> None:
        numbers = sorted(self._pictures)
        chosen = [numbers[i] for i in np.linspace(0, len(numbers) - 1, min(_PICTURES, len(numbers))).astype(int)]
        for place, number in enumerate(chosen):
            axis = figure.add_subplot(grid[0, place])
            axis.imshow(self._pictures[number], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            best = int(self._probabilities[number].argmax())
            axis.set_title(f"{middles[number]:.3g} s", fontsize=8)
            axis.set_xlabel(self.class_names[best], fontsize=8)

    def _most_probable(self, probabilities: NDArray[np.floating[Any]]) -> list[int]:
        """The classes that were on top most often, then the most probable of the rest."""
        known = probabilities[~np.isnan(probabilities[:, 0])]  # never empty: a recording begins with an event
        wins = np.bincount(known.argmax(axis=1), minlength=len(self.class_names))
        return [int(k) for k in np.lexsort((-known.mean(axis=0), -wins))[:_SHOWN]]
