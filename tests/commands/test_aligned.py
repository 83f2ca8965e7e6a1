"""``clip.aligned`` in every command: trained on, evaluated, predicted with, and missed where the file has gone."""

import csv
import json
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from eventclip import EventCLIP
from eventclip.config.composition import CONFIG_DIR, PseudoLabelConfig, command, register_checkpoint, register_schema
from eventclip.errors import UserError
from eventclip.models.alignment import aligned_state, read_alignment, write_alignment
from eventclip.models.checkpoint import load_classifier, read_checkpoint
from eventclip.models.factory import TINY, load_clip
from eventclip.models.tuning import tune
from eventclip.training.evaluate import config_of_checkpoint, evaluate

LAST = "checkpoints/last.ckpt"
SHORT = ("trainer.max_epochs=1", "logger.tensorboard=null", "callbacks.pictures=null")


def align(path, options, *, by=0.2):
    """Write an alignment of a CLIP whose biases moved."""
    encoder = load_clip(**options)
    tune(encoder, "bias")
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    path.parent.mkdir(exist_ok=True)
    write_alignment(path, encoder, aligned_state(encoder.visual), tuning={"parts": "bias"}, made={})
    return path


@pytest.fixture
def aligned(tmp_path, tiny_clip_json):
    """An alignment of the untrained CLIP that experiments use here."""
    return align(tmp_path / "a" / "aligned.safetensors", {"arch": None, "config": tiny_clip_json})


def write_recording(path, sensor, count=9000):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, sensor[1], count), rng.integers(0, sensor[0], count)
    np.save(path, np.stack([x, y, np.arange(count) / 9e4, np.ones(count)], axis=1).astype(np.float32))


def evaluated(checkpoint, *overrides, folder):
    typed = [f"checkpoint={checkpoint}", f"paths.output={folder}", "callbacks.progress=null", *overrides]
    register_checkpoint(config_of_checkpoint(typed))
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("evaluate", typed)
    evaluate(cfg)
    return results(folder)


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("features", ["live", "cached"])
def test_training_and_testing_see_the_aligned_clip(run_experiment, aligned, tmp_path, features):
    own = (*SHORT, f"features={features}", f"paths.cache={tmp_path / 'cache'}")
    plain = results(run_experiment(*own, folder="plain"))
    run = run_experiment(*own, f"clip.aligned={aligned}", folder="aligned")
    told = results(run)
    assert told["clip"]["aligned_sha256"] == read_alignment(aligned).sha256
    assert told["clip"]["weights_sha256"] != plain["clip"]["weights_sha256"]
    assert told["settings"]["clip.aligned"] == aligned.name
    assert told["metrics"] != plain["metrics"]
    again = evaluated(run / LAST, folder=tmp_path / "evaluated")
    assert again["metrics"] == pytest.approx(told["metrics"])
    assert again["clip"] == told["clip"]
    if features == "cached":
        assert len(list((tmp_path / "cache").rglob("cache.json"))) == 4  # two splits of two towers


def test_a_checkpoint_finds_its_alignment_where_it_has_moved(run_experiment, aligned, tmp_path, capsys):
    run = run_experiment(*SHORT, f"clip.aligned={aligned}")
    moved = aligned.rename(tmp_path / "moved.safetensors")
    sentence = r"aligned by .*aligned\.safetensors, which is not there.*clip=\{'aligned': FILE\} in Python"
    with pytest.raises(UserError, match=sentence):
        EventCLIP.from_checkpoint(run / LAST)
    classifier, _ = load_classifier(run / LAST, clip={"aligned": moved})
    assert classifier.encoder.describe()["aligned"] == str(moved)
    told = evaluated(run / LAST, f"clip.aligned={moved}", folder=tmp_path / "evaluated")
    assert told["metrics"] == pytest.approx(results(run)["metrics"])
    for typed in (("predict", "recordings=x.npy"), ("show", "recording=x.npy"), ("export", "out=exported")):
        write_recording(tmp_path / "x.npy", (60, 80))
        told = run_command(tmp_path, *typed, f"checkpoint={run / LAST}", f"+clip.aligned={moved}")
        assert told is None
    assert "is no part of it" in capsys.readouterr().out
    assert "clip.aligned=gone does not exist" in run_command(
        tmp_path, "export", "out=other", f"checkpoint={run / LAST}", "+clip.aligned=gone"
    )


def run_command(folder, name, *typed):
    """Type a command; gives the sentence that it ends with, if any."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(sys, "argv", ["eventclip", *map(str, typed)])
        try:
            import_module(f"eventclip.{name}").main()
        except SystemExit as ended:
            return str(ended.code) if ended.code else None
    return None


def test_a_checkpoint_without_its_alignment_is_refused(run_experiment, aligned, tmp_path, tiny_clip_json):
    run = run_experiment(*SHORT, f"clip.aligned={aligned}")
    plain = run_experiment(*SHORT, folder="plain")
    other = align(tmp_path / "other.safetensors", {"arch": None, "config": tiny_clip_json}, by=0.3)
    for checkpoint, override, message in (
        (run, "clip.aligned=null", r"aligned by .*, with that file by clip\.aligned=FILE"),
        (run, f"clip.aligned={other}", r", with that file by clip\.aligned=FILE"),
        (plain, f"clip.aligned={aligned}", r"give the same CLIP without clip\.aligned"),
    ):
        with pytest.raises(SystemExit, match=message) as told:
            command(lambda c=checkpoint, o=override: evaluated(c / LAST, o, folder=tmp_path / "evaluated"))()
        assert "\n" not in str(told.value)


def test_words_are_told_to_the_aligned_clip(tmp_path, capsys):
    path = align(tmp_path / "aligned.safetensors", {"arch": "tiny"})
    write_recording(tmp_path / "x.npy", (128, 128))
    words = ("recordings=x.npy", "classes=[star,anchor]", "sensor_hw=[128,128]", "clip=tiny", "device=cpu")
    assert run_command(tmp_path, "predict", *words, "out=plain.csv") is None
    assert run_command(tmp_path, "predict", *words, f"clip.aligned={path}", "out=aligned.csv") is None
    found = [
        next(csv.DictReader((tmp_path / name).read_text().splitlines()))["probability"]
        for name in ("plain.csv", "aligned.csv")
    ]
    model = EventCLIP.zero_shot(["star", "anchor"], clip={"arch": "tiny", "aligned": path}, device="cpu")
    expected = model.classify(tmp_path / "x.npy", sensor_hw=(128, 128)).probability
    assert float(found[1]) == pytest.approx(expected, abs=2e-6)
    assert found[0] != found[1]
    capsys.readouterr()
    told = run_command(tmp_path, "predict", *words, "clip.aligned=gone.safetensors")
    assert told == "eventclip: clip.aligned=gone.safetensors does not exist: give the file that eventclip align wrote"


def test_what_travels_with_the_package_is_found_on_any_machine(run_experiment, aligned, tmp_path, monkeypatch):
    run = run_experiment(*SHORT, f"clip.aligned={aligned}")
    checkpoint = torch.load(run / LAST, weights_only=True)
    checkpoint["eventclip"]["config"]["clip"]["aligned"] = "/elsewhere/eventclip/assets/tiny_clip/aligned.safetensors"
    torch.save(checkpoint, tmp_path / "copied.ckpt")
    here = tmp_path / TINY.name
    here.mkdir()
    aligned.rename(here / "aligned.safetensors")
    monkeypatch.setattr("eventclip.models.checkpoint.TINY", here)
    classifier, _ = load_classifier(tmp_path / "copied.ckpt")
    assert classifier.encoder.describe()["aligned"] == str(here / "aligned.safetensors")


def test_an_aligned_teacher_labels(run_experiment, aligned, tmp_path, learnable_root, tiny_clip_json):
    from eventclip.training.pseudo_label import label

    teacher = run_experiment(*SHORT, f"clip.aligned={aligned}")
    moved = aligned.rename(tmp_path / "moved.safetensors")
    small = (
        *("experiment=demo_pseudo", "data=ncaltech101", f"data.root={learnable_root}", "data.sensor_hw=[60,80]"),
        *("frames.events_per_frame=200", "data.p95_events=600", "data.num_workers=0", "clip.arch=null"),
        *(f"clip.config={tiny_clip_json}", "clip.pretrained=null", "pseudo.threshold=0.1", "pseudo.progress=false"),
        *(f"checkpoint={teacher / LAST}", f"clip.aligned={moved}", f"out={tmp_path / 'pseudo.json'}"),
    )
    register_schema(PseudoLabelConfig)
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("pseudo_label", list(small))
    label(cfg)
    head = json.loads((tmp_path / "pseudo.json").read_text())
    assert read_alignment(moved).sha256 in json.dumps(head)
    assert read_checkpoint(teacher / LAST)["eventclip"]["clip"]["aligned_sha256"] == read_alignment(moved).sha256
