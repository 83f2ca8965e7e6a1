"""On a real Slurm, whatever happens to a job, it ends COMPLETED with the weights of one that nothing happened to."""

import csv
import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

from eventclip.config.run_folders import overrides_of

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train.sbatch"


def assert_as_if_nothing_had_happened(folder, unbroken):
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (folder, unbroken)]
    assert weights[0]["global_step"] == weights[1]["global_step"] == 60
    for name, value in weights[1]["state_dict"].items():
        assert torch.equal(weights[0]["state_dict"][name], value), name
    ours, theirs = (json.loads((f / "results.json").read_text()) for f in (folder, unbroken))
    assert ours["metrics"] == theirs["metrics"]
    assert ours["validation"] == theirs["validation"]
    for column in ("fit/loss_step", "val/loss"):
        assert steps_of(folder, column) == steps_of(unbroken, column)
    return ours


def steps_of(folder, column):
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        return [(row["step"], row[column]) for row in csv.DictReader(file) if row.get(column)]


def test_a_job_told_by_sigusr1_is_requeued_and_goes_on(cluster, unbroken, tmp_path):
    job = cluster.submit(tmp_path)
    folder = cluster.training(tmp_path, job)
    cluster.run("scancel", "--signal=USR1", job)
    end = cluster.wait_for_end(job)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1")
    assert assert_as_if_nothing_had_happened(folder, unbroken)["restarts"] == 1


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_a_preempted_job_goes_on_signal_or_not(cluster, unbroken, tmp_path, name):
    lines = SCRIPT.read_text().splitlines(keepends=True)
    script = tmp_path / "job.sbatch"
    script.write_text("".join(line for line in lines if name == "SIGUSR1" or "--signal" not in line))
    job = cluster.submit(tmp_path, options=("--cpus-per-task=4",), script=script)
    folder = cluster.training(tmp_path, job)
    cluster.run("sbatch", "--partition=high", "--cpus-per-task=4", "--output=/dev/null", "--wrap=true")
    end = cluster.wait_for_end(job)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1")
    assert_as_if_nothing_had_happened(folder, unbroken)
    assert f"{name} at step" in (tmp_path / f"{job}.out").read_text()


def test_a_job_requeued_by_an_operator_goes_on(cluster, unbroken, tmp_path):
    job = cluster.submit(tmp_path)
    folder = cluster.training(tmp_path, job)
    cluster.run("scontrol", "requeue", job)
    assert cluster.wait_for_end(job)["JobState"] == "COMPLETED"
    assert_as_if_nothing_had_happened(folder, unbroken)


def test_a_killed_job_is_started_again_and_goes_on(cluster, unbroken, tmp_path):
    job = cluster.submit(tmp_path)
    folder = cluster.training(tmp_path, job)
    for process in cluster.tasks(job):
        os.kill(process, signal.SIGKILL)  # not by scancel, which takes this signal for a cancellation
    end = cluster.wait_for_end(job)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1")
    assert assert_as_if_nothing_had_happened(folder, unbroken)["restarts"] == 1


def test_an_element_of_an_array_is_requeued_alone(cluster, unbroken, tmp_path):
    array = cluster.submit(tmp_path, options=("--array=0-1",))
    folders = [cluster.training(tmp_path, f"{array}_{element}") for element in (0, 1)]
    cluster.run("scancel", "--signal=USR1", f"{array}_1")
    ends = [cluster.wait_for_end(f"{array}_{element}") for element in (0, 1)]
    assert [end["JobState"] for end in ends] == ["COMPLETED", "COMPLETED"]
    assert [end["Restarts"] for end in ends] == ["0", "1"]
    for folder in folders:
        assert_as_if_nothing_had_happened(folder, unbroken)


def test_a_cancelled_job_stays_cancelled_and_has_saved(cluster, tmp_path):
    job = cluster.submit(tmp_path)
    folder = cluster.training(tmp_path, job)
    cluster.run("scancel", job)
    end = cluster.wait_for_end(job)
    assert (end["JobState"], end["Restarts"]) == ("CANCELLED", "0")
    assert not (folder / "results.json").exists()
    assert "not asking for another start" in (tmp_path / f"{job}.out").read_text()


def test_a_signal_before_python_listens_is_not_lost(cluster, unbroken, tmp_path):
    slow = tmp_path / "bin" / "python"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\nsleep 2\nexec {sys.executable} "$@"\n')
    slow.chmod(0o755)
    job = cluster.submit(tmp_path, options=(f"--export=ALL,PATH={slow.parent}:{cluster.environment['PATH']}",))
    cluster.wait_for(lambda: cluster.tasks(job), job)
    cluster.run("scancel", "--signal=USR1", job)
    end = cluster.wait_for_end(job)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1")
    assert_as_if_nothing_had_happened(cluster.folder(tmp_path, job), unbroken)


def test_a_signal_during_imports_is_not_lost(cluster, unbroken, tmp_path):
    job = cluster.submit(tmp_path)
    folder = cluster.folder(tmp_path, job)  # Hydra makes it before torch is imported
    assert not (folder / "checkpoints").exists()
    cluster.run("scancel", "--signal=USR1", job)
    end = cluster.wait_for_end(job)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1")
    assert "SIGUSR1 at step 1:" in (tmp_path / f"{job}.out").read_text()
    assert_as_if_nothing_had_happened(folder, unbroken)


def test_a_job_out_of_time_is_requeued(cluster, unbroken, tmp_path):
    options = ("--time=2", "--signal=USR1@60")  # Slurm looks at the clock every 30 s, and may signal 60 s too early
    job = cluster.submit(tmp_path, "callbacks.pace.seconds=0.8", options=options)
    folder = cluster.training(tmp_path, job)
    end = cluster.wait_for_end(job, seconds=480)
    assert end["JobState"] == "COMPLETED"
    assert int(end["Restarts"]) >= 1
    assert_as_if_nothing_had_happened(folder, unbroken)


def test_ranks_out_of_step_do_not_wait_for_each_other_for_ever(cluster, tmp_path):
    ddp = ("trainer=ddp", "trainer.accelerator=cpu")
    two = ("--ntasks-per-node=2",)
    quiet = cluster.submit(tmp_path, *ddp, options=two)
    job = cluster.submit(tmp_path, *ddp, "+callbacks.pace.skew=0.3", options=two)
    folder = cluster.training(tmp_path, job)
    cluster.run("scancel", "--signal=USR1", job)
    end = cluster.wait_for_end(job)
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1")
    assert cluster.wait_for_end(quiet)["JobState"] == "COMPLETED"
    assert_as_if_nothing_had_happened(folder, cluster.folder(tmp_path, quiet))


def test_a_sweep_by_submitit_finishes_with_an_element_preempted(cluster, unbroken, tmp_path):
    pytest.importorskip("submitit")
    values = ("seed=0,1", "optim.lr=0.01,0.02")
    sweep = cluster.start_sweep(tmp_path, *values)

    def run_of(*typed):
        """The folder of the run for which this was typed, once it is there."""
        return next((f for f in (tmp_path / "sweep").glob("*-*") if set(typed) <= set(overrides_of(f))), None)

    cluster.wait_for(lambda: run_of("optim.lr=0.01", "seed=0") is not None)
    chosen = run_of("optim.lr=0.01", "seed=0")
    cluster.wait_for((chosen / "checkpoints" / "last.ckpt").exists)
    running = cluster.run("squeue", "-h", "-r", "-o", "%i %t").split("\n")
    element = min(line.split()[0] for line in running if line.endswith(" R"))
    cluster.run("scancel", "--signal=USR1", element)
    told, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, told
    assert cluster.state(element)["Restarts"] == "1"
    results = sorted((tmp_path / "sweep").glob("*/results.json"))
    assert {path.parent for path in results} == {
        run_of(f"optim.lr={lr}", f"seed={seed}") for lr in ("0.01", "0.02") for seed in (0, 1)
    }
    assert sorted(json.loads(path.read_text())["restarts"] for path in results) == [0, 0, 0, 1]
    assert_as_if_nothing_had_happened(chosen, unbroken)
    table = cluster.run(sys.executable, "-m", "eventclip.report", str(tmp_path / "sweep"))
    assert "fewshot_ncaltech: 4 runs" in table
    assert [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| 0.0")] == [
        [" 0.01     ", "     2 "],
        [" 0.02     ", "     2 "],
    ]


def test_a_mistake_in_a_sweep_reaches_who_waits_for_it(cluster, tmp_path):
    pytest.importorskip("submitit")
    sweep = cluster.start_sweep(tmp_path, "seed=0", "fewshot.shots=50", "fewshot.repeat=false")
    told, _ = sweep.communicate(timeout=120)
    assert sweep.returncode == 1
    assert "eventclip: " in told
    assert "too few for 50 shots" in told
    assert "Traceback" not in told
