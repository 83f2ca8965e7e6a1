"""Training on whole epochs of cached features is training batch by batch, to the last bit."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning import Callback

from eventclip import cluster
from eventclip.training import experiment, requeue
from eventclip.training.whole_epochs import StepCallback

CACHED = ("features=cached", "features.copies=2", "trainer.max_epochs=4")
STEPS = 12  # 4 epochs of 9 recordings in batches of 4, 4 and 1
JOINT = ("adapter=joint", "adapter.width=16", "adapter.mlp_width=16", "adapter.heads=2")
VISUAL = ("adapter=visual", "adapter.width=16", "adapter.mlp_width=16", "adapter.heads=2")


class Struck(StepCallback):
    """Keep a checkpoint of every step, and send this process a signal after one of them."""

    __module__ = "eventclip.training.callbacks"  # one of ours, which does not look at batches

    def __init__(self, folder, at=-1):
        self.folder, self.at = folder, at

    def on_step_end(self, trainer):
        trainer.save_checkpoint(f"{self.folder}/step_{trainer.global_step}.ckpt")
        if trainer.global_step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.on_step_end(trainer)


@pytest.fixture
def by_batch(monkeypatch):
    """Have the runs that are made within it train batch by batch."""

    def within(run, *arguments, **named):
        with monkeypatch.context() as patched:
            patched.setattr(experiment, "suits", lambda trainer, lit: False)
            return run(*arguments, **named)

    return within


@pytest.fixture
def struck(tmp_path, monkeypatch):
    """Overrides that add :class:`Struck`; signals are watched as a command does, and forgotten afterwards."""
    monkeypatch.setattr("eventclip.training.callbacks.Struck", Struck, raising=False)
    before = {number: signal.getsignal(number) for number in cluster.WATCHED}
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    cluster.watch()
    cluster._received.clear()

    def overrides(name, at=-1):
        kept = tmp_path / name
        kept.mkdir()
        target = "+callbacks.struck._target_=eventclip.training.callbacks.Struck"
        return kept, (target, f"+callbacks.struck.folder={kept}", f"+callbacks.struck.at={at}")

    yield overrides
    cluster._received.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


def stored(path):
    return torch.load(path, weights_only=True)


def assert_alike(ours, theirs, *, unbroken=True):
    """The same steps, weights and optimizer; and the same progress, which Lightning counts anew where it goes on."""
    assert ours["global_step"] == theirs["global_step"]
    assert not unbroken or ours["loops"]["fit_loop"] == theirs["loops"]["fit_loop"]
    assert ours["lr_schedulers"] == theirs["lr_schedulers"]
    assert ours["state_dict"].keys() == theirs["state_dict"].keys()
    assert all(torch.equal(value, theirs["state_dict"][name]) for name, value in ours["state_dict"].items())
    for own, other in zip(ours["optimizer_states"], theirs["optimizer_states"], strict=True):
        assert own["param_groups"] == other["param_groups"]
        for index, state in own["state"].items():
            assert all(torch.equal(value, other["state"][index][name]) for name, value in state.items())


def steps(folder):
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        return [(row["step"], row["fit/loss_step"]) for row in csv.DictReader(file) if row["fit/loss_step"]]


def assert_same_run(ours, theirs, *, unbroken=True):
    last = [stored(folder / "checkpoints" / "last.ckpt") for folder in (ours, theirs)]
    assert_alike(*last, unbroken=unbroken)
    own, other = (json.loads((folder / "results.json").read_text()) for folder in (ours, theirs))
    assert (own["metrics"], own["validation"]) == (other["metrics"], other["validation"])
    logs = [(folder / "csv" / "version_0" / "metrics.csv").read_text() for folder in (ours, theirs)]
    assert steps(ours) == steps(theirs)
    assert not unbroken or logs[0] == logs[1]  # an epoch's means are of what was left of it


@pytest.mark.parametrize(
    "options",
    [
        ("adapter=text",),
        VISUAL,
        JOINT,
        ("adapter=text", "data.augmentation=null"),
        ("adapter=text", "selection=validation", "selection.every_n_epochs=2"),
        ("adapter=text", "trainer.max_steps=7", "trainer.log_every_n_steps=2"),
        ("adapter=text", "classifier.loss=probabilities", "classifier.pooling=max"),
    ],
    ids=["text", "visual", "joint", "unaugmented", "validated", "max_steps", "probabilities"],
)
def test_nothing_differs_from_training_by_batches(run_experiment, by_batch, options):
    ours = run_experiment(*CACHED, *options, folder="whole")
    theirs = by_batch(run_experiment, *CACHED, *options, folder="batches")
    assert_same_run(ours, theirs)


def test_a_checkpoint_of_any_step_is_that_of_batches(run_experiment, by_batch, struck):
    kept, add = struck("whole")
    run_experiment(*CACHED, *JOINT, *add, folder="run")
    other, add = struck("batches")
    by_batch(run_experiment, *CACHED, *JOINT, *add, folder="other")
    for step in range(1, STEPS + 1):
        assert_alike(stored(kept / f"step_{step}.ckpt"), stored(other / f"step_{step}.ckpt"))


@pytest.mark.parametrize(
    ("first", "then"),
    [("whole", "whole"), ("whole", "batches"), ("batches", "whole")],
    ids=["stays", "leaves", "comes"],
)
def test_either_way_goes_on_from_any_step(run_experiment, by_batch, struck, first, then):
    kept, add = struck("kept")
    way = {"whole": lambda run, *arguments, **named: run(*arguments, **named), "batches": by_batch}
    unbroken = way[first](run_experiment, *CACHED, *JOINT, *add, folder="unbroken")
    wanted = stored(unbroken / "checkpoints" / "last.ckpt")
    for step in (1, 3, 8, 11):
        path = kept / f"step_{step}.ckpt"
        again = way[then](run_experiment, *CACHED, *JOINT, f"resume={path}", folder=f"from_{step}")
        assert_alike(stored(again / "checkpoints" / "last.ckpt"), wanted, unbroken=False)


@pytest.mark.parametrize("at", [1, 4, 6, 11])
def test_a_signal_between_two_steps_loses_nothing(run_experiment, struck, at):
    options = (*CACHED, *JOINT, "callbacks.last.every_n_steps=5")
    unbroken = run_experiment(*options, folder="unbroken")
    _, add = struck("kept", at)
    with pytest.raises(SystemExit) as left:
        run_experiment(*options, *add, folder="run")
    assert left.value.code == requeue.COMES_AGAIN
    cluster._received.clear()
    again = run_experiment(*options, folder="run")
    assert_same_run(again, unbroken, unbroken=False)


class Watching(Callback):
    """Another's, which may look at batches."""


@pytest.mark.parametrize(
    "option",
    [
        "trainer.accumulate_grad_batches=2",
        "+trainer.gradient_clip_val=1.0",
        "trainer.limit_train_batches=2",
        "+trainer.profiler=simple",
        "+callbacks.own._target_=eventclip.training.callbacks.Watching",
    ],
)
def test_what_needs_batches_gets_them(run_experiment, monkeypatch, option):
    monkeypatch.setattr("eventclip.training.callbacks.Watching", Watching, raising=False)
    asked = []
    monkeypatch.setattr(experiment, "suits", lambda *parts: asked.append(suits(*parts)) or asked[-1])
    run_experiment(*CACHED, option, folder="run")
    run_experiment(*CACHED, folder="plain")
    assert asked == [False, True]


suits = experiment.suits


@pytest.mark.slow
def test_runs_at_once_are_those_of_one_after_the_other(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    common = ["-m", "eventclip.train", "-m", "experiment=demo", "clip=tiny", "features=cached", "trainer.max_epochs=2"]
    swept = ["adapter=text,gda", "fewshot.shots=1,2", f"paths.cache={tmp_path / 'cache'}"]
    for name, launcher in (("after", []), ("at_once", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])):
        command = [sys.executable, *common, *swept, *launcher, f"hydra.sweep.dir={tmp_path / name}"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    after, at_once = (
        {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / name).glob("*/results.json")}
        for name in ("after", "at_once")
    )
    assert len(after) == 4
    assert {name: run["metrics"] for name, run in at_once.items()} == {
        name: run["metrics"] for name, run in after.items()
    }


def children_of(pid):
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def runs(pid):
    """Whether a process is there, and not only what its new parent has yet to look at."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_runs_at_once_end_with_the_one_that_began_them(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["experiment=demo", "clip=tiny", "adapter=text", "features=cached", "trainer.max_epochs=100000", "seed=0,1"]
    command = [sys.executable, "-m", "eventclip.train", "-m", *words, "hydra/launcher=joblib", "hydra.sweep.dir=sweep"]
    command += [f"paths.cache={tmp_path / 'cache'}", "hydra.launcher.n_jobs=2", "callbacks.last.every_n_steps=10"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sweep:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("sweep/*/checkpoints/last.ckpt"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        workers = children_of(sweep.pid)
        sweep.kill()
    assert len(workers) >= 2
    deadline = time.monotonic() + 30
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [worker for worker in workers if runs(worker)]
