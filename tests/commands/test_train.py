"""What people type: the whole command from argv to results.json, and one sentence for each mistake."""

import json
import os
import subprocess
import sys

import pytest

from eventclip.config.composition import command


@pytest.fixture
def train(learnable_root, tmp_path):
    """Run ``python -m eventclip.train`` in an empty folder with small settings and the CLIP that is shipped."""

    def run(*overrides):
        small = [
            "experiment=fewshot_ncaltech",
            f"data.root={learnable_root}",
            "data.sensor_hw=[60,80]",
            "frames.events_per_frame=200",
            "data.p95_events=600",
            "data.augmentation.max_shift=3",
            "clip=tiny",
            "fewshot.shots=5",
            "data.batch_size=5",
            "optim.lr=0.05",
            "trainer.max_epochs=8",
            "data.num_workers=1",
            "hydra.run.dir=run",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-m", "eventclip.train", *small, *overrides],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    return run


def test_a_run_leaves_everything_design_promises_and_learns(train, tmp_path):
    done = train("selection=validation")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run"
    results = json.loads((folder / "results.json").read_text())
    assert results["metrics"]["test/top1_probabilities"] >= 0.75  # chance is a third
    assert results["validation"] is not None
    assert results["data"]["recordings"] == {"training": 15, "test": 12, "validation": 6}
    assert len(results["clip"]["weights_sha256"]) == 64
    assert {"seed", "versions", "seconds", "class_names", "selection"} <= results.keys()
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", ".hydra/config.yaml", "pictures/test.png"):
        assert (folder / name).is_file(), name
    assert list(folder.glob("tensorboard/events.out.tfevents.*"))
    assert "fit/loss" in (folder / "csv" / "version_0" / "metrics.csv").read_text()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.root=/nowhere"], "there is no folder /nowhere: expected /nowhere/testing/<class>/<recording>"),
        (["data.sensor_hw=[40,80]"], "lies outside the sensor of 40 rows"),
        (["fewshot.shots=50", "fewshot.repeat=false"], "too few for 50 shots"),
        (["clip.config=null", "clip.arch=ViT-B-99"], "ViT-B-99"),
        (["data.root=???"], "data.root is missing: give the data set's folder"),
        (["+data.shotz=1"], "data (NCaltech101DataModule) cannot be built: .* argument 'shotz'"),
        (["data._target_=eventclip.events.frames.FrameRenderer"], "data .* cannot be built"),
        (["adapter=joint", "adapter.heads=3"], "heads must divide"),
        (["classifier.pooling=median"], "mean, sum, max"),
        (["classifier.loss=hinge"], "logits, probabilities"),
        (["resume=/nowhere/last.ckpt"], "there is no checkpoint /nowhere/last.ckpt"),
        (["fewshot.split_file=/nowhere.json"], "/nowhere.json"),
    ],
)
def test_a_mistake_is_one_sentence(run_experiment, overrides, message):
    with pytest.raises(SystemExit, match=message.replace("(", r"\(").replace(")", r"\)")) as told:
        command(lambda: run_experiment(*overrides))()
    assert "\n" not in str(told.value)


def test_a_mistake_found_by_a_worker_has_no_traceback(train):
    done = train("data.sensor_hw=[40,80]")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("eventclip: ")]
    assert len(told) == 1
    assert "lies outside the sensor of 40 rows" in told[0]


def test_an_unknown_choice_lists_the_choices(train):
    done = train("adapter=txet")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "joint" in done.stderr
