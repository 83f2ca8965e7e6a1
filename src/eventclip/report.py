"""``eventclip report DIR...``: the results of any number of runs as one table, and accuracy over shots."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from eventclip.config.sentences import command
from eventclip.errors import UserError

WHAT = """Collect the results.json of all runs below some folders into one Markdown table: a row for each difference in
their settings, mean ± 95 % interval (Student t) over seeds."""
MIX = "one table even of runs with different test splits, other classes, or weights chosen on the test split"


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write the files that were asked for."""
    parser: Any = argparse.ArgumentParser("eventclip report", description=WHAT)
    parser.error = refuse
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="outputs, multirun, or any part of them")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write report.md, .tex, .csv and .png there")
    parser.add_argument("--against", default="", metavar="KEY=VALUE[,...]", help="top-1 less this row's, paired")
    parser.add_argument("--by-shots", action="store_true", help="a column for each number of shots")
    parser.add_argument("--mix", action="store_true", help=MIX)
    given = parser.parse_args(arguments)
    from eventclip.reports.report import report

    report(given.folders, given.out, mix=given.mix, against=given.against, by_shots=given.by_shots)


def refuse(message: str) -> NoReturn:
    """Refuse the command line in one sentence."""
    raise UserError(f"{message}: eventclip report DIR... [--out FOLDER] [--against KEY=VALUE] [--by-shots] [--mix]")


if __name__ == "__main__":
    main()
