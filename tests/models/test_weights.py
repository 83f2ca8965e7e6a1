"""Whatever file weights come in they are the same weights; files that would run code or do not fit are refused."""

import json
import pickle
import zipfile

import open_clip
import pytest
import safetensors.torch
import torch
from torch import nn

from eventclip.errors import UserError
from eventclip.models.architecture import find_architecture
from eventclip.models.encoder import ClipEncoder
from eventclip.models.weights import read_weight_file


def load(config, path, **options):
    return ClipEncoder(None, str(path), config=config, **options)


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
def test_an_archive_that_asks_for_anything_but_tensors_is_refused(openai_archive, tmp_path):
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


@pytest.mark.parametrize(
    ("name", "quick_gelu"),
    [
        ("weights.pt", True),
        ("weights.pth", True),
        ("weights.safetensors", True),
        ("pytorch_model.bin", False),
        ("open_clip_model.safetensors", False),
        ("epoch_3.pt", False),
    ],
)
def test_files_in_openais_layout_mean_quick_gelu_and_open_clips_own_do_not(
    golden_clip_files, golden_clip, state, tmp_path, name, quick_gelu
):
    config, _ = golden_clip_files
    path = tmp_path / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    elif name == "epoch_3.pt":
        torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    else:
        torch.save(state, path)
    encoder = load(config, path)
    assert encoder.describe()["quick_gelu"] is quick_gelu
    assert encoder.weights_sha256 == golden_clip.weights_sha256
    assert load(config, path, quick_gelu=not quick_gelu).describe()["quick_gelu"] is not quick_gelu


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


def test_weights_that_lack_or_add_something_are_told_by_their_first_name(golden_clip_files, state, tmp_path):
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
    encoder = ClipEncoder("ViT-B-32", tag)
    assert encoder.describe()["quick_gelu"] is quick_gelu
    assert encoder.weights_sha256 == golden_clip.weights_sha256
    assert encoder.describe()["pretrained"] == tag


def test_an_own_architecture_has_no_tags(golden_clip_files):
    with pytest.raises(UserError, match=r"neither a file nor a tag of golden_clip \(its tags: none\)"):
        ClipEncoder("ViT-B-32", "openai", config=golden_clip_files[0])


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ("[]", "describes no CLIP"), ('{"embed_dim": 3}', "lacks vision_cfg, text_cfg")],
)
def test_a_configuration_that_is_none_is_refused(tmp_path, content, message):
    path = tmp_path / "own.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        ClipEncoder(None, config=path)


def test_options_open_clip_does_not_know_are_refused(golden_clip_files, tmp_path):
    options = json.loads(golden_clip_files[0].read_text())
    options["vision_cfg"]["widht"] = 3
    (tmp_path / "own.json").write_text(json.dumps(options))
    with pytest.raises(UserError, match=r"cannot build own.*widht"):
        ClipEncoder(None, config=tmp_path / "own.json")


def test_the_configuration_published_beside_weights_brings_its_mean_and_std(golden_clip_files, tmp_path):
    model = json.loads(golden_clip_files[0].read_text())
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": model, "preprocess_cfg": preprocess}))
    described = ClipEncoder(None, config=path).describe()
    assert (described["mean"], described["std"]) == (preprocess["mean"], preprocess["std"])


def test_names_are_found_in_either_spelling_and_bring_what_their_weights_agree_on():
    assert find_architecture("ViT-B/32", None).name == "ViT-B-32"
    assert find_architecture("ViT-L/14@336px", None).name == "ViT-L-14-336"
    assert find_architecture("RN50", None).preprocess["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert set(find_architecture("ViT-B-16-SigLIP", None).preprocess["mean"]) == {0.5}
    assert find_architecture("ViT-L-14", None).preprocess == {}  # its tags differ


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
