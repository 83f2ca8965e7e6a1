"""A table as Markdown, as rows of LaTeX and as CSV."""

from __future__ import annotations

import csv
import io
import re

from eventclip.reports.table import METRICS, Estimate, Row, Table, heading, shown
from eventclip.tables import aligned

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def to_markdown(table: Table, *, title: str = "") -> str:
    """Write the table aligned, so that it reads in a terminal too, with its notes below: accuracies in percent."""
    head = [*map(heading, table.columns), "seeds", *(METRICS[metric] for metric in table.metrics)]
    numbers = len(table.columns)
    lines = [[cell.replace("|", "\\|") for cell in line] for line in (head, *_cells(table))]
    padded = aligned(lines, left=numbers, narrowest=3)
    rule = [f"{'-' * (len(cell) - 1)}:" if i >= numbers else "-" * len(cell) for i, cell in enumerate(padded[0])]
    written = [f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:])]
    text = [*([title, ""] if title else []), *written]
    notes = [line for note in table.notes for line in ("", note)]
    return "\n".join([*text, *notes]) + "\n"


def to_latex(table: Table) -> str:
    """Write the head and the rows of a tabular, each ended by two backslashes: accuracies in percent."""
    head = [*map(heading, table.columns), "seeds", *(METRICS[metric] for metric in table.metrics)]
    lines = [[escape_latex(cell) for cell in line] for line in (head, *_cells(table))]
    written = [f"{' & '.join(line)} \\\\" for line in lines]
    return "\n".join([written[0], "\\midrule", *written[1:]]) + "\n"


def escape_latex(text: str) -> str:
    r"""Escape what LaTeX takes for a command; "±" becomes ``$\pm$``."""
    return re.sub(r"[\\~^–±&%$#_{}]", lambda sign: _LATEX[sign[0]], text)


def to_csv(table: Table) -> str:
    """Write all digits: a column of each setting, the seeds, and of each metric its mean and half interval in [0, 1].

    An empty field is a half interval of one seed, or a metric that the row does not have.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    metrics = [name for metric in table.metrics for name in (metric, f"{metric} half_width")]
    writer.writerow([*map(heading, table.columns), "n", "seeds", *metrics])
    for row in table.rows:
        values = [value for metric in table.metrics for value in row.estimates.get(metric, (None, None))]
        seeds = " ".join(str(seed) for seed in row.seeds)
        writer.writerow([*_settings(table, row), len(row.seeds), seeds, *values])
    return stream.getvalue()


def _cells(table: Table) -> list[list[str]]:
    return [
        [
            *_settings(table, row),
            str(len(row.seeds)),
            *(_percent(row.estimates.get(metric)) for metric in table.metrics),
        ]
        for row in table.rows
    ]


def _settings(table: Table, row: Row) -> list[str]:
    return [shown(column, row.settings[column]) for column in table.columns]


def _percent(value: Estimate | None) -> str:
    if value is None:
        return "–"
    if value.half_width is None:
        return f"{100 * value.mean:.2f}"
    return f"{100 * value.mean:.2f} ± {100 * value.half_width:.2f}"
