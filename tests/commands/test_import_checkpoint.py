"""A checkpoint of the published implementation becomes one of ours with the same logits."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from eventclip import import_checkpoint
from eventclip.config.composition import CONFIG_DIR, register_checkpoint
from eventclip.training.evaluate import config_of_checkpoint, load

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SMALL = ("adapter.width=64", "adapter.heads=2", "adapter.mlp_width=128")


@pytest.fixture
def imported(golden, golden_clip_files, tmp_path, monkeypatch):
    """Type the command for a checkpoint of the golden CLIP, then build the classifier from what it wrote."""
    names = [name.lower().replace("_", " ") for name in golden[1]["class_names"]]
    for label in range(len(names)):
        (tmp_path / "data" / "testing" / str(label)).mkdir(parents=True)
        (tmp_path / "data" / "testing" / str(label) / "x.npy").touch()
    config, weights = golden_clip_files

    def run(reference, *overrides):
        clip = ("clip.arch=null", f"clip.config={config}", f"clip.pretrained={weights}")
        data = (f"data.root={tmp_path / 'data'}", f"data.class_names=[{','.join(names)}]")
        typed = [str(reference), "experiment=fewshot_ncaltech", *data, *clip, "out=x.ckpt"]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["import_checkpoint", *typed, *overrides])
        import_checkpoint.main()
        arguments = ["checkpoint=x.ckpt", f"paths.output={tmp_path}"]
        register_checkpoint(config_of_checkpoint(arguments))
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            cfg = compose("evaluate", arguments)
        return load(cfg, Path("x.ckpt"))[0].classifier.eval()

    return run


def assert_close(ours, expected):
    np.testing.assert_allclose(ours.detach(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def assert_golden(classifier, golden, golden_batch, kind):
    features, valid = golden_batch[:2]
    prediction = classifier(features=features, valid=valid)
    for ours, name in ((prediction.logits, "logits"), (prediction.probabilities, "probs")):
        assert_close(ours, golden[0][f"fs_{kind}_mean_logits/{name}"])


def test_a_text_adapters_checkpoint_is_golden_and_alone(imported, golden, golden_batch, tmp_path):
    classifier = imported(GOLDEN / "reference_text-identity.pth", "adapter=text")
    assert_golden(classifier, golden, golden_batch, "text-identity")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "x.ckpt"}


@pytest.mark.parametrize(("kind", "adapter"), [("trans", "visual"), ("text-trans", "joint")])
def test_a_transformers_checkpoint_is_golden(golden_folder, imported, golden, golden_batch, kind, adapter):
    classifier = imported(golden_folder / f"reference_{kind}.pth", f"adapter={adapter}", *SMALL)
    assert_golden(classifier, golden, golden_batch, kind)


def test_a_lora_checkpoint_is_golden(imported, golden, golden_batch, tmp_path):
    stored, key = np.load(GOLDEN / "lora.npz"), "lora_qkvo_4/"
    state = {n.removeprefix(key): torch.from_numpy(stored[n]) for n in stored.files if n.startswith(f"{key}model.")}
    torch.save({"state_dict": state | {"text_feats": golden_batch[3]}}, tmp_path / "lora.pth")
    classifier = imported(tmp_path / "lora.pth", "adapter=text", "tuning=lora", "tuning.lora_rank=4")
    valid = golden_batch[1]
    features = torch.zeros(*valid.shape, classifier.encoder.width)
    features[valid] = classifier.encoder.encode_pixels(torch.from_numpy(golden[0]["images"]).float()[valid]).detach()
    assert_close(classifier(features=features, valid=valid).logits, stored[f"{key}logits"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adapter=joint"], "the checkpoint lacks .* give the adapter and tuning it was trained with"),
        (["out=x.pth"], "out=x.pth must end in .ckpt"),
        (["reference=/nowhere.pth"], "/nowhere.pth cannot be read"),
        (["data.root=/nowhere"], "there is no folder /nowhere"),
    ],
)
def test_a_mistake_is_one_sentence(imported, tmp_path, overrides, message):
    with pytest.raises(SystemExit, match=message) as told:
        imported(GOLDEN / "reference_text-identity.pth", *overrides)
    assert "\n" not in str(told.value)
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_missing_path_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for typed, message in (([], "reference= is missing"), (["x.pth"], "out= is missing")):
        monkeypatch.setattr(sys, "argv", ["import_checkpoint", *typed])
        with pytest.raises(SystemExit, match=message):
            import_checkpoint.main()
    assert not list(tmp_path.iterdir())
