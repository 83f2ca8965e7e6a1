"""An adapter that is fitted in one go trains, goes on, tests and predicts as those do that learn by steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from eventclip import EventCLIP, load_classifier
from eventclip.adapters.gaussian import PrototypeAdapter
from eventclip.adapters.support import SupportAdapter
from eventclip.config.composition import CONFIG_DIR, command, register_checkpoint
from eventclip.datasets.recordings import Recordings
from eventclip.errors import UserError
from eventclip.features.cache import FeatureDataset
from eventclip.models.building import build
from eventclip.training.evaluate import config_of_checkpoint, evaluate
from eventclip.training.module import LitEventClassifier
from eventclip.training.support import gather

LAST = "checkpoints/last.ckpt"
SMALL = dict.fromkeys(("visual", "joint"), ("adapter.width=16", "adapter.mlp_width=16", "adapter.heads=2"))
BY_STEPS = ("text", "visual", "joint", "task_residual", "clip_adapter")
FITTED = sorted({path.stem for path in (Path(CONFIG_DIR) / "adapter").glob("*.yaml")} - {*BY_STEPS, "identity"})
QUIET = ("logger.tensorboard=null", "callbacks.pictures=null", "callbacks.diagnostics=null")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def train(run_experiment, cache):
    """Train an adapter on cached features; gives the run's folder."""

    def run(adapter, *overrides, folder="run"):
        own = (f"adapter={adapter}", "features=cached", f"paths.cache={cache}", "fewshot.shots=5", *QUIET)
        return run_experiment(*own, *SMALL.get(adapter, ()), *overrides, folder=folder)

    return run


def results(folder):
    return json.loads((folder / "results.json").read_text())


def learned(folder):
    return torch.load(folder / LAST, weights_only=True)["state_dict"]


def assert_same(folder, other):
    ours, theirs = learned(folder), learned(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert results(folder)["metrics"] == results(other)["metrics"]


def evaluated(checkpoint, folder):
    typed = [f"checkpoint={checkpoint}", f"paths.output={folder}", "callbacks.progress=null", *QUIET]
    register_checkpoint(config_of_checkpoint(typed))
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("evaluate", typed)
    evaluate(cfg)
    return results(folder)


@pytest.mark.parametrize("adapter", [*BY_STEPS, *FITTED])
def test_every_adapter_trains_is_kept_and_used_alike(train, learnable_root, tmp_path, adapter):
    run = train(adapter)
    found = results(run)
    again = evaluated(run / LAST, tmp_path / "again")
    assert again["metrics"] == found["metrics"]
    assert again.get("adapter") == found.get("adapter")
    assert again["settings"].keys() >= {key for key in found["settings"] if key.startswith(("adapter.", "fewshot."))}
    model = EventCLIP.from_checkpoint(run / LAST, device="cpu")
    paths = sorted((learnable_root / "testing").rglob("*.npy"))
    folders = sorted({path.parent.name for path in paths})
    told = model.classify([str(path) for path in paths], sensor_hw=(60, 80))
    right = [
        model.class_names.index(one.label) == folders.index(path.parent.name)
        for one, path in zip(told, paths, strict=True)
    ]
    assert np.mean(right) == pytest.approx(found["metrics"]["test/top1_probabilities"])
    kept = learned(run)
    train(adapter)
    assert results(run)["resumed"] is True
    assert results(run)["metrics"] == found["metrics"]
    assert all(torch.equal(kept[name], value) for name, value in learned(run).items())


@pytest.mark.parametrize("adapter", ["visual", "clip_adapter", "prolip", "gda"])
def test_other_names_can_be_given_where_text_did_not_learn(train, learnable_root, adapter):
    checkpoint = train(adapter) / LAST
    paths = [str(path) for path in sorted((learnable_root / "testing").rglob("*.npy"))]
    own = EventCLIP.from_checkpoint(checkpoint, device="cpu")
    names = [*reversed(own.class_names), "zebra"]
    other = EventCLIP.from_checkpoint(checkpoint, classes=names, device="cpu")
    assert other.class_names == tuple(names)
    for ours, theirs in zip(*(model.classify(paths, sensor_hw=(60, 80)) for model in (own, other)), strict=True):
        known = theirs.probabilities[:-1] / theirs.probabilities[:-1].sum()
        if len(ours.views) == 1:  # the mean over views of probabilities is not that of their ratios
            np.testing.assert_allclose(known[::-1], ours.probabilities, rtol=1e-4)
        assert theirs.probabilities[-1] > 0


@pytest.mark.parametrize("adapter", ["text", "probe"])
def test_other_names_are_refused_where_classes_were_learned(train, adapter):
    with pytest.raises(UserError, match="to which its own classes alone mean anything: leave classes out, or train"):
        load_classifier(train(adapter) / LAST, classes=["zebra", "panda"])


@pytest.mark.parametrize("adapter", FITTED)
def test_a_fit_that_was_killed_before_its_test_is_gone_on_with(train, monkeypatch, adapter):
    whole = train(adapter, folder="whole")
    with monkeypatch.context() as killing:
        killing.setattr(LitEventClassifier, "test_step", lambda *_: (_ for _ in ()).throw(SystemExit(9)))
        with pytest.raises(SystemExit):
            train(adapter, folder="killed")
    kind = type(load_classifier(whole / LAST)[0].adapter)
    monkeypatch.setattr(kind, "fit_support", lambda *_, **__: pytest.fail("what was fitted is fitted again"))
    killed = train(adapter, folder="killed")
    assert_same(killed, whole)
    assert results(killed)["adapter"] == results(whole)["adapter"]
    assert (results(killed)["resumed"], results(killed)["restarts"]) == (True, 1)


@pytest.fixture
def seen(monkeypatch):
    """What adapters were fitted from, fit after fit."""
    fits, fit = [], PrototypeAdapter.fit_support

    def noting(self, features, valid, labels, *, validation=None, seed=0):
        fits.append({"features": features, "valid": valid, "labels": labels, "validation": validation, "seed": seed})
        fit(self, features, valid, labels, validation=validation, seed=seed)

    monkeypatch.setattr(PrototypeAdapter, "fit_support", noting)
    return fits


def test_all_copies_of_all_recordings_are_fitted_to_once(train, seen):
    train("prototype", "features.copies=4", "trainer.max_epochs=1", "seed=3")
    (fit,) = seen
    assert fit["features"].shape[:3] == (15, 4, 2)
    assert fit["valid"].all()
    assert fit["labels"].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert (fit["validation"], fit["seed"]) == (None, 3)
    assert len({tuple(copy.flatten().tolist()) for copy in fit["features"].flatten(0, 1)}) == 60  # augmented, each


def test_validation_is_handed_over_where_it_decides(train, seen):
    run = train("prototype", "adapter.weights=validation", "selection=validation")
    features, valid, labels = seen[0]["validation"]
    assert features.shape[:2] == (6, 1)
    assert valid.shape == features.shape[:3]
    assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]
    assert results(run)["adapter"]["weights"] == "validation"
    assert results(run)["validation"] is not None
    assert results(run)["data"]["recordings"]["validation"] == 6


def test_the_optimizer_has_no_part_and_none_is_told(train):
    plain = train("prototype", folder="plain")
    odd = ("optim.lr=9", "trainer.max_epochs=1", "data.batch_size=7", "+trainer.limit_train_batches=1")
    other = train("prototype", *odd, f"resume={plain / LAST}", folder="other")
    fresh = train("prototype", *odd, folder="fresh")
    assert_same(other, plain)
    assert_same(fresh, plain)
    assert results(other)["resumed"] is True
    for run in (plain, other, fresh):
        assert not [key for key in results(run)["settings"] if key.startswith(("optim", "trainer.max", "data.batch"))]
    assert results(plain)["settings"] == results(fresh)["settings"]


def test_one_line_says_what_was_fitted(train, caplog):
    caplog.set_level("INFO", "eventclip")
    train("prototype", "adapter.weights=support", "fewshot.shots=1")
    (line,) = [record.getMessage() for record in caplog.records if "fitted to" in record.getMessage()]
    assert line.startswith("PrototypeAdapter fitted to 3 recordings in 10 copies: weights=fixed (asked for: support), ")
    assert line.endswith(" s)")


def test_a_fit_to_other_recordings_is_not_gone_on_with(train):
    train("prototype")
    with pytest.raises(UserError, match="was fitted to other recordings than this run has"):
        train("prototype", "fewshot.shots=2")
    with pytest.raises(UserError, match=r"adapter\.text_shots=1.0 and this run has 2, .*resume=null"):
        train("prototype", "adapter.text_shots=2")
    fresh = train("prototype", "fewshot.shots=2", "resume=null")
    assert results(fresh)["data"]["recordings"]["training"] == 6


def test_numbers_that_are_not_finite_are_kept_nowhere(train, monkeypatch, tmp_path):
    def fit(self, *_, **__):
        self.weight = self.weight * float("nan")

    monkeypatch.setattr(PrototypeAdapter, "fit_support", fit)
    with pytest.raises(UserError, match="was fitted to weight that are no finite numbers"):
        train("prototype")
    assert not (tmp_path / "run" / LAST).exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("features=live",), "is fitted from the feature cache, and features=live keeps none: give features=cached"),
        (("tuning=lora",), "tuning=lora trains the image tower step by step, .* give tuning=frozen, or adapter=text"),
        (("adapter.weights=validation",), "give selection=validation, or adapter.weights=support"),
        (("adapter.weights=validation", "selection=test"), "on the validation split, and this run looks at none"),
        (("data.classes=[yin_yang]",), "has one class, 'yin yang': give a data set of two or more"),
        (("fewshot.split_file=PATH",), "class 'airplanes' has none of the 2 training recordings"),
    ],
)
def test_a_mistake_is_one_sentence(train, tmp_path, overrides, message):
    pairs = [["training/Faces_easy/Faces_easy_0.npy", 0], ["training/yin_yang/yin_yang_0.npy", 2]]
    (tmp_path / "split.json").write_text(json.dumps({"recordings": pairs}))
    typed = [one.replace("PATH", str(tmp_path / "split.json")) for one in overrides]
    with pytest.raises(SystemExit, match=message) as told:
        command(lambda: train("prototype", *typed))()
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run" / "starts.json").exists()


def test_features_are_gathered_in_order_and_padded():
    rows = [np.full((views, 4), 10 * copy + i, np.float32) for copy in range(2) for i, views in enumerate((1, 3, 2))]
    paths = np.array([b"a/0.npy", b"b/0.npy", b"b/1.npy"])
    recordings = Recordings(Path("/data"), paths, np.array([0, 1, 1]), ("a", "b"))
    support = gather(FeatureDataset(recordings, rows, copies=2))
    assert support.labels.tolist() == [0, 1, 1]
    assert support.valid.sum(dim=-1).tolist() == [[1, 1], [3, 3], [2, 2]]
    assert support.features.shape == (3, 2, 3, 4)
    for i in range(3):
        for copy in range(2):
            valid = support.valid[i, copy]
            assert (support.features[i, copy][valid] == 10 * copy + i).all()
            assert (support.features[i, copy][~valid] == 0).all()


def test_more_features_than_memory_are_told(monkeypatch):
    monkeypatch.setattr("eventclip.training.support._OF_MEMORY", 1e-12)
    recordings = Recordings(Path("/data"), np.array([b"a/0.npy"]), np.array([0]), ("a",))
    with pytest.raises(UserError, match=r"1 recordings in 1 copies of 2 views take .* GB and this machine has"):
        gather(FeatureDataset(recordings, [np.zeros((2, 4), np.float32)], copies=1))


def test_what_ships_as_fitted_is_a_support_adapter(compose_experiment):
    for name in FITTED:
        kind = build(compose_experiment(f"adapter={name}").adapter, "adapter").func
        assert issubclass(kind, SupportAdapter)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("adapter.key_labels", lambda value: value + 7),  # no classes
        ("adapter.key_labels", lambda value: value[:-1]),
        ("adapter.key_labels", torch.Tensor.float),
        ("adapter.keys", lambda value: value[:, :-1]),
        ("adapter.keys", lambda value: value[0, 0]),
        ("adapter.keys", lambda value: value[:2]),
        ("adapter.is_fitted", torch.Tensor.float),
    ],
)
def test_fitted_tensors_that_do_not_fit_each_other_are_told(train, tmp_path, name, damage):
    checkpoint = torch.load(train("tip") / LAST, weights_only=True)
    checkpoint["state_dict"][name] = damage(checkpoint["state_dict"][name]).clone()
    torch.save(checkpoint, tmp_path / "odd.ckpt")
    with pytest.raises(UserError, match=r"odd\.ckpt") as told:
        load_classifier(tmp_path / "odd.ckpt")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("fitted", [3, {"alpha": [1.0]}, {"alpha": None}])
def test_a_fit_that_is_told_in_odd_values_is_refused(train, tmp_path, fitted):
    checkpoint = torch.load(train("prototype") / LAST, weights_only=True)
    checkpoint["eventclip"]["fitted"] = fitted
    torch.save(checkpoint, tmp_path / "odd.ckpt")
    with pytest.raises(UserError, match=r"odd\.ckpt is damaged: fitted in its metadata is"):
        load_classifier(tmp_path / "odd.ckpt")
