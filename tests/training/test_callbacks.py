"""Counts of a test by hand, the pictures a run leaves, and what results.json says of it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchmetrics.functional.classification import multiclass_calibration_error

from eventclip.errors import UserError
from eventclip.training.callbacks import (
    Confusion,
    Diagnostics,
    bin_confidences,
    count_confusions,
    top_confusions,
)

NAMES = ["cat", "dog", "cow"]


def binned(probabilities, labels, bins):
    confidence, predicted = probabilities.max(dim=1)
    return bin_confidences(confidence, predicted == labels, bins)


def test_confusions_are_counted_by_true_and_predicted_class():
    probabilities = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.5, 0.4], [0.1, 0.8, 0.1]])
    counts = count_confusions(probabilities, torch.tensor([0, 0, 2, 2]))
    assert counts.tolist() == [[1, 1, 0], [0, 0, 0], [0, 2, 0]]


def test_frequent_confusions_come_first_then_the_larger_share():
    counts = np.array([[6, 2, 0], [2, 1, 1], [3, 0, 5]])
    assert top_confusions(counts, NAMES, 3) == [
        Confusion("cow", "cat", 3, 0.375),
        Confusion("dog", "cat", 2, 0.5),
        Confusion("cat", "dog", 2, 0.25),
    ]
    assert top_confusions(np.diag([3, 0, 2]), NAMES, 3) == []


def test_confidences_are_binned_with_the_last_bin_holding_one():
    probabilities = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.75, 0.25], [0.1, 0.9]])
    counts, confidence, right = binned(probabilities, torch.tensor([0, 0, 1, 1]), 4).tolist()
    assert counts == [0, 0, 1, 3]
    assert confidence == [0, 0, 0.5, pytest.approx(2.65)]
    assert right == [0, 0, 1, 2]


def test_the_bins_give_the_calibration_error_that_is_logged():
    draw = torch.Generator().manual_seed(0)
    probabilities = torch.rand(500, 4, generator=draw).softmax(1)
    labels = torch.randint(4, (500,), generator=draw)
    counts, confidence, right = binned(probabilities, labels, 15)
    error = ((right - confidence).abs().sum() / counts.sum()).item()
    assert error == pytest.approx(multiclass_calibration_error(probabilities, labels, 4, n_bins=15).item(), abs=1e-6)


def test_a_run_leaves_pictures_in_both_places_and_confusions(run_experiment):
    folder = run_experiment("callbacks.diagnostics.confusions=2")
    results = json.loads((folder / "results.json").read_text())
    listed = results["top_confusions"]
    wrong = round(12 * (1 - results["metrics"]["test/top1_probabilities"]))
    assert len(listed) <= 2
    assert 0 < sum(confusion["count"] for confusion in listed) <= wrong
    assert all(confusion["share"] == confusion["count"] / 4 for confusion in listed)
    assert {"confusion.png", "calibration.png", "test.png"} <= {path.name for path in (folder / "pictures").iterdir()}
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert {"test/confusion", "test/calibration", "test/predictions"} <= set(events.Tags()["images"])


@pytest.mark.parametrize(("seconds", "steps"), [(60.0, [9]), (0.0, [3, 6, 9])])
def test_validations_are_drawn_now_and_then_and_the_last(run_experiment, monkeypatch, seconds, steps):
    monkeypatch.setattr("eventclip.training.callbacks._SECONDS_BETWEEN_PICTURES", seconds)
    folder = run_experiment("selection=validation", "selection.every_n_epochs=1")
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [picture.step for picture in events.Images("validate/predictions")] == steps
    assert (folder / "pictures" / "validate.png").is_file()


def test_a_run_without_diagnostics_has_no_confusions(run_experiment):
    folder = run_experiment("callbacks.diagnostics=null", "trainer.max_epochs=1")
    assert "top_confusions" not in json.loads((folder / "results.json").read_text())


def test_a_wrong_option_is_told():
    with pytest.raises(UserError, match=r"diagnostics\.bins must be 1 or more .* got 0 and 20"):
        Diagnostics(NAMES, bins=0)


@pytest.mark.slow
def test_two_processes_count_what_one_does(learnable_root, tiny_clip_json, tmp_path):
    said = []
    for trainer in ("cpu", "ddp"):
        overrides = [
            "experiment=fewshot_ncaltech",
            f"data.root={learnable_root}",
            "data.sensor_hw=[60,80]",
            "data.num_workers=0",
            "data.evaluation_batch_size=5",  # 12 recordings: the last batch is not full on either process
            "frames.events_per_frame=200",
            f"clip.config={tiny_clip_json}",
            "clip.arch=null",
            "clip.pretrained=null",
            "adapter=identity",
            f"trainer={trainer}",
            "trainer.accelerator=cpu",
            f"hydra.run.dir={tmp_path / trainer}",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "eventclip.train", *overrides]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        said.append(json.loads((tmp_path / trainer / "results.json").read_text())["top_confusions"])
    assert said[0]
    assert said[0] == said[1]
