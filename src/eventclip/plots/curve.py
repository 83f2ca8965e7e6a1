"""Accuracy over shots as a picture."""

from __future__ import annotations

import itertools

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from eventclip.reports.collect import ACCURACY, SHOTS
from eventclip.reports.table import Row, Table, heading, shown


def draw_curve(table: Table) -> Figure | None:
    """Draw top-1 accuracy over the shots, a line for each other difference, bars for the 95 % intervals.

    Rows that learned from all recordings are horizontal lines.

    Returns:
        A figure with the true shots on a logarithmic axis; None where no row has shots.
    """
    others = [column for column in table.columns if column != SHOTS]
    lines: dict[str, list[Row]] = {}
    for row in table.rows:
        label = ", ".join(f"{heading(column)} {shown(column, row.settings[column])}" for column in others)
        label = label.replace("$", r"\$")  # no formula
        lines.setdefault(label, []).append(row)
    shots = sorted({row.shots for rows in lines.values() for row in rows if row.shots is not None})
    if not shots:
        return None
    figure = Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
    axis = figure.add_subplot()
    styles = itertools.product(("-", "--", ":", "-."), (f"C{number}" for number in range(10)))
    for (label, rows), (style, colour) in zip(lines.items(), itertools.cycle(styles), strict=False):
        _line(axis, [row for row in rows if row.shots is not None], label, style, colour)
        for row in rows:
            if row.shots is None:
                mean = 100 * row.estimates[ACCURACY].mean
                axis.axhline(mean, color=colour, linestyle=":", linewidth=1.2, label=f"{label} (all)".strip())
    axis.set_xscale("log")
    axis.set_xlim(shots[0] / 1.2, shots[-1] * 1.2)
    axis.xaxis.set_major_locator(FixedLocator(shots))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.xaxis.set_minor_locator(NullLocator())
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, 0), min(high, 100))
    axis.set(xlabel="labelled recordings per class (shots)", ylabel="test accuracy, top-1 [%]")
    axis.grid(alpha=0.3)
    if any(lines):
        axis.legend(fontsize=8)
    if any(row.estimates[ACCURACY].half_width is not None for rows in lines.values() for row in rows):
        axis.set_title("bars: 95 % interval over seeds", fontsize=8, loc="right", color="dimgray")
    return figure


def _line(axis: Axes, rows: list[Row], label: str, style: str, colour: str) -> None:
    if not rows:
        return
    estimates = [row.estimates[ACCURACY] for row in rows]
    axis.errorbar(
        [float(row.shots or 0) for row in rows],
        [100 * value.mean for value in estimates],
        yerr=[100 * (value.half_width or 0.0) for value in estimates],
        label=label or None,
        linestyle=style,
        color=colour,
        marker="o",
        markersize=4,
        capsize=3,
    )
