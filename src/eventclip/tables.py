"""Rows of text as columns that line up, for whoever prints a table."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], *, left: int = 1, narrowest: int = 0) -> list[list[str]]:
    """Pad cells with spaces to the width of their column.

    Args:
        rows: the first has as many cells as any; others may end early.
        left: how many columns are aligned to the left; numbers follow, to the right.
        narrowest: width that every column has at least.

    Returns:
        The same rows of padded cells, to be joined by whatever stands between columns.
    """
    columns = range(max(map(len, rows), default=0))
    widths = [max(narrowest, *(len(row[i]) for row in rows if i < len(row))) for i in columns]
    return [
        [cell.ljust(width) if i < left else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))]  # noqa: B905
        for row in rows
    ]
