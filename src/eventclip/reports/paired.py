"""Compare rows on the same seeds: what a draw of recordings does to both of them falls out of the difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eventclip.errors import UserError
from eventclip.reports.collect import WEIGHTS
from eventclip.reports.table import Estimate, Missing, Row, Table, estimate, heading, shown


def compare(table: Table, against: str) -> Table:
    """Add to each row the difference of its top-1 to that of another row, with the interval of the difference.

    A row's partner has the same settings but for the section that is compared (``adapter.*``) and for those which
    only one of the two has, such as the learning rate of an adapter that learns by steps.

    Args:
        table: of two rows at least.
        against: ``KEY=VALUE``, as the table shows them, several with commas between them: "adapter=text".

    Returns:
        The table with its rows' ``difference``; rows that have no partner, or no seed in common with it, have none.

    Raises:
        UserError: a key that is no column, a value that no row has, or rows of which several could be the partner.
    """
    wanted = dict(_spec(table, part) for part in against.split(","))
    bases = [row for row in table.rows if all(shown(key, row.settings[key]) == value for key, value in wanted.items())]
    said = ", ".join(f"{heading(key)} {value}" for key, value in wanted.items())
    if not bases:
        raise UserError(f"--against {against}: no row has {said} at once; give settings that one of the rows shows")
    sections = {heading(key).partition(".")[0] for key in wanted}
    own = {key for key in table.columns if heading(key).partition(".")[0] in sections} | {WEIGHTS}
    rows = [replace(row, difference=_difference(row, bases, own, against)) for row in table.rows]
    return replace(
        table,
        rows=rows,
        against=said,
        notes=[
            *table.notes,
            f"Differences of top-1 to {said} are paired: on the same seeds, at the same other settings.",
        ],
    )


def _spec(table: Table, part: str) -> tuple[str, str]:
    """The column and the value of one ``KEY=VALUE``."""
    key, sign, value = part.strip().partition("=")
    named = {heading(column): column for column in table.columns}
    if not sign or key not in named:
        raise UserError(
            f"--against {part.strip()}: expected KEY=VALUE with a key in which the runs differ: {', '.join(named)}"
        )
    there = list(dict.fromkeys(shown(named[key], row.settings[named[key]]) for row in table.rows))
    if value not in there:
        raise UserError(f"--against {part.strip()}: no run has it; of {key} there are {', '.join(there)}")
    return named[key], value


def _difference(row: Row, bases: Sequence[Row], own: set[str], against: str) -> Estimate | None:
    if row in bases:
        return None
    partners = [base for base in bases if all(_alike(row, base, key) for key in row.settings.keys() - own)]
    if len(partners) > 1:
        differing = [key for key in row.settings if not _alike(partners[0], partners[1], key)]
        raise UserError(
            f"--against {against} could be any of {len(partners)} rows that differ in "
            f"{', '.join(map(heading, differing))}: say which, as in --against {against},"
            f"{heading(differing[0])}={shown(differing[0], partners[0].settings[differing[0]])}"
        )
    if not partners:
        return None
    both = [seed for seed in row.seeds if seed in partners[0].by_seed]
    return estimate([row.by_seed[seed] - partners[0].by_seed[seed] for seed in both]) if both else None


def _alike(one: Row, other: Row, key: str) -> bool:
    ours, theirs = one.settings[key], other.settings[key]
    return ours == theirs or isinstance(ours, Missing) or isinstance(theirs, Missing)
