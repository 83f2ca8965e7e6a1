"""Accuracy over shots as a picture."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from eventclip.plots.style import COLOURS, LINES, MUTED, SMALL, legend, new_figure, tidy

_NAMED_INSIDE = 6  # lines


class Point(NamedTuple):
    """Accuracy after so many labelled recordings of a class.

    Attributes:
        shots: how many; None: all there are.
        mean: over seeds, in [0, 1].
        half_width: of its 95 % interval; None where a single seed has none.
    """

    shots: int | None
    mean: float
    half_width: float | None


def draw_curve(series: Mapping[str, Sequence[Point]]) -> Figure | None:
    """Draw top-1 accuracy over the shots, a line for each series, bars for the 95 % intervals.

    What learned from all recordings is a horizontal line.

    Args:
        series: name, for the legend -> its points, shots rising.

    Returns:
        A figure with the true shots on a logarithmic axis; None where nothing has shots.
    """
    shots = _all_shots(series)
    if not shots:
        return None
    axis = _axis_over(shots, series, "test accuracy, top-1 [%]")
    for (name, points), (line, colour) in zip(series.items(), _looks(), strict=False):
        _line(axis, points, _label(name), line, colour)
        for point in points:
            if point.shots is None:
                everything = f"{_label(name)} (all)".strip()
                axis.axhline(100 * point.mean, color=colour, linestyle=":", linewidth=1.2, label=everything)
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, 0), min(high, 100))
    intervals = any(point.half_width is not None for points in series.values() for point in points)
    return _finished(axis, series, "bars: 95 % interval over seeds" if intervals else "")


def draw_differences(series: Mapping[str, Sequence[Point]], against: str) -> Figure | None:
    """Draw differences of top-1 over the shots, a line for each series, bars for the 95 % intervals.

    Bars of the same shots stand side by side.

    Args:
        series: name, for the legend -> its points, differences in [-1, 1], shots rising.
        against: what they are differences to, in words.

    Returns:
        A figure; None where nothing has shots.
    """
    shots = _all_shots(series)
    if not shots:
        return None
    axis = _axis_over(shots, series, f"top-1 less that of {_label(against)} [points]")
    axis.axhline(0, color=MUTED, linewidth=1)
    for place, ((name, points), (line, colour)) in enumerate(zip(series.items(), _looks(), strict=False)):
        _line(axis, points, _label(name), line, colour, aside=1.02 ** (place - (len(series) - 1) / 2))
    return _finished(axis, series, "bars: 95 % interval of the paired difference")


def _all_shots(series: Mapping[str, Sequence[Point]]) -> list[int]:
    return sorted({point.shots for points in series.values() for point in points if point.shots is not None})


def _axis_over(shots: Sequence[int], series: Mapping[str, Sequence[Point]], quantity: str) -> Axes:
    """The axes of a new figure, which has room beside them for many names."""
    axis = new_figure(6.4 if len(series) <= _NAMED_INSIDE else 8.4, 4.4).add_subplot()
    axis.set_xscale("log")
    axis.set_xlim(shots[0] / 1.2, shots[-1] * 1.2)
    axis.xaxis.set_major_locator(FixedLocator(shots))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set(xlabel="labelled recordings per class (shots)", ylabel=quantity)
    tidy(axis, grid=True)
    return axis


def _finished(axis: Axes, series: Mapping[str, Sequence[Point]], bars: str) -> Figure:
    """The figure with its lines named: beside them where there are so many that the names would cover some."""
    if any(series):
        legend(axis, **({"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if len(series) > _NAMED_INSIDE else {}))
    axis.set_title(bars, fontsize=SMALL, loc="right", color=MUTED)
    return cast("Figure", axis.get_figure())


def _label(name: str) -> str:
    return name.replace("$", r"\$")  # no formula


def _looks() -> Iterator[tuple[str, str]]:
    return itertools.cycle(itertools.product(LINES, COLOURS))


def _line(axis: Axes, points: Sequence[Point], label: str, style: str, colour: str, *, aside: float = 1.0) -> None:
    """Of the points that have shots."""
    counted = [point for point in points if point.shots is not None]
    if not counted:
        return
    axis.errorbar(
        [aside * float(point.shots or 0) for point in counted],
        [100 * point.mean for point in counted],
        yerr=[100 * (point.half_width or 0.0) for point in counted],
        label=label or None,
        linestyle=style,
        color=colour,
        marker="o",
        markersize=4,
        capsize=3,
    )
