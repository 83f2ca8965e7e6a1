"""What people type: runs that were trained, then their table, from argv to files."""

import csv
import os
import subprocess
import sys

import pytest
from PIL import Image

from eventclip.report import main


@pytest.fixture
def runs(run_experiment, tmp_path):
    for seed in (0, 1):
        for shots in (1, 2):
            run_experiment(
                f"seed={seed}",
                f"fewshot.shots={shots}",
                "trainer.max_epochs=1",
                "callbacks.diagnostics=null",
                "callbacks.pictures=null",
                folder=f"run_{shots}_{seed}",
            )
    return tmp_path


def test_trained_runs_become_a_table_and_a_curve(runs, capsys):
    main([str(runs), "--out", str(runs / "report")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("fewshot_ncaltech: 4 runs")
    assert [cell.strip() for cell in lines[2].split("|")[1:4]] == ["fewshot.shots", "seeds", "top-1"]
    assert [[cell.strip() for cell in line.split("|")[1:3]] for line in lines[4:]] == [["1", "2"], ["2", "2"]]
    assert (runs / "report" / "report.md").read_text().splitlines() == lines
    with (runs / "report" / "report.csv").open(newline="") as file:
        assert [line["seeds"] for line in csv.DictReader(file)] == ["0 1", "0 1"]
    assert (runs / "report" / "report.tex").read_text().count(r"\\") == 3
    with Image.open(runs / "report" / "report.png") as picture:
        assert picture.size == (832, 572)
    assert sorted(path.name for path in (runs / "report").iterdir()) == [
        f"report.{suffix}" for suffix in ("csv", "md", "png", "tex")
    ]


def test_a_mistake_is_one_sentence_and_status_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "eventclip.report", str(tmp_path / "nowhere")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ},
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"eventclip: there is no folder {tmp_path}/nowhere: give folders of runs, such as outputs or multirun\n"
    )
    assert done.stdout == ""
