"""Sentences of a class's own go from a file into the checkpoint, and from there to every command."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from eventclip import EventCLIP, load_classifier
from eventclip.config.checking import check_config
from eventclip.config.composition import CONFIG_DIR, register_checkpoint
from eventclip.errors import UserError
from eventclip.models.checkpoint import read_checkpoint
from eventclip.training.evaluate import config_of_checkpoint, evaluate

LAST = "checkpoints/last.ckpt"
QUIET = ("logger.tensorboard=null", "callbacks.pictures=null", "callbacks.diagnostics=null")
SENTENCES = {
    "face": ["eyes, a nose: and a mouth", "somebody looks at you"],
    "airplane": ["two wings and a tail"],
    "yin yang": ["a circle, half black", "two drops.in one", "an old sign"],
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sentences.yaml"
    path.write_text(json.dumps(SENTENCES))  # JSON is YAML, too
    return path


@pytest.fixture
def train(run_experiment, file, tmp_path):
    def run(*overrides, folder="run"):
        own = ("features=cached", f"paths.cache={tmp_path}/cache", f"classifier.prompts_file={file}")
        return run_experiment(*own, *QUIET, *overrides, folder=folder)

    return run


def results(folder):
    return json.loads((folder / "results.json").read_text())


def evaluated(checkpoint, folder, *overrides):
    typed = [f"checkpoint={checkpoint}", f"paths.output={folder}", "callbacks.progress=null", *QUIET, *overrides]
    register_checkpoint(config_of_checkpoint(typed))
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("evaluate", typed)
    check_config(cfg, "evaluate")
    evaluate(cfg)
    return results(folder)


@pytest.mark.parametrize(
    "adapter", [("gda", "adapter.prompt_weighting=timo", "adapter.prompt_samples=true"), ("text",)], ids=["gda", "text"]
)
def test_a_checkpoint_needs_its_file_no_more(train, file, learnable_root, tmp_path, adapter):
    run = train(f"adapter={adapter[0]}", *adapter[1:])
    file.unlink()
    card = read_checkpoint(run / LAST)["eventclip"]["config"]["classifier"]["prompts_file"]
    assert card == SENTENCES
    assert evaluated(run / LAST, tmp_path / "again")["metrics"] == results(run)["metrics"]
    recording = min((learnable_root / "testing/airplanes").glob("*.npy"))
    classifier, _ = load_classifier(run / LAST)
    found = EventCLIP.from_checkpoint(run / LAST, device="cpu").classify(recording, sensor_hw=(60, 80))
    assert found.label in SENTENCES
    assert "prompt_features" not in "".join(classifier.learned_state_dict())


def test_other_words_need_sentences_of_their_own(train, tmp_path):
    run = train("adapter=clip_adapter", "trainer.max_epochs=1")
    words = ["airplane", "cup"]
    with pytest.raises(UserError, match="has none of 'cup': give prompts_file=FILE"):
        EventCLIP.from_checkpoint(run / LAST, classes=words)
    with pytest.raises(UserError, match="leave it out, or give classes as well"):
        EventCLIP.from_checkpoint(run / LAST, prompts_file=SENTENCES)
    for known in (words[:1], ["AIRPLANE", "face"]):
        load_classifier(run / LAST, classes=known)
    told = {"airplane": SENTENCES["airplane"], "cup": ["it holds tea"]}
    classifier, _ = load_classifier(run / LAST, classes=words, prompts_file=told)
    own, _ = load_classifier(run / LAST)
    assert torch.allclose(classifier.adapter.text_features[0], own.adapter.text_features[1], atol=1e-6)
    fitted = train("adapter=probe", folder="probe")
    with pytest.raises(UserError, match="learned with LinearProbeAdapter"):
        load_classifier(fitted / LAST, classes=words)


def test_classes_learned_and_tested_apart_are_both_kept(train, learnable_root, file, tmp_path):
    root = shutil.copytree(learnable_root, tmp_path / "four")
    for split in ("training", "validation", "testing"):
        shutil.copytree(root / split / "airplanes", root / split / "anchor")
    four = {**SENTENCES, "anchor": ["it holds a ship"]}
    file.write_text(json.dumps(four))
    run = train("adapter=clip_adapter", "trainer.max_epochs=1", "fewshot.classes=new", f"data.root={root}")
    file.unlink()
    assert read_checkpoint(run / LAST)["eventclip"]["config"]["classifier"]["prompts_file"] == four
    assert evaluated(run / LAST, tmp_path / "again")["metrics"]


def test_results_name_thousands_of_sentences_in_one_setting(train, file):
    settings = results(train("adapter=gda"))["settings"]
    (key,) = [key for key in settings if "prompts_file" in key]
    assert key == "classifier.prompts_file"
    told = settings[key]
    assert len(told) == 16
    file.write_text(json.dumps({**SENTENCES, "airplane": ["it flies"]}))
    assert results(train("adapter=gda", folder="other"))["settings"][key] != told


def test_sentences_change_what_the_text_is(train):
    with_file = load_classifier(train("adapter=gda") / LAST)[0].adapter.text_features
    without = load_classifier(train("adapter=gda", "classifier.prompts_file=null", folder="plain") / LAST)[0]
    assert not torch.allclose(with_file, without.adapter.text_features, atol=1e-3)


def test_training_goes_on_with_the_same_sentences_only(train, file, run_experiment):
    run = train("adapter=text", "trainer.max_epochs=1")
    train("adapter=text", "trainer.max_epochs=1", f"resume={run / LAST}", folder="on")
    file.write_text(json.dumps({**SENTENCES, "airplane": ["it flies"]}))
    with pytest.raises(UserError, match=r"other sentences in classifier\.prompts_file than this run has"):
        train("adapter=text", "trainer.max_epochs=1", f"resume={run / LAST}", folder="off")


def test_a_class_that_the_file_lacks_is_told_before_training(train, file):
    file.write_text(json.dumps({"airplane": ["x"], "faces": ["y"], "yin yang": ["z"]}))
    with pytest.raises(UserError, match="no sentences of class 'face': its faces is close"):
        train("adapter=gda")


@pytest.mark.parametrize(
    ("value", "message"),
    [(3, "holds a int"), ({"airplane": "x"}, "expected a list"), ({"airplane": ["a {}"]}, "means nothing")],
)
def test_odd_sentences_in_a_checkpoint_are_told(train, tmp_path, value, message):
    checkpoint = torch.load(train("adapter=gda") / LAST, weights_only=True)
    checkpoint["eventclip"]["config"]["classifier"]["prompts_file"] = value
    torch.save(checkpoint, tmp_path / "odd.ckpt")
    with pytest.raises(UserError) as raised:
        read_checkpoint(tmp_path / "odd.ckpt")
    assert message in str(raised.value)
    assert str(Path(tmp_path / "odd.ckpt")) in str(raised.value)
