"""Measure, print the rows as they come, and write the whole to RESULTS.md.

python -m benchmarks                          everything, then benchmarks/RESULTS.md
python -m benchmarks frames features          only these; nothing is written unless --write is given
python -m benchmarks --quick                  everything at small sizes, to see that it works; never written

Each module runs in a process of its own, with as many threads as it says: threads, caches and memory of one must not
show in another.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

from benchmarks.table import Row, document, line

THREADS = {
    "frames": 1,
    "camera": 1,
    "packed": 1,
    "index": 1,
    "classify": 1,
    "aligned": 1,
    "allocator": 1,
    "simulate_views": None,
    "features": None,
    "fewshot": None,
    "memory": None,
    "start": None,
}
"""The modules in their order, and their threads; None takes the machine's cores."""

RESULTS = Path(__file__).with_name("RESULTS.md")


def main(arguments: list[str]) -> int:
    """Run what is asked for; gives the exit status."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="MODULE", help=f"of {', '.join(THREADS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, which show that it works and nothing else")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md though only some modules ran")
    parser.add_argument("--rows-only", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.names if name not in THREADS]:
        parser.error(f"{unknown[0]} is no module: expected one of {', '.join(THREADS)}")
    if asked.quick and asked.write:
        parser.error("--quick measures nothing worth keeping: leave out --write")
    if asked.rows_only:
        return _tell(asked.names[0], quick=asked.quick)
    names = [name for name in THREADS if name in asked.names] or list(THREADS)
    rows: dict[str, list[Row]] = {}
    notes, taken = {}, {}
    for number, name in enumerate(names, start=1):
        sys.stderr.write(f"[{number}/{len(names)}] {name}\n")
        start = time.monotonic()
        found = _measured(name, quick=asked.quick)
        if found is None:
            sys.stderr.write(f"{name} failed; nothing is written\n")
            return 1
        notes[name], rows[name] = found
        taken[name] = time.monotonic() - start
        sys.stderr.write(f"[{number}/{len(names)}] {name} took {taken[name]:.0f} s\n")
    if asked.write or (names == list(THREADS) and not asked.quick):
        from eventclip.files import whole_file

        with whole_file(RESULTS) as part:
            part.write_text(document(rows, notes, taken), encoding="utf-8")
        sys.stderr.write(f"written to {RESULTS.name}\n")
    return 0


def _measured(name: str, *, quick: bool) -> tuple[str, list[Row]] | None:
    """Note and rows of a module, which are printed as they come; None where it fails."""
    threads = str(THREADS[name] or len(os.sched_getaffinity(0)))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    command = [sys.executable, "-m", "benchmarks", name, "--rows-only", *(["--quick"] if quick else [])]
    note, rows = "", []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[1]
    ) as child:
        for told in child.stdout or ():
            message = json.loads(told)
            if isinstance(message, str):
                note = message
                continue
            rows.append(Row(*message))
            sys.stdout.write(line(rows[-1]))
            sys.stdout.flush()
    return None if child.returncode else (note, rows)


def _tell(name: str, *, quick: bool) -> int:
    """In the module's own process: its note and rows as lines of JSON, on what was the standard output."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else prints is for the eyes
    module = importlib.import_module(f"benchmarks.{name}")
    note = " ".join((module.__doc__ or "").split())
    for message in chain([note], module.rows(quick=quick)):
        out.write(json.dumps(message) + "\n")
        out.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
