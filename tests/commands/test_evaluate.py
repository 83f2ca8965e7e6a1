"""A checkpoint alone is enough to test what it learned, on any split, exactly, and on nothing that it does not fit."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from eventclip import evaluate as command_line
from eventclip.config.composition import CONFIG_DIR, command, register_checkpoint
from eventclip.training.evaluate import config_of_checkpoint, evaluate

JOINT = ("adapter=joint", "adapter.width=16", "adapter.mlp_width=16", "adapter.heads=2")
LORA = ("tuning=lora", "tuning.lora_rank=2", "clip.init_seed=3")
LAST = "checkpoints/last.ckpt"
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SHORT = "trainer.max_epochs=1"


@pytest.fixture
def evaluated(tmp_path):
    """Evaluate a checkpoint in this process; gives the folder of results."""

    def run(checkpoint, *overrides, folder="evaluated"):
        typed = [f"checkpoint={checkpoint}", f"paths.output={tmp_path / folder}", "callbacks.progress=null", *overrides]
        register_checkpoint(config_of_checkpoint(typed))
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            cfg = compose("evaluate", typed)
        evaluate(cfg)
        return tmp_path / folder

    return run


def results(folder):
    return json.loads((folder / "results.json").read_text())


def predictions(folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("overrides", [JOINT, LORA, ("classifier.pooling=max", "classifier.loss=probabilities")])
def test_a_checkpoint_alone_gives_what_its_run_measured(run_experiment, evaluated, overrides):
    run = run_experiment(SHORT, *overrides)
    folder = evaluated(run / LAST)
    assert results(folder)["metrics"] == results(run)["metrics"]
    for key in ("name", "seed", "class_names", "clip", "versions"):
        assert results(folder)[key] == results(run)[key]
    assert results(folder)["data"]["checksums"]["test"] == results(run)["data"]["checksums"]["test"]
    assert results(folder)["selection"] == {"split": None, "tested": "last"}


def test_every_recording_has_a_row_that_fits_the_metrics(run_experiment, evaluated, learnable_root):
    folder = evaluated(run_experiment(SHORT, *JOINT) / LAST)
    rows = predictions(folder)
    assert [row["recording"] for row in rows] == sorted(
        str(path.relative_to(learnable_root)) for path in learnable_root.glob("testing/*/*.npy")
    )
    right = [row["class"] == row["label"] for row in rows]
    assert sum(right) / len(rows) == pytest.approx(results(folder)["metrics"]["test/top1_probabilities"])
    for row in rows:
        listed = {row["label"]: row["probability"]}
        listed |= {row[f"label_{k}"]: row[f"probability_{k}"] for k in (2, 3)}
        assert set(listed) == {"face", "airplane", "yin yang"}
        assert row["class_probability"] == listed[row["class"]]
        assert sum(map(float, listed.values())) == pytest.approx(1, abs=1e-6)
        assert float(row["probability"]) >= float(row["probability_2"]) >= float(row["probability_3"])


def test_batches_and_workers_change_no_digit_of_two_runs(run_experiment, evaluated):
    checkpoint = run_experiment(SHORT, *JOINT) / LAST
    first, second = evaluated(checkpoint, folder="first"), evaluated(checkpoint, folder="second")
    assert (first / "predictions.csv").read_bytes() == (second / "predictions.csv").read_bytes()
    assert results(first)["metrics"] == results(second)["metrics"]
    for number, other in enumerate(
        ("data.evaluation_batch_size=1", "data.evaluation_batch_size=5", "data.num_workers=2")
    ):
        folder = evaluated(checkpoint, other, folder=f"other_{number}")
        for ours, theirs in zip(predictions(first), predictions(folder), strict=True):
            assert (ours["recording"], ours["label"]) == (theirs["recording"], theirs["label"])
            assert float(ours["class_probability"]) == pytest.approx(float(theirs["class_probability"]), abs=1e-5)
        for name, value in results(first)["metrics"].items():
            assert results(folder)["metrics"][name] == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(("split", "folder", "count"), [("training", "training", 18), ("validation", "validation", 6)])
def test_any_split_is_tested_whole(run_experiment, evaluated, split, folder, count):
    output = evaluated(run_experiment(SHORT) / LAST, f"split={split}")
    assert [row["recording"].split("/")[0] for row in predictions(output)] == [folder] * count
    assert results(output)["split"] == split
    assert results(output)["data"]["recordings"] == {"test": count}


def test_a_data_set_with_nothing_but_a_test_folder_is_enough(run_experiment, evaluated, learnable_root, tmp_path):
    run = run_experiment(SHORT)
    shutil.copytree(learnable_root / "testing", tmp_path / "moved" / "testing")
    folder = evaluated(run / LAST, f"data.root={tmp_path / 'moved'}")
    assert results(folder)["metrics"] == results(run)["metrics"]


def test_another_data_set_brings_its_own_constants(run_experiment, evaluated, learnable_root, tmp_path):
    shutil.copytree(learnable_root / "testing", tmp_path / "mine" / "test")
    other = ("data=folder", f"data.root={tmp_path / 'mine'}", "data.sensor_hw=[60,80]", "data.num_workers=0")
    names = "data.class_names={Faces_easy: face, airplanes: airplane}"
    folder = evaluated(run_experiment(SHORT) / LAST, *other, names)
    assert results(folder)["data"]["data_set"] == "FolderDataModule"
    assert len(predictions(folder)) == 12


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["clip.init_seed=9"], "was trained on CLIP .* and this run has"),
        (["data.class_names=[a,b,c]"], "differ first in 'face' and 'a'"),
        (["adapter=identity"], "give the adapter and tuning it was trained with"),
        (["tuning=bias"], "give the adapter and tuning it was trained with"),
        (["split=testing"], "split must be one of training, validation, test, got 'testing'"),
        (["data.root=/nowhere"], "there is no folder /nowhere"),
        (["callbacks.table.top=0"], "callbacks.table.top must be 1 or more"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(run_experiment, evaluated, overrides, message):
    checkpoint = run_experiment(SHORT) / LAST
    with pytest.raises(SystemExit, match=message) as told:
        command(lambda: evaluated(checkpoint, *overrides))()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ([], "checkpoint= is missing"),
        (["checkpoint=nowhere.ckpt"], "there is no checkpoint nowhere.ckpt"),
        (["-m", "checkpoint=a.ckpt,b.ckpt"], "names several checkpoints"),
    ],
)
def test_a_mistake_in_the_command_is_one_sentence(tmp_path, monkeypatch, typed, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate", *typed])
    with pytest.raises(SystemExit, match=message):
        command_line.main()


def test_one_command_gives_the_row_of_robustness(run_data_set, tmp_path, monkeypatch, nimagenet_root):
    run_data_set("fewshot_nimagenet", f"data.root={nimagenet_root}", SHORT)
    checkpoint = tmp_path / "run" / LAST
    monkeypatch.chdir(tmp_path)
    few = [
        "callbacks.progress=null",
        "data.num_workers=0",
        "logger.tensorboard=null",
        "logger.csv=null",
        "callbacks.pictures=null",
    ]
    typed = [f"checkpoint={checkpoint}", "data.variant=1,brightness_7", "hydra.sweep.dir=swept", *few]
    monkeypatch.setattr(sys, "argv", ["evaluate", "-m", *typed])
    command_line.main()
    told = [results(path.parent) for path in sorted(tmp_path.glob("swept/*/results.json"))]
    assert [one["data"]["recordings"] for one in told] == [{"test": 9}, {"test": 9}]
    assert len({one["data"]["checksums"]["test"] for one in told}) == 2
    tested = {
        row["recording"].split("/")[0]
        for path in tmp_path.glob("swept/*/results.json")
        for row in predictions(path.parent)
    }
    assert tested == {"extracted_val_mode_1", "extracted_val_brightness_7"}


@pytest.mark.slow
def test_two_processes_write_each_prediction_once(run_experiment, evaluated, tmp_path):
    checkpoint = run_experiment(SHORT) / LAST
    alone = evaluated(checkpoint, "split=training", folder="alone")
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "data.evaluation_batch_size=4", "hydra.run.dir=together"]
    arguments = [sys.executable, "-m", "eventclip.evaluate", f"checkpoint={checkpoint}", "split=training", *ddp]
    subprocess.run(arguments, cwd=tmp_path, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
    for ours, theirs in zip(predictions(alone), predictions(tmp_path / "together"), strict=True):
        assert ours["recording"] == theirs["recording"]
        assert float(ours["class_probability"]) == pytest.approx(float(theirs["class_probability"]), abs=1e-5)
    for name in ("test/top1_probabilities", "test/top1_logits"):
        assert results(alone)["metrics"][name] == results(tmp_path / "together")["metrics"][name]
