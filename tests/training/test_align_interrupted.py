"""An alignment that is ended at any moment goes on to the same file, and two processes align as one does."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning import Callback

from eventclip.errors import UserError
from eventclip.models.alignment import read_alignment

KILLS = 20
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
PACED = ENVIRONMENT | {
    "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parents[1] / "slurm"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
}
"""With a callback in reach that sleeps in each step."""
TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


def results(out):
    return json.loads((out.parent / f"{out.name}.run" / "results.json").read_text())


class KeepFolders(Callback):
    """Keep the folder of checkpoints as it is before every step, as a run killed there would leave it."""

    def __init__(self, checkpoints: str, kept: str) -> None:
        self.checkpoints, self.kept = Path(checkpoints), Path(kept)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step:
            shutil.copytree(self.checkpoints, self.kept / f"{trainer.global_step:02}")


def test_going_on_from_any_step_ends_with_the_same_bytes(run_alignment, tmp_path, monkeypatch):
    monkeypatch.setattr("eventclip.training.callbacks.KeepFolders", KeepFolders, raising=False)
    checkpoints, kept = tmp_path / "aligned.safetensors.run" / "checkpoints", tmp_path / "kept"
    out = run_alignment(
        *("+callbacks.keep._target_=eventclip.training.callbacks.KeepFolders", f"+callbacks.keep.kept={kept}"),
        *(f"+callbacks.keep.checkpoints={checkpoints}", "callbacks.last.every_n_steps=1"),
    )
    expected, before = out.read_bytes(), results(out)
    folders = sorted(kept.iterdir())
    assert [int(folder.name) for folder in folders] == list(range(1, 9))
    for folder in folders[::3]:
        out.unlink()
        shutil.rmtree(checkpoints)
        shutil.copytree(folder, checkpoints)
        run_alignment()
        assert out.read_bytes() == expected
        told = results(out)
        assert told["resumed"]
        assert told["history"] == before["history"]
        assert (told["metrics"], told["epoch"]) == (before["metrics"], before["epoch"])


def test_going_on_with_another_course_or_images_is_refused(run_alignment, shapes_root, tmp_path):
    began = ("trainer.max_epochs=1", "loss.scale=15.5", "simulation.inverted=0.25")
    run_alignment(*began)
    (tmp_path / "aligned.safetensors").unlink()
    for override, told in (
        ("loss.scale=7", r"trained with loss\.scale=15\.5 and this run has 7,.* give loss\.scale=15\.5 to go on"),
        ("simulation.inverted=0.5", r"simulation\.inverted=0\.25 and this run has 0\.5"),
        ("statistics=events", "has no batch norm"),
        ("features.copies=1", r"features\.copies=2 and this run has 1"),
        ("leave_out=[cow]", "learned from other images than this run has"),
        ("clip.init_seed=1", "was trained on CLIP"),
    ):
        with pytest.raises(UserError, match=told):
            run_alignment(*began, override)
    run_alignment(*began, "resume=null", "loss.scale=7")


def test_a_checkpoint_of_the_other_kind_is_refused(run_alignment, run_experiment, tmp_path):
    trained = run_experiment("trainer.max_epochs=1", "callbacks.pictures=null") / "checkpoints" / "last.ckpt"
    out = run_alignment("trainer.max_epochs=1")
    aligned = out.parent / f"{out.name}.run" / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match=r"last\.ckpt is a checkpoint of a training, not of an alignment") as told:
        run_alignment(f"resume={trained}", name="other")
    assert "\n" not in str(told.value)
    with pytest.raises(UserError, match=r"is a checkpoint of an alignment, not of a training: .*clip\.aligned") as told:
        run_experiment(f"resume={aligned}", folder="other")
    assert "\n" not in str(told.value)


@pytest.fixture
def command(shapes_root, tiny_clip_json, tmp_path):
    """``python -m eventclip.align`` on the drawn images, as a list of words."""

    def words(name, *overrides):
        return [
            *(sys.executable, "-m", "eventclip.align", f"images={shapes_root}", f"out={tmp_path / name}.safetensors"),
            *("clip=tiny", "clip.arch=null", "clip.pretrained=null", f"clip.config={tiny_clip_json}"),
            *("simulation.sensors=[[24,32],[20,20]]", "batch_size=6", "optim.lr=3e-3", "heldout.share=0.2"),
            *("num_workers=1", "features.copies=2", "callbacks.progress=null", f"paths.cache={tmp_path / name}-cache"),
            *overrides,
        ]

    return words


def finish(words):
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_an_alignment_killed_twenty_times_ends_the_same(command, tmp_path):
    course = ("trainer.max_epochs=24", "callbacks.last.every_n_steps=1")
    finish(command("whole", *course))
    pace = ("+callbacks.pace._target_=pace.Pace", "+callbacks.pace.seconds=0.2")
    chance, words, ends = random.Random(0), command("run", *course, *pace), []
    out, folder = tmp_path / "run.safetensors", tmp_path / "run.safetensors.run"
    starts, last = folder / "starts.json", folder / "checkpoints" / "last.ckpt"
    for number in range(KILLS):
        before, written = number_of_starts(starts), changed_at(last)
        process = subprocess.Popen(words, env=PACED, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        # Some are hit while they import or the teacher looks, some before a step, most between steps or in a writing.
        if number % 4 == 1:
            wait_for(lambda before=before: number_of_starts(starts) > before, process)
        elif number % 4:
            wait_for(lambda written=written: changed_at(last) != written, process)
        time.sleep(chance.uniform(0, 0.8) if number % 4 else chance.uniform(0.5, 6))
        process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
        told, _ = process.communicate(timeout=120)
        ends.append(process.returncode)
        assert process.returncode in (-signal.SIGKILL, -signal.SIGTERM, 75), told
    assert {75, -signal.SIGKILL} <= set(ends)
    assert not out.exists()
    finish(command("run", *course, "trust=true"))  # its checkpoints name the pace
    assert out.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    ours, theirs = results(out), results(tmp_path / "whole.safetensors")
    assert ours["history"] == theirs["history"]
    assert (ours["metrics"], ours["epoch"]) == (theirs["metrics"], theirs["epoch"])
    assert ours["restarts"] >= KILLS * 3 // 4


def changed_at(file):
    return file.stat().st_mtime_ns if file.is_file() else 0


def number_of_starts(file):
    return json.loads(file.read_text())["starts"] if file.is_file() else 0


def wait_for(condition, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rows(out, column):
    with (out.parent / f"{out.name}.run" / "csv" / "version_0" / "metrics.csv").open() as file:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(file) if row.get(column)]


# Of 17 images the last batch has 5, dealt 3 and 2; of batches of 8, one, at which the other process only looks on.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "more"),
    [(6, ()), (8, ("loss.distance=standardized", "keep_share=1.0")), (8, ("tuning=lora", "tuning.lora_rank=4"))],
)
def test_two_processes_align_as_one_does(command, tmp_path, batch_size, more):
    own = (f"batch_size={batch_size}", "trainer.max_epochs=3", "callbacks.best=null", *more)
    finish(command("one", *own))
    told = finish(command("two", *own, *TWO))
    assert "sync_dist" not in told
    assert "deprecated" not in told
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    for column in ("fit/loss_step", "fit/loss_epoch", "val/recall", "val/cosine"):
        alone, together = rows(one, column), rows(two, column)
        assert [step for step, _ in alone] == [step for step, _ in together], column
        assert [value for _, value in alone] == pytest.approx([value for _, value in together], abs=1e-5), column
    states = [read_alignment(out).state for out in (one, two)]
    for name, value in states[0].items():
        compared = value, states[1][name]
        if name.endswith("in_proj_bias"):  # no output depends on an attention's key bias: Adam enlarges rounding there
            compared = tuple(torch.cat([bias.chunk(3)[0], bias.chunk(3)[2]]) for bias in compared)
        torch.testing.assert_close(*compared, atol=1e-5, rtol=1e-5)
    ours, theirs = results(one), results(two)
    assert ours["metrics"] == pytest.approx(theirs["metrics"], abs=1e-5)


@pytest.mark.slow
def test_a_signal_to_one_of_two_ends_both_at_one_step(command, tmp_path):
    own = (*TWO, "trainer.max_epochs=30")
    finish(command("whole", *own))
    words = command("run", *own)
    process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for((tmp_path / "run.safetensors.run" / "csv" / "version_0").is_dir, process)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 75, told
    assert not (tmp_path / "run.safetensors").exists()
    finish(words)
    assert (tmp_path / "run.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
