"""A recording over time: what was in view, how sure a model is of it, how many events there were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from eventclip.errors import printable
from eventclip.plots.style import COLOURS, INK, MUTED, SHADE, SMALL, legend, new_figure, show_view, tidy

_CLASSES, _PICTURES = 5, 8


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
        self._views: dict[int, NDArray[np.uint8]] = {}
        self._every = 1
        self._last_us = 0

    def add(
        self,
        start_us: int,
        end_us: int,
        events: int,
        probabilities: NDArray[np.floating[Any]] | None = None,
        view: NDArray[np.uint8] | None = None,
        last_us: int | None = None,
    ) -> None:
        """Take in the next window.

        Args:
            start_us: where it begins [µs].
            end_us: where it ends [µs].
            events: how many events it has.
            probabilities: (K,) of the classes; None where nothing was classified.
            view: uint8 (C, S, S), one of what was in view.
            last_us: time of its last event [µs], for the window with which the recording ends; None is its end.
        """
        self._last_us = end_us if last_us is None else last_us
        number = len(self._spans)
        self._spans.append((start_us, end_us, events))
        blank = np.full(len(self.class_names), np.nan, np.float32)
        self._probabilities.append(blank if probabilities is None else probabilities)
        if probabilities is not None and view is not None and number % self._every == 0:
            self._views[number] = view
            if len(self._views) > 2 * _PICTURES:
                self._every *= 2
                self._views = {n: image for n, image in self._views.items() if n % self._every == 0}

    def draw(self, name: str) -> Figure:
        """The picture: views on top, probabilities of the classes that were most probable, and the event rate."""
        spans = np.array(self._spans, np.int64)
        starts, ends = ((spans[:, :2] - spans[0, 0]) / 1e6).T
        middles = (starts + ends) / 2
        probabilities = np.stack(self._probabilities)
        figure = new_figure(10, 5.4)
        grid = figure.add_gridspec(3, _PICTURES, height_ratios=(1.5, 3, 1))
        self._draw_views(figure, grid, middles)
        axis = figure.add_subplot(grid[1, :])
        for k, colour in zip(self._most_probable(probabilities), COLOURS, strict=False):
            values = probabilities[:, k]
            axis.plot(middles, values, "o-", markersize=3, linewidth=1.4, color=colour, label=self.class_names[k])
        axis.set(ylabel="probability", ylim=(0, 1.02))
        empty = spans[:, 2] == 0
        if empty.any():
            silences = np.stack([starts, ends - starts], axis=1)[empty]
            axis.broken_barh(silences, (0, 1.02), color=SHADE, zorder=0, label="no events")
        tidy(axis, grid=True)
        axis.tick_params(labelbottom=False)
        legend(axis, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        rate = figure.add_subplot(grid[2, :], sharex=axis)
        rates = spans[:, 2] / self._durations(spans)  # events per microsecond: millions a second
        rate.stairs(rates, np.append(starts, ends[-1]), fill=True, color=MUTED)  # each until the next begins
        rate.set_ylim(0)
        rate.set(ylabel="Mev/s", xlabel=f"time in {printable(name)} [s]")
        tidy(rate, grid=True)
        return figure

    def _durations(self, spans: NDArray[np.int64]) -> NDArray[np.int64]:
        """Time in which the events of each window came [µs]: the last window may reach beyond the recording."""
        durations: NDArray[np.int64] = np.maximum(spans[:, 1] - spans[:, 0], 1)
        whole, seen = int(durations[-1]), self._last_us - int(spans[-1, 0])
        durations[-1] = min(max(seen, -(-whole // 10)), whole)  # of a moment no rate can be told
        return durations

    def _draw_views(self, figure: Figure, grid: Any, middles: NDArray[np.float64]) -> None:
        numbers = sorted(self._views)
        chosen = [numbers[i] for i in np.linspace(0, len(numbers) - 1, min(_PICTURES, len(numbers))).astype(int)]
        for place, number in enumerate(chosen):
            axis = figure.add_subplot(grid[0, place])
            show_view(axis, self._views[number])
            best = int(self._probabilities[number].argmax())
            axis.set_title(f"{middles[number]:.3g} s", fontsize=SMALL, color=INK)
            axis.set_xlabel(self.class_names[best], fontsize=SMALL, color=INK)

    def _most_probable(self, probabilities: NDArray[np.floating[Any]]) -> list[int]:
        """The classes that were on top most often, then the most probable of the rest."""
        known = probabilities[~np.isnan(probabilities[:, 0])]  # never empty: a recording begins with an event
        wins = np.bincount(known.argmax(axis=1), minlength=len(self.class_names))
        return [int(k) for k in np.lexsort((-known.mean(axis=0), -wins))[:_CLASSES]]
