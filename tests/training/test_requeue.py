"""What a run does on a signal and with what it finds in its folder, without a cluster."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from lightning import Callback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from eventclip import cluster
from eventclip.config.composition import run_id
from eventclip.datasets.sources import EventFiles
from eventclip.errors import UserError
from eventclip.features import cache as features
from eventclip.training import requeue
from eventclip.training.resume import by_step

SMALL = (
    *("adapter=joint", "adapter.width=16", "adapter.mlp_width=16", "adapter.heads=2"),
    *("selection=validation", "selection.every_n_epochs=1", "callbacks.last.every_n_steps=1", "trainer.max_epochs=4"),
)
STEPS = 12  # 4 epochs of 9 recordings in batches of 4, 4 and 1


class Strike(Callback):
    """Send this process a signal, or a full disk, in a chosen place."""

    def __init__(self, hook, at, number):
        self.hook, self.at, self.number = hook, at, number

    def _strike(self, hook, trainer):
        if (hook, trainer.global_step) == (self.hook, self.at):
            os.kill(os.getpid(), self.number)

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        self._strike("step", trainer)

    def on_validation_start(self, trainer, pl_module):
        self._strike("validation", trainer)

    def on_test_start(self, trainer, pl_module):
        self._strike("test", trainer)


@pytest.fixture(autouse=True)
def strike(monkeypatch):
    """Watch signals as a command does, and forget them afterwards."""
    monkeypatch.setattr("eventclip.training.callbacks.Strike", Strike, raising=False)
    before = {number: signal.getsignal(number) for number in cluster.WATCHED}
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    cluster.watch()
    cluster._received.clear()
    yield lambda hook, at, number=signal.SIGTERM: (
        "+callbacks.strike._target_=eventclip.training.callbacks.Strike",
        *(f"+callbacks.strike.hook={hook}", f"+callbacks.strike.at={at}", f"+callbacks.strike.number={int(number)}"),
    )
    cluster._received.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


def rows(folder, column):
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        return [(int(row["step"]), row[column]) for row in csv.DictReader(file) if row.get(column)]


def learned(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def assert_same(folder, other):
    for name in ("last", "best"):
        assert all(torch.equal(learned(folder, name)[key], value) for key, value in learned(other, name).items()), name
    ours, theirs = (json.loads((f / "results.json").read_text()) for f in (folder, other))
    assert (ours["metrics"], ours["validation"]) == (theirs["metrics"], theirs["validation"])
    for column in ("fit/loss_step", "val/loss"):
        assert rows(folder, column) == rows(other, column), column


def test_a_run_that_a_signal_ended_goes_on_alike(run_experiment, strike):
    unbroken = run_experiment(*SMALL, folder="unbroken")
    places = [("step", 1), ("step", 3), ("validation", 6), ("step", 11), ("test", 12)]
    for hook, at in places:
        folder = f"{hook}-{at}"
        with pytest.raises(SystemExit) as left:
            run_experiment(*SMALL, *strike(hook, at), folder=folder)
        assert left.value.code == requeue.COMES_AGAIN
        cluster._received.clear()
        again = run_experiment(*SMALL, folder=folder)
        assert_same(again, unbroken)
        assert json.loads((again / "results.json").read_text())["restarts"] == 1
    events = EventAccumulator(str(again / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("fit/loss_step")] == list(range(STEPS))


def test_a_signal_while_features_are_encoded_keeps_them(run_experiment, tmp_path, monkeypatch):
    reads = []
    read = EventFiles.__call__

    def counted(files, path):
        reads.append(path)
        if len(reads) == 100:
            os.kill(os.getpid(), signal.SIGUSR1)
        return read(files, path)

    monkeypatch.setattr(EventFiles, "__call__", counted)
    cached = ("features=cached", "features.copies=10", "trainer.max_epochs=10")
    with pytest.raises(SystemExit) as left:
        run_experiment(*SMALL, *cached, f"paths.cache={tmp_path / 'cache'}", folder="run")
    assert left.value.code == requeue.COMES_AGAIN
    interrupted, reads[:] = len(reads), [None] * 100
    assert 100 <= interrupted < 100 + features._ROWS_AT_ONCE  # it does not go on to the end of a block
    cluster._received.clear()
    again = run_experiment(*SMALL, *cached, f"paths.cache={tmp_path / 'cache'}", folder="run")
    afterwards, reads[:] = len(reads) - 100, [None] * 100
    unbroken = run_experiment(*SMALL, *cached, f"paths.cache={tmp_path / 'clean'}", folder="unbroken")
    assert afterwards < len(reads) - 100  # the first block was kept
    assert_same(again, unbroken)


def test_the_newest_sound_checkpoint_is_taken(run_experiment, caplog):
    folder = run_experiment(*SMALL)
    unbroken = {name: value.clone() for name, value in learned(folder).items()}
    checkpoints = folder / "checkpoints"
    steps = [torch.load(path, weights_only=True)["global_step"] for path in by_step(checkpoints)]
    assert steps == sorted(steps, reverse=True)
    assert steps[:2] == [STEPS, STEPS - 1]
    last = checkpoints / "last.ckpt"
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 255  # torch reads it without a word
    for path in by_step(checkpoints):
        if torch.load(path, weights_only=True)["global_step"] == STEPS:
            path.write_bytes(damaged)
    run_experiment(*SMALL)
    assert "is damaged" in caplog.text
    assert all(torch.equal(unbroken[name], value) for name, value in learned(folder).items())


def test_damaged_checkpoints_are_no_silent_fresh_start(run_experiment):
    folder = run_experiment(*SMALL)
    for path in (folder / "checkpoints").glob("*.ckpt"):
        path.write_bytes(b"PK")
    with pytest.raises(UserError, match="are damaged: give resume=PATH of a good one, or resume=null"):
        run_experiment(*SMALL)


def test_a_fresh_start_is_not_mixed_up_with_what_the_folder_held(run_experiment):
    folder = run_experiment(*SMALL)
    run_experiment(*SMALL, "resume=null", "trainer.max_epochs=1")
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert [step for step, _ in rows(folder, "fit/loss_step")] == [0, 1, 2]
    assert json.loads((folder / "results.json").read_text())["restarts"] == 0


def test_a_requeued_job_takes_its_own_checkpoint(run_experiment, monkeypatch):
    folder = run_experiment(*SMALL, "resume=null")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run_experiment(*SMALL, "resume=null")
    results = json.loads((folder / "results.json").read_text())
    assert results["resumed"] is True
    assert results["restarts"] == 1


def test_a_full_disk_leaves_the_checkpoint_before_intact(run_experiment, strike, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        run_experiment(*SMALL, *strike("step", 3), "selection=last")
    cluster._received.clear()
    before = (folder / "checkpoints" / "last.ckpt").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(
            UserError, match=r"next.ckpt cannot be written \(File too large\): the one before is intact"
        ):
            run_experiment(*SMALL, "selection=last", "callbacks.pictures=null", "logger.tensorboard=null")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (folder / "checkpoints" / "last.ckpt").read_bytes() == before
    assert not list((folder / "checkpoints").glob(".*.part"))


def test_a_folder_that_cannot_be_written_to_is_told(run_experiment, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        run_experiment(*SMALL, f"callbacks.last.folder={tmp_path}/file/checkpoints")


def test_a_time_limit_that_would_pass_for_the_end_is_refused(run_experiment):
    with pytest.raises(UserError, match=r"trainer\.max_time ends training as if it had finished"):
        run_experiment(*SMALL, "+trainer.max_time=00:12:00:00")


@pytest.mark.parametrize(
    ("asked", "state", "due"),
    [
        ({signal.SIGUSR1}, "JobState=RUNNING PreemptTime=None", True),
        ({signal.SIGTERM}, "JobState=RUNNING PreemptTime=2024-01-01T00:00:00", True),
        ({signal.SIGTERM}, "JobState=RUNNING PreemptTime=None", False),
        ({signal.SIGTERM}, "JobState=COMPLETING PreemptTime=None", False),
        ({signal.SIGUSR1, signal.SIGTERM}, "JobState=COMPLETING", False),
        ({signal.SIGUSR1}, "JobState=COMPLETING", False),
        ({signal.SIGUSR1}, None, False),
    ],
)
def test_a_job_is_requeued_unless_it_was_cancelled(monkeypatch, asked, state, due):
    calls = []

    def scontrol(*words):
        calls.append(words)
        return state if words[0] == "-o" else ""

    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setattr(requeue, "_scontrol", scontrol)
    assert requeue.requeue_if_due(frozenset(asked)) is due
    assert (("requeue", "8") in calls) is due


def test_a_run_is_named_after_its_job_and_what_was_typed(monkeypatch):
    assert run_id("now", ["seed=0"]) == "now"
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert run_id("now", ["seed=0"]) == run_id("later", ["seed=0"]) != run_id("now", ["seed=1"])
    assert run_id("now", []).startswith("slurm-8-")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert run_id("now", []).startswith("slurm-7_3-")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert run_id("now", []) == "now"


def test_a_second_signal_outside_slurm_ends_a_process():
    code = "import os, signal; from eventclip import cluster; cluster.watch(); os.kill(os.getpid(), signal.SIGTERM)"
    once = subprocess.run([sys.executable, "-c", code], check=False)
    twice = subprocess.run([sys.executable, "-c", f"{code}; os.kill(os.getpid(), signal.SIGTERM)"], check=False)
    assert (once.returncode, twice.returncode) == (0, -signal.SIGTERM)
