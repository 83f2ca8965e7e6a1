"""From folders to a report: collect, refuse what does not belong together, tabulate, write; and so after a sweep."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from eventclip.config.run_folders import differences
from eventclip.errors import UserError, printable
from eventclip.files import whole_file
from eventclip.reports.collect import ACCURACY, SHOTS, WEIGHTS, Collection, Run, collect, mixtures
from eventclip.reports.table import (
    Estimate,
    Missing,
    Row,
    Table,
    estimate,
    heading,
    make_table,
    shots_to_markdown,
    shown,
    to_csv,
    to_latex,
    to_markdown,
)

if TYPE_CHECKING:  # matplotlib is for who writes files
    from eventclip.plots.curve import Point


@dataclass(frozen=True)
class Report:
    """A table under a title.

    Attributes:
        table: of the runs.
        title: what runs they are.
        by_shots: a line for each way and a column for each number of shots, in place of a row for both.
    """

    table: Table
    title: str
    by_shots: bool = False

    @property
    def markdown(self) -> str:
        """All of it, title and notes included."""
        text = _by_shots(self.table, self.title) if self.by_shots else to_markdown(self.table, title=self.title)
        return printable(text, lines=True)


def report(
    folders: Sequence[Path], out: Path | None, *, mix: bool = False, against: str = "", by_shots: bool = False
) -> None:
    """Print the table of the runs below folders, and write its files where a folder for them is given.

    Args:
        folders: searched with all below them.
        out: folder for the files.
        mix: as in :func:`make_report`, whose errors it raises.
        against: alike.
        by_shots: alike.
    """
    made = make_report(folders, mix=mix, against=against, by_shots=by_shots)
    print(made.markdown, end="")
    if out is not None:
        written = write_report(made, out)
        print(f"written: {', '.join(map(str, written))}", file=sys.stderr)
        if not any(path.suffix == ".png" for path in written):
            print("no picture: no run has fewshot.shots", file=sys.stderr)


def make_report(folders: Sequence[Path], *, mix: bool = False, against: str = "", by_shots: bool = False) -> Report:
    """Collect the runs below folders into a table.

    Args:
        folders: searched with all below them.
        mix: take runs with different test splits, classes, or weights chosen on the test split into one table.
        against: settings of the row that all others are compared with, see :func:`compare`; empty: none.
        by_shots: as in :class:`Report`.

    Raises:
        UserError: no finished run, runs that do not belong together where ``mix`` was not asked for, or no row such
            as ``against`` tells.
    """
    collection = collect(folders)
    left_out = _left_out(collection)
    if not collection.runs:
        raise UserError(f"no run can be reported: {' '.join(left_out)}")
    mixed = mixtures(collection.runs)
    if mixed and not mix:
        raise UserError(f"{'; and '.join(mixed)}: report them apart, or give --mix to have them in one table")
    table = make_table(collection.runs, mixed=bool(mixed))
    table = replace(table, notes=[*(f"Mixed: {reason}." for reason in mixed), *table.notes, *left_out])
    return Report(compare(table, against) if against else table, _title(collection.runs), by_shots)


def _by_shots(table: Table, title: str) -> str:
    """Accuracy and, where rows are compared, differences over shots, then the table's notes."""
    parts = [f"{title}\n", shots_to_markdown(series(table), title="top-1")]
    if table.against:
        differences = series(table, differences=True)
        parts.append(shots_to_markdown(differences, title=f"top-1 against {table.against}", sign="+"))
    if "test/calibration_error" in table.metrics:
        errors = series(table, metric="test/calibration_error")
        parts.append(shots_to_markdown(errors, title="calibration error"))
    return "\n".join([*parts, *(f"{note}\n" for note in table.notes)])


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


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``report.md``, ``report.tex``, ``report.csv`` and, where runs have shots, ``report.png``.

    Where rows are compared, ``report_differences.png`` as well.

    Returns:
        The files written.
    """
    from eventclip.plots.curve import draw_curve, draw_differences
    from eventclip.plots.style import save_figure

    texts = {"md": report.markdown, "tex": to_latex(report.table), "csv": to_csv(report.table)}
    written = []
    for suffix, text in texts.items():
        written.append(folder / f"report.{suffix}")
        with whole_file(written[-1]) as part:
            part.write_text(printable(text, lines=True), encoding="utf-8")
    pictures = {"report.png": draw_curve(_points(series(report.table)))}
    if report.table.against:
        differences = _points(series(report.table, differences=True))
        pictures["report_differences.png"] = draw_differences(differences, report.table.against)
    for name, figure in pictures.items():
        if figure is not None:
            written.append(folder / name)
            save_figure(written[-1], figure)
    return written


def series(table: Table, *, metric: str = ACCURACY, differences: bool = False) -> dict[str, dict[int | None, Estimate]]:
    """The rows as lines over their shots, one for each other difference, named by it.

    A line goes on where free numbers were set otherwise at other shots, as with one shot nothing can be left out.

    Args:
        table: of runs.
        metric: what is told of each row.
        differences: tell what the rows were compared in; those without a partner are left out.

    Returns:
        Name -> shots (None: all recordings) -> estimate.
    """
    others = [column for column in table.columns if column != SHOTS]
    free = [column for column in others if column != WEIGHTS]
    places = [(*(shown(column, row.settings[column]) for column in free), row.shots) for row in table.rows]
    others = free if len(set(places)) == len(places) else others
    lines: dict[str, dict[int | None, Estimate]] = {}
    for row in table.rows:
        told = row.difference if differences else row.estimates.get(metric)
        if told is not None:
            name = ", ".join(f"{heading(column)} {shown(column, row.settings[column])}" for column in others)
            lines.setdefault(name, {})[row.shots] = told
    return lines


def _points(lines: Mapping[str, Mapping[int | None, Estimate]]) -> dict[str, list[Point]]:
    from eventclip.plots.curve import Point

    return {name: [Point(shots, *told) for shots, told in line.items()] for name, line in lines.items()}


def _title(runs: Sequence[Run]) -> str:
    names = ", ".join(dict.fromkeys(run.name for run in runs))
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    return f"{names}: {count}, test accuracy [%], mean ± 95 % interval over seeds (Student t)"


def _left_out(collection: Collection) -> list[str]:
    notes = []
    if collection.unfinished:
        typed = differences(collection.unfinished)
        named = ", ".join(f"{folder} ({said})" if said else str(folder) for folder, said in typed.items())
        notes.append(f"Left out, without results.json as if not finished ({len(collection.unfinished)}): {named}.")
    return notes + [f"Left out: {sentence}." for sentence in collection.damaged]


class SweepTable(Callback):
    """Print the report of a multirun's runs once all have ended, and say where everything lies.

    Args:
        against: as in :func:`make_report`; where no run of the sweep is such, nothing is compared.
        by_shots: alike.
        write: whether to write the report's files into the sweep's folder as well.
    """

    def __init__(self, *, against: str = "", by_shots: bool = False, write: bool = False) -> None:
        self.against, self.by_shots, self.write = against, by_shots, write

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report on the sweep's folder, and say which run is where; ``kwargs`` is Hydra's and empty."""
        folder = Path(config.hydra.sweep.dir)
        runs = differences(sorted((place.parent for place in folder.glob("*/.hydra")), key=_number))
        listed = "".join(f"{run.name}: {typed}\n" for run, typed in runs.items() if typed)
        try:
            report = make_report([folder], by_shots=self.by_shots)
        except UserError as error:
            print(f"\nno table: {error}")
            return
        if self.against:
            try:
                report = replace(report, table=compare(report.table, self.against))
            except UserError as error:
                print(f"\nnothing is compared: {error}")
        print(f"\n{report.markdown}\n{listed}{folder}: results, checkpoints and pictures of each run")
        if self.write:
            print(f"written: {', '.join(map(str, write_report(report, folder)))}")


def _number(run: Path) -> tuple[int, str]:
    """Runs in the order in which they were started."""
    number = run.name.partition("-")[0]
    return (int(number) if number.isdecimal() else 0, run.name)
