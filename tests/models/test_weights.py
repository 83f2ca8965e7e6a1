"""Whatever file weights come in they are the same weights; files that would run code or do not fit are refused."""

import hashlib
import json
import os
import pickle
import zipfile

import open_clip
import pytest
import safetensors.torch
import torch
from torch import nn

from eventclip.adapters.paper import IdentityAdapter
from eventclip.errors import UserError
from eventclip.models.architecture import find_architecture
from eventclip.models.checkpoint import load_reference_checkpoint
from eventclip.models.classifier import EventClassifier
from eventclip.models.factory import load_clip
from eventclip.models.weights import find_weight_file, needs_quick_gelu, read_weight_file


def load(config, path, **options):
    return load_clip(None, str(path), config=config, **options)


@pytest.fixture
def state(golden_clip_files):
    return torch.load(golden_clip_files[1], weights_only=True)


@pytest.fixture(scope="session")
def openai_archive(golden_clip_files, tmp_path_factory):
    """The golden weights as the kind of file OpenAI publishes: a TorchScript archive in half precision."""

    class Holder(nn.Module):
        def forward(self, x):
            return x

    root = Holder()
    weights = torch.load(golden_clip_files[1], weights_only=True)
    weights |= {"input_resolution": torch.tensor(64), "context_length": torch.tensor(77)}
    for name, value in weights.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if parent not in dict(module.named_children()):
                module.add_module(parent, Holder())
            module = module.get_submodule(parent)
        if value.is_floating_point():
            module.register_parameter(leaf, nn.Parameter(value.half()))
        else:
            module.register_buffer(leaf, value)
    path = tmp_path_factory.mktemp("archive") / "ViT-tiny.pt"
    torch.jit.trace(root, torch.zeros(1)).save(path)
    return path


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_the_archive_openai_publishes_is_read_without_running_it(openai_archive, golden_clip_files, state, tmp_path):
    config, _ = golden_clip_files
    encoder = load(config, openai_archive)
    assert encoder.describe()["quick_gelu"]
    torch.save({name: value.half() for name, value in state.items()}, tmp_path / "plain.pt")
    assert encoder.weights_sha256 == load(config, tmp_path / "plain.pt").weights_sha256
    assert torch.equal(encoder.visual.conv1.weight, state["visual.conv1.weight"].half().float())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_an_archive_of_more_than_tensors_is_refused(openai_archive, tmp_path):
    marker, evil = tmp_path / "ran", tmp_path / "evil.pt"

    class Attack:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    with zipfile.ZipFile(openai_archive) as archive, zipfile.ZipFile(evil, "w") as copy:
        for name in archive.namelist():
            content = pickle.dumps(Attack()) if name.endswith("/data.pkl") else archive.read(name)
            copy.writestr(name, content)
    with pytest.raises(UserError, match="which is no tensor"):
        read_weight_file(evil)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_a_truncated_archive_is_refused(openai_archive, tmp_path):
    whole = openai_archive.read_bytes()
    for name, content in (("cut.pt", whole[: len(whole) // 2]), ("headless.pt", whole[5000:])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} cannot be read as weights"):
            read_weight_file(tmp_path / name)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"visual.conv1.weight": Attack()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match=r"evil\.pt cannot be read as weights"):
        read_weight_file(tmp_path / "evil.pt")
    assert not marker.exists()


@pytest.fixture
def silent(golden_clip_files, tmp_path):
    """The golden architecture without a word on its activation."""
    options = json.loads(golden_clip_files[0].read_text())
    del options["quick_gelu"]
    (tmp_path / "silent.json").write_text(json.dumps(options))
    return tmp_path / "silent.json"


NAMES = ("weights.pt", "weights.pth", "pytorch_model.bin", "vit_b_32.safetensors", "open_clip_model.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_a_files_name_decides_nothing_and_who_knows_is_asked(silent, golden_clip, state, tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    with pytest.raises(
        UserError, match=r"does not tell .*give clip\.quick_gelu=true or clip\.quick_gelu=false"
    ) as told:
        load(silent, path)
    assert "\n" not in str(told.value)
    for quick_gelu in (True, False):
        encoder = load(silent, path, quick_gelu=quick_gelu)
        assert encoder.describe()["quick_gelu"] is quick_gelu
        assert encoder.weights_sha256 == golden_clip.weights_sha256


@pytest.mark.parametrize("told", [True, False, None])
def test_a_published_configuration_tells_the_activation(silent, state, tmp_path, told):
    torch.save(state, tmp_path / "x.bin")
    model = json.loads(silent.read_text()) | ({} if told is None else {"quick_gelu": told})
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    assert load(silent, tmp_path / "x.bin").describe()["quick_gelu"] is bool(told)
    model["vision_cfg"]["width"] += 64
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    with pytest.raises(UserError, match="does not tell"):
        load(silent, tmp_path / "x.bin")


def test_a_published_file_is_known_by_its_checksum(tmp_path, monkeypatch):
    path = tmp_path / "renamed.pt"
    path.write_bytes(b"as published")
    start = hashlib.sha256(b"as published").hexdigest()[:8]
    address = f"https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights/vit_b_32-x-{start}.pt"
    for quick_gelu in (True, False):
        published = {"url": address, "quick_gelu": quick_gelu}
        monkeypatch.setattr("open_clip.get_pretrained_cfg", lambda arch, tag, published=published: published)
        assert needs_quick_gelu(path, find_architecture("ViT-B-32", None), {}) is quick_gelu
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match="does not tell"):
        needs_quick_gelu(path, find_architecture("ViT-B-32", None), {})


def test_an_architecture_of_one_kind_needs_no_word(tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(b"x")
    assert needs_quick_gelu(path, find_architecture("ViT-B-32-quickgelu", None), {}) is True
    assert needs_quick_gelu(path, find_architecture("ViT-B-16-SigLIP", None), {}) is False


def test_the_tiny_clip_states_its_activation():
    from eventclip.models.factory import clip_options

    assert load_clip(**clip_options("tiny")).describe()["quick_gelu"] is True


@pytest.mark.parametrize(
    ("wrapper", "prefix"),
    [("state_dict", "module."), ("model", ""), ("model_state_dict", "model."), (None, "_orig_mod."), (None, "model."),
     ("state_dict", "module._orig_mod.")],
)  # fmt: skip
def test_what_other_programs_wrap_weights_in_is_taken_off(golden_clip_files, state, tmp_path, wrapper, prefix):
    renamed = {f"{prefix}{name}": value for name, value in state.items()}
    torch.save(renamed if wrapper is None else {wrapper: renamed, "epoch": 3}, tmp_path / "x.pt")
    assert read_weight_file(tmp_path / "x.pt").keys() == state.keys()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(golden_clip_files, state, tmp_path, value):
    state["visual.proj"].view(-1)[7] = value
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"visual\.proj holds values that are not finite"):
        load(golden_clip_files[0], tmp_path / "x.pt")


def test_logits_that_are_not_finite_are_no_answer(golden_clip):
    classifier = EventClassifier(golden_clip, IdentityAdapter(torch.eye(2, 32), 100.0))
    features, valid = torch.ones(3, 2, 32), torch.ones(3, 2, dtype=torch.bool)
    features[1, 0, 5] = float("nan")
    with torch.no_grad():
        with pytest.raises(UserError, match="the logits of 1 of 3 recordings are not finite"):
            classifier(features=features, valid=valid)
        valid[1, 0] = False  # what is no view may hold anything
        assert classifier(features=features, valid=valid).probabilities.isfinite().all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "is a git-lfs pointer"),
        (b"<!DOCTYPE html><html>login</html>", "is a web page"),
        (b"", "is empty"),
        (None, "is a folder"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
def test_a_file_of_another_kind_is_called_what_it_is(golden_clip_files, tmp_path, suffix, content, message):
    path = tmp_path / f"x{suffix}"
    path.mkdir() if content is None else path.write_bytes(content)
    for read in (lambda: load(golden_clip_files[0], path), lambda: load_reference_checkpoint(path)):
        with pytest.raises(UserError, match=message) as told:
            read()
        assert "weights_only" not in str(told.value)
        assert "\n" not in str(told.value)


def sentence(read, path):
    """What is said of a file, nothing if it is read; any other error passes."""
    try:
        read(path)
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_damaged_weights_end_in_a_sentence(openai_archive, golden_clip_files, state, tmp_path):
    import random

    safetensors.torch.save_file(state, tmp_path / "whole.safetensors")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    chance, refused = random.Random(0), 0
    for source in (openai_archive, golden_clip_files[1], tmp_path / "whole.safetensors", tmp_path / "old.pt"):
        whole = source.read_bytes()
        for number in range(25):
            content = bytearray(whole)
            for _ in range(chance.randrange(1, 30)):
                content[chance.choice([chance.randrange(len(content)), chance.randrange(4000), -1])] = chance.randrange(
                    256
                )
            content = content[: chance.randrange(len(content))] if number % 5 == 0 else content
            path = tmp_path / f"x{source.suffix}"
            path.write_bytes(content)
            for read in (read_weight_file, load_reference_checkpoint):
                told = sentence(read, path)
                assert "\n" not in told
                assert "weights_only" not in told
                refused += bool(told)
    assert refused > 100


def test_an_architectures_own_word_on_quick_gelu_holds(golden_clip_files, tmp_path):
    config, weights = golden_clip_files
    stated = tmp_path / "stated.json"
    stated.write_text(json.dumps(json.loads(config.read_text()) | {"quick_gelu": False}))
    assert not load(stated, weights).describe()["quick_gelu"]


def test_quick_gelu_changes_the_features(golden_clip_files, golden_clip):
    config, weights = golden_clip_files
    views = torch.zeros(1, 1, 64, 64, dtype=torch.uint8)
    other = load(config, weights, quick_gelu=False)
    assert not torch.allclose(other.encode_views(views), golden_clip.encode_views(views), rtol=1e-3)


def test_weights_that_lack_something_name_the_first(golden_clip_files, state, tmp_path):
    config, _ = golden_clip_files
    path = tmp_path / "broken.pt"
    torch.save({k: v for k, v in state.items() if k != "visual.proj"} | {"extra": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"1 missing \(first: visual.proj\), 1 unknown \(first: extra\)") as caught:
        load(config, path)
    assert str(path) in str(caught.value)
    assert "golden_clip" in str(caught.value)
    torch.save(state | {"visual.proj": torch.zeros(64, 16)}, path)
    with pytest.raises(UserError, match=r"visual\.proj is \(64, 16\), expected \(64, 32\)"):
        load(config, path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_no_weight_file_is_refused(golden_clip_files, tmp_path, suffix):
    path = tmp_path / f"noise{suffix}"
    path.write_bytes(b"\x00\x01 not weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load(golden_clip_files[0], path)
    if suffix == ".pt":
        torch.save([1, 2, 3], path)
        with pytest.raises(UserError, match="holds no state dict"):
            load(golden_clip_files[0], path)


@pytest.mark.parametrize(("tag", "quick_gelu"), [("openai", True), ("laion2b_e16", False)])
def test_a_tag_brings_its_own_activation(golden_clip_files, golden_clip, monkeypatch, tag, quick_gelu):
    config, weights = golden_clip_files
    monkeypatch.setattr("open_clip.get_model_config", lambda name: json.loads(config.read_text()))
    monkeypatch.setattr("open_clip.download_pretrained", lambda published, cache_dir: str(weights))
    encoder = load_clip("ViT-B-32", tag)
    assert encoder.describe()["quick_gelu"] is quick_gelu
    assert encoder.weights_sha256 == golden_clip.weights_sha256
    assert encoder.describe()["pretrained"] == tag


def test_an_own_architecture_has_no_tags(golden_clip_files):
    with pytest.raises(UserError, match=r"neither a file nor a tag of golden_clip \(its tags: none\)"):
        load_clip("ViT-B-32", "openai", config=golden_clip_files[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 2000, "is not JSON"),
        ("[]", "describes no CLIP"),
        ('{"embed_dim": 3}', "lacks vision_cfg, text_cfg"),
        ('{"embed_dim": 3, "vision_cfg": {}, "text_cfg": 4}', "text_cfg=4, expected a mapping"),
        ('{"embed_dim": "3", "vision_cfg": {}, "text_cfg": {}}', "embed_dim='3', expected a whole number"),
        ('{"embed_dim": 8, "vision_cfg": {"layers": 1e9}, "text_cfg": {}}', "layers=.*expected at most 512"),
        (
            '{"embed_dim": 8, "vision_cfg": {"image_size": 4, "patch_size": 8}, "text_cfg": {}}',
            "image_size=4, expected patch_size=8 or more",
        ),
        ('{"embed_dim": 8, "vision_cfg": {"width": "a"}, "text_cfg": {}}', "cannot build own"),
        ('{"embed_dim": 8, "vision_cfg": {"patch_size": 0}, "text_cfg": {}}', "cannot build own"),
        ('{"embed_dim": 8, "vision_cfg": {"image_size": {}}, "text_cfg": {}}', "cannot build own"),
        ('{"embed_dim": 8, "vision_cfg": {}, "text_cfg": {}, "quick_gelu": "no"}', "quick_gelu='no'"),
        (
            '{"embed_dim": 8, "vision_cfg": {}, "text_cfg": {"tokenizer_kwargs": {"trust_remote_code": true}}}',
            "trust_remote_code, which could run code",
        ),
        (" " * 2**21, "more than 1,048,576 bytes"),
    ],
)
def test_a_configuration_that_is_none_is_refused(tmp_path, content, message):
    path = tmp_path / "own.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as told:
        load_clip(None, config=path)
    assert "\n" not in str(told.value)


def test_a_configuration_that_is_no_file_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "fifo.json")
    for path, message in ((tmp_path / "fifo.json", "is a pipe and no file"), (tmp_path, "is a folder and no file")):
        with pytest.raises(UserError, match=message):
            load_clip(None, config=path)
    with pytest.raises(UserError, match="no regular file"):
        find_weight_file("ViT-B-32", str(tmp_path / "fifo.json"))


def test_options_open_clip_does_not_know_are_refused(golden_clip_files, tmp_path):
    options = json.loads(golden_clip_files[0].read_text())
    options["vision_cfg"]["widht"] = 3
    (tmp_path / "own.json").write_text(json.dumps(options))
    with pytest.raises(UserError, match=r"cannot build own.*widht"):
        load_clip(None, config=tmp_path / "own.json")


def test_a_published_configuration_brings_mean_and_std(golden_clip_files, tmp_path):
    model = json.loads(golden_clip_files[0].read_text())
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    described = load_clip(None, config=path).describe()
    assert (described["mean"], described["std"]) == (preprocess["mean"], preprocess["std"])


def test_names_are_found_in_either_spelling():
    assert find_architecture("ViT-B/32", None).name == "ViT-B-32"
    assert find_architecture("ViT-L/14@336px", None).name == "ViT-L-14-336"
    assert find_architecture("RN50", None).preprocess["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert set(find_architecture("ViT-B-16-SigLIP", None).preprocess["mean"]) == {0.5}
    assert find_architecture("ViT-L-14", None).preprocess == {}  # its tags differ


@pytest.mark.shared
def test_an_open_clip_file_with_a_timm_tower_loads(shared):
    folder = shared / "models" / "liteclip"
    encoder = load(folder / "liteclip.json", folder / "liteclip.safetensors")
    described = encoder.describe()
    assert (described["arch"], described["quick_gelu"], encoder.width, encoder.image_size) == (
        "liteclip",
        False,
        256,
        224,
    )
    assert encoder.logit_scale == pytest.approx(27.07, abs=0.01)
    features = encoder.encode_text(["a photo of a cat", "a photo of a kitten", "a photo of a suspension bridge"])
    assert features[0] @ features[1] > features[0] @ features[2]
