"""A checkpoint's metadata are whole, of this version and of the right kinds, or one sentence says what it is not."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from eventclip import EventCLIP, load_classifier
from eventclip.errors import UserError
from eventclip.models.checkpoint import _TARGETS_OF_1, read_checkpoint
from eventclip.models.trust import SHIPPED

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="module")
def made(tmp_path_factory, learnable_root, tiny_clip_json):
    """A checkpoint as eventclip writes it, untrained."""
    from hydra import compose, initialize_config_dir

    from eventclip.config.composition import CONFIG_DIR, register_schema
    from eventclip.training.experiment import assemble

    register_schema()
    overrides = [
        "experiment=fewshot_ncaltech", f"data.root={learnable_root}", "data.sensor_hw=[60,80]", "adapter=joint",
        "adapter.width=16", "adapter.heads=2", f"clip.config={tiny_clip_json}", "clip.arch=null",
        "clip.pretrained=null", "data.num_workers=0", f"paths.output={tmp_path_factory.mktemp('made')}",
    ]  # fmt: skip
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        parts = assemble(compose("train", overrides))
    return {"state_dict": parts.classifier.learned_state_dict(), "eventclip": parts.metadata}


@pytest.fixture
def refused(made, tmp_path):
    """What is said of the checkpoint once a value at a dotted place in it is another, or None is there."""

    def told(place, value):
        changed = copy.deepcopy(made)
        *above, last = place.split("/")
        node = changed
        for key in above:
            node = node[key]
        if value is REMOVED:
            del node[last]
        else:
            node[last] = value
        torch.save(changed, tmp_path / "a.ckpt")
        sentences = []
        for door in (read_checkpoint, EventCLIP.from_checkpoint):
            with pytest.raises(UserError) as raised:
                door(tmp_path / "a.ckpt")
            sentences.append(str(raised.value))
        assert "\n" not in sentences[0]
        assert str(tmp_path / "a.ckpt") in sentences[0]
        assert sentences[0] == sentences[1]
        return sentences[0]

    return told


REMOVED = object()
CONFIG = "eventclip/config"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("eventclip", None, "its metadata are a NoneType"),
        ("eventclip", "words", "its metadata are a str"),
        ("eventclip", [1], "its metadata are a list"),
        ("eventclip/format", REMOVED, "metadata of format None"),
        (
            "eventclip/format",
            3,
            "metadata of format 3, written by eventclip .* reads formats 1 and 2: use the version that wrote",
        ),
        ("eventclip/format", True, "metadata of format True"),
        ("eventclip/format", torch.ones(2), "metadata of format"),
        (CONFIG, REMOVED, "lack config.name"),
        (CONFIG, None, "lack config.name"),
        (CONFIG, [], "lack config.name"),
        ("eventclip/clip", REMOVED, "lack clip.weights_sha256"),
        ("eventclip/clip/weights_sha256", None, "clip.weights_sha256 in its metadata is None"),
        ("eventclip/data", None, "lack data.checksums"),
        ("eventclip/class_names", REMOVED, "lack class_names"),
        ("eventclip/class_names", "face", "class_names in its metadata is face, a str"),
        ("eventclip/class_names", [], "class_names in its metadata holds nothing"),
        ("eventclip/class_names", [1, 2, 3], "class_names in its metadata holds 1"),
        ("eventclip/class_names", ["face", None, "x"], "class_names in its metadata holds None"),
        (f"{CONFIG}/views", REMOVED, "lack config.views.evaluation_views"),
        (f"{CONFIG}/data", REMOVED, "lack config.data.p95_events"),
        (f"{CONFIG}/clip", None, "config.clip in its metadata is None"),
        (f"{CONFIG}/adapter", "text", "config.adapter in its metadata is text, a str"),
        (f"{CONFIG}/tuning", [], "lack config.tuning.parts"),
        (f"{CONFIG}/classifier/prompts", "a {}", "config.classifier.prompts in its metadata is a {}, a str"),
        (f"{CONFIG}/classifier/prompts", [3], "config.classifier.prompts in its metadata holds 3"),
        (f"{CONFIG}/seed", 10**30, "config.seed in its metadata is 1000"),
        (f"{CONFIG}/seed", -1, "config.seed in its metadata is -1"),
        (f"{CONFIG}/seed", "0", "config.seed in its metadata is 0, a str"),
        (f"{CONFIG}/seed", True, "config.seed in its metadata is True, a bool"),
        (f"{CONFIG}/data/root", torch.zeros(1), "holds a Tensor at config.data.root"),
        (f"{CONFIG}/data/root", {1, 2}, "holds a set at config.data.root"),
        ("state_dict", REMOVED, "lacks state_dict"),
        ("state_dict", None, "lacks state_dict"),
        ("state_dict", {"adapter.text_features": 3}, "adapter.text_features is no tensor"),
        ("state_dict", {3: torch.zeros(1)}, "lacks state_dict"),
        ("state_dict/adapter.text_features", torch.full((3, 32), float("nan")), "not finite"),
        ("state_dict/adapter.text_features", torch.full((3, 32), float("inf")), "not finite"),
        ("state_dict/adapter.text_features", torch.zeros(3, 32, dtype=torch.int64), r"is of torch\.int64"),
        ("state_dict/adapter.text_features", torch.zeros(1).expand(10**12), "more than are stored"),
        ("state_dict/adapter.text_features", torch.zeros(3, 32).to_sparse(), "is no plain tensor"),
    ],
)
def test_damaged_metadata_are_told_in_one_sentence(refused, place, value, message):
    import re

    assert re.search(message, refused(place, value))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (f"{CONFIG}/adapter/width", "wide"),
        (f"{CONFIG}/adapter/width", None),
        (f"{CONFIG}/adapter/heads", 0),
        (f"{CONFIG}/adapter/dropout", [0.1]),
        (f"{CONFIG}/frames/color", 3),
        (f"{CONFIG}/frames/events_per_frame", 0),
        (f"{CONFIG}/data/sensor_hw", "wide"),
        (f"{CONFIG}/data/sensor_hw", [1]),
        (f"{CONFIG}/views/resize_mode", "squash"),
        (f"{CONFIG}/views/evaluation_views", 0),
        (f"{CONFIG}/tuning/parts", [1, 2]),
        (f"{CONFIG}/clip/config", 5),
        (f"{CONFIG}/clip/mean", "red"),
        (f"{CONFIG}/clip/precision", []),
        (f"{CONFIG}/clip/init_seed", 10**30),
        (f"{CONFIG}/clip/init_seed", "???"),
        (f"{CONFIG}/classifier/pooling", "median"),
    ],
)
def test_a_value_no_part_can_be_built_with_is_one_sentence(made, tmp_path, place, value):
    changed = copy.deepcopy(made)
    *above, last = place.split("/")
    node = changed
    for key in above:
        node = node[key]
    node[last] = value
    torch.save(changed, tmp_path / "a.ckpt")
    with pytest.raises(UserError) as told:
        EventCLIP.from_checkpoint(tmp_path / "a.ckpt")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "is a git-lfs pointer"),
        (b"\n<!DOCTYPE html><html></html>", "is a web page"),
        (b"", "is empty"),
        (b"PK\x03\x04 and nothing more", "is damaged"),
        (b"\x80\x02]q\x00.", "is damaged"),
        (None, "is a folder"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path, content, message):
    path = tmp_path / "a.ckpt"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"{message}.*expected a .ckpt file that eventclip.train wrote") as told:
        read_checkpoint(path)
    assert "weights_only" not in str(told.value)


def test_weights_are_no_checkpoint_and_a_flipped_bit_is_seen(made, tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save(made["state_dict"], path)
    with pytest.raises(UserError, match=r"was not written by eventclip\.train"):
        read_checkpoint(path)
    torch.save(made, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        read_checkpoint(path)


def test_an_archive_that_would_unfold_too_far_is_refused(made, tmp_path):
    import zipfile

    torch.save(made, tmp_path / "a.ckpt")
    bomb = tmp_path / "bomb.ckpt"
    with (
        zipfile.ZipFile(tmp_path / "a.ckpt") as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, bytes(10**6) if "/data/" in name else source.read(name))
    with pytest.raises(UserError, match="claim more bytes than it has"):
        read_checkpoint(bomb)


OF_VERSION_1 = GOLDEN / "checkpoint_v0_1.ckpt"  # text adapter on the tiny CLIP, two shots of three classes, 60x80 px


def test_a_checkpoint_of_version_0_1_classifies_as_it_did():
    model = EventCLIP.from_checkpoint(OF_VERSION_1, device="cpu")
    numbers = np.arange(400)
    events = np.stack([numbers % 80, numbers % 60, numbers / 1e4, numbers % 2], axis=1).astype(np.float32)
    found = model.classify(events, sensor_hw=(60, 80))
    assert found.class_names == ("face", "airplane", "yin yang")
    np.testing.assert_allclose(found.probabilities, [0.31941730, 0.42545801, 0.25512469], atol=1e-5)
    config = read_checkpoint(OF_VERSION_1)["eventclip"]["config"]
    assert (config["data"]["p95_events"], config["fewshot"]["sampling"]) == (600, "seeded")
    assert not {"percentile_events", "holdout"} & set(config["data"])


def test_names_of_version_0_1_lead_to_what_ships():
    shipped = {target for targets in SHIPPED.values() for target in targets}
    assert set(_TARGETS_OF_1.values()) <= shipped
    assert not set(_TARGETS_OF_1) & shipped


@pytest.mark.parametrize("target", ["shutil.copyfile", "eventclip.data.ncaltech101.Path.touch", "mine.Adapter"])
def test_version_0_1_opens_no_other_door(tmp_path, target):
    checkpoint = torch.load(OF_VERSION_1, weights_only=True)
    for section in ("adapter", "data", "clip", "optim"):
        changed = copy.deepcopy(checkpoint)
        changed["eventclip"]["config"][section]["further"] = {"_target_": target}
        torch.save(changed, tmp_path / "a.ckpt")
        with pytest.raises(UserError, match=f"asks for {target}, which is no part of eventclip"):
            read_checkpoint(tmp_path / "a.ckpt")


def test_an_old_name_in_another_place_is_refused(tmp_path):
    checkpoint = torch.load(OF_VERSION_1, weights_only=True)
    checkpoint["eventclip"]["config"]["adapter"]["_target_"] = "eventclip.models.encoder.ClipEncoder"
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="belongs at adapter"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.long
def test_the_one_door_gives_classifier_and_metadata():
    classifier, metadata = load_classifier(OF_VERSION_1)
    assert not classifier.training
    assert metadata["class_names"] == ["face", "airplane", "yin yang"]
    assert metadata["clip"]["weights_sha256"] == classifier.encoder.weights_sha256
    with pytest.raises(UserError, match="give the same CLIP"):
        load_classifier(OF_VERSION_1, clip={"arch": "RN50", "config": None, "pretrained": None})
