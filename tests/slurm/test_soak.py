"""Thirty kills at random moments: the run still ends with the weights of one that was left in peace."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

pytestmark = pytest.mark.slow

KILLS = 30


def test_a_run_killed_thirty_times_ends_as_if_never_killed(unbroken, words, job_environment, tmp_path):
    chance = random.Random(0)
    run = tmp_path / "run"
    pace = ("callbacks.pace.seconds=0.2", "callbacks.last.every_n_steps=1")
    command = [sys.executable, "-m", "eventclip.train", *words, *pace, f"hydra.run.dir={run}"]
    ends, starts = [], 0
    for number in range(KILLS):
        process = start(command, job_environment)
        # Some are hit while they import or build, some between a few steps or while they save.
        counted = number % 5 != 0
        if counted:
            wait_for_start(run / "starts.json", starts, process)
        time.sleep(chance.uniform(0, 1.2) if counted else chance.uniform(0.5, 2))
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGUSR1]))
        told, _ = process.communicate(timeout=120)
        ends.append(process.returncode)
        assert process.returncode in (-signal.SIGKILL, -signal.SIGUSR1, 75), told
        starts = number_of_starts(run / "starts.json")
    assert {75, -signal.SIGKILL} <= set(ends)
    last = start(command, job_environment)
    told, _ = last.communicate(timeout=240)
    assert last.returncode == 0, told
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (run, unbroken)]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())
    ours, theirs = (json.loads((f / "results.json").read_text()) for f in (run, unbroken))
    assert (ours["metrics"], ours["validation"]) == (theirs["metrics"], theirs["validation"])
    assert ours["restarts"] == starts
    assert starts >= KILLS * 4 // 5


def start(command, environment):
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def number_of_starts(file):
    return json.loads(file.read_text())["starts"] if file.is_file() else 0


def wait_for_start(file, before, process):
    deadline = time.monotonic() + 120
    while number_of_starts(file) == before:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
