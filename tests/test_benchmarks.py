"""The benchmarks run, and a run of some of them or at small sizes never touches the results that were kept."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
RESULTS = CHECKOUT / "benchmarks" / "RESULTS.md"
MODULES = sorted(one.stem for one in RESULTS.parent.glob("*.py") if "def rows(" in one.read_text(encoding="utf-8"))


def benchmarks(*arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def test_a_module_alone_prints_its_rows_and_writes_nothing():
    before = RESULTS.read_bytes()
    ran = benchmarks("camera", "--quick")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("×") == 2
    assert "numpy" in ran.stdout
    assert RESULTS.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_every_module_runs_at_small_sizes(name):
    ran = benchmarks(name, "--quick")
    assert ran.returncode == 0, ran.stderr
    assert "×" in ran.stdout


@pytest.mark.slow
def test_the_kernels_run_by_themselves():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "benchmarks/micro",
        "--benchmark-disable",
        "-p",
        "no:cacheprovider",
    ]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert " skipped" not in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("frame",), "frame is no module: expected one of frames, "), (("--quick", "--write"), "leave out --write")],
)
def test_a_mistake_is_told_before_anything_is_measured(arguments, told):
    ran = benchmarks(*arguments)
    assert ran.returncode == 2
    assert told in ran.stderr
    assert not ran.stdout


def test_the_table_holds_values_ratio_and_how():
    code = """
from benchmarks.table import Row, document
rows = {"a": [Row("time", 2.0, "plain", 10.0, "ms", "once"), Row("rate", 19, "bare", 20, "views/s", "once", True)]}
print(document(rows, {"a": "Of A."}, {"a": 3.0}))
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert "|time|2.00 ms|plain|10.0 ms|5.00×|once|" in ran.stdout
    assert "|rate|19.0 views/s|bare|20.0 views/s|0.950×|once|" in ran.stdout
    assert "- **a** (3 s). Of A." in ran.stdout
