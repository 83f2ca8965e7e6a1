"""``python -m eventclip.report DIR...``: the results of any number of runs as one table, and accuracy over shots."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from eventclip.config.sentences import command
from eventclip.errors import UserError


class _Parser(argparse.ArgumentParser):
    """Tells a mistake as all commands do."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line in one sentence."""
        raise UserError(f"{message}: python -m eventclip.report DIR... [--out FOLDER] [--mix]")


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, print the table, and write the files that were asked for."""
    command(_main)(arguments)


def _main(arguments: Sequence[str] | None) -> None:
    parser = _Parser(
        prog="python -m eventclip.report",
        description="Collect the results.json of all runs below some folders into one Markdown table: a row for each "
        "difference in their settings, mean ± 95 % interval (Student t) over seeds.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="outputs, multirun, or any part of them")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write report.md, report.tex, report.csv and report.png there"
    )
    parser.add_argument(
        "--mix",
        action="store_true",
        help="one table even of runs with different test splits, other classes, or weights chosen on the test split",
    )
    given = parser.parse_args(arguments)
    _report(given.folders, given.out, given.mix)


def _report(folders: list[Path], out: Path | None, mix: bool) -> None:
    from eventclip.reports.report import make_report, write_report

    report = make_report(folders, mix=mix)
    print(report.markdown, end="")
    if out is not None:
        written = write_report(report, out)
        print(f"written: {', '.join(map(str, written))}", file=sys.stderr)
        if not any(path.suffix == ".png" for path in written):
            print("no picture: no run has fewshot.shots", file=sys.stderr)


if __name__ == "__main__":
    main()
