"""Start-up: what `--help` takes, process and all, for each command.

The comparator is what a command would at least take that imports Lightning at its head.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from benchmarks.measure import medians
from benchmarks.table import Row

COMMANDS = ("train", "predict", "evaluate", "report", "pseudo_label", "pack", "show", "simulate", "pairs", "data_check")


def rows(*, quick: bool) -> Iterator[Row]:
    """Seconds of each command."""
    runs = 1 if quick else 5
    python = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
    work = [partial(python, [sys.executable, "-m", f"eventclip.{name}", "--help"]) for name in COMMANDS]
    work.append(partial(python, [sys.executable, "-c", "import lightning"]))
    *ours, theirs = medians(work, runs)
    for name, taken in zip(COMMANDS, ours, strict=True):
        how = f"median of {runs}, in turns"
        yield Row(f"python -m eventclip.{name} --help", taken, "python -c 'import lightning'", theirs, "s", how)
