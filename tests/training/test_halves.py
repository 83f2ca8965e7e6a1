"""Learned on half of the classes, tested on the other: train, evaluate, go on."""

import json
import shutil

import pytest
import torch
from hydra import compose, initialize_config_dir

from eventclip.config.composition import CONFIG_DIR, register_checkpoint
from eventclip.errors import UserError
from eventclip.training.evaluate import config_of_checkpoint, evaluate

LAST = "checkpoints/last.ckpt"
QUIET = ("logger.tensorboard=null", "callbacks.progress=null")


@pytest.fixture(scope="module")
def root(learnable_root, tmp_path_factory):
    """Five classes, the last two of which look like the first two."""
    folder = tmp_path_factory.mktemp("halves") / "N-Caltech101"
    shutil.copytree(learnable_root, folder)
    for split in ("training", "validation", "testing"):
        for own, other in zip(sorted(path for path in (folder / split).iterdir()), ("yo-yo", "zebra"), strict=False):
            shutil.copytree(own, folder / split / other)
    return folder


@pytest.fixture
def train(run_experiment, root, tmp_path):
    def run(adapter, half, *overrides, folder=None):
        own = (f"data.root={root}", f"adapter={adapter}", f"fewshot.classes={half}", "fewshot.shots=2", *overrides)
        cached = ("features=cached", f"paths.cache={tmp_path / 'cache'}")
        return run_experiment(*own, *cached, *QUIET, folder=folder or f"{adapter}-{half}")

    return run


def results(folder):
    return json.loads((folder / "results.json").read_text())


def learned(folder):
    return torch.load(folder / LAST, weights_only=True)["state_dict"]


@pytest.mark.parametrize("adapter", ["clip_adapter", "prolip", "gda"])
def test_new_classes_are_tested_with_what_base_classes_taught(train, tmp_path, adapter):
    base, new = train(adapter, "base"), train(adapter, "new")
    assert (results(base)["class_names"][:1], len(results(base)["class_names"])) == (["face"], 3)
    assert results(new)["class_names"] == ["yo-yo", "zebra"]
    assert results(new)["data"]["recordings"] == {"training": 6, "test": 8}
    assert all(torch.equal(value, learned(new)[name]) for name, value in learned(base).items())
    confused = json.loads((new / "results.json").read_text()).get("confusions", [])
    assert {one["true"] for one in confused} <= {"yo-yo", "zebra"}
    typed = [f"checkpoint={new / LAST}", f"paths.output={tmp_path / 'again'}", *QUIET]
    register_checkpoint(config_of_checkpoint(typed))
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        evaluate(compose("evaluate", typed))
    assert results(tmp_path / "again")["metrics"] == results(new)["metrics"]
    assert results(tmp_path / "again")["class_names"] == ["yo-yo", "zebra"]
    train(adapter, "new")
    assert results(new)["resumed"] is True


def test_zero_shot_of_a_half_is_zero_shot_of_those_classes(train):
    halves = {half: results(train("identity", half)) for half in ("base", "new")}
    chosen = results(train("identity", "all", "data.classes=[yo-yo,zebra]"))
    assert halves["new"]["metrics"] == chosen["metrics"]
    assert halves["base"]["data"]["recordings"] == {"test": 12}


@pytest.mark.parametrize("adapter", ["text", "joint", "probe"])
def test_an_adapter_that_learned_its_classes_cannot(train, adapter):
    with pytest.raises(UserError, match=r"fewshot\.classes=new tests classes that were not learned, .* adapter=prolip"):
        train(adapter, "new")
