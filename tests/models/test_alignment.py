"""An alignment written, read and applied is the tower that learned; every other file is refused in one sentence."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.utils import parametrize

from eventclip.errors import UserError
from eventclip.models.alignment import (
    Alignment,
    aligned_state,
    apply_alignment,
    read_alignment,
    write_alignment,
)
from eventclip.models.factory import load_clip
from eventclip.models.tuning import tune

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
VISION = {
    "vit": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None},
    "timm": {"timm_model_name": "efficientnet_lite0", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64},
}
CHOICES = [
    *[("vit", choice) for choice in ("full", "layernorm", "bias", "projection", "class_token", "qv", "qkvo", "all")],
    *[("resnet", choice) for choice in ("full", "bias", "projection", "batchnorm", "qv", "qkvo", "all")],
    *[("timm", choice) for choice in ("full", "batchnorm", "projection", "all")],
]
LORA = ("qv", "qkv", "qkvo", "all")
MADE = {"seed": 0, "images": 3, "recall": 0.5}


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Arguments of load_clip for a small CLIP of each kind of tower."""
    folder = tmp_path_factory.mktemp("towers")
    for name, vision in VISION.items():
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}))
    return {name: {"arch": None, "config": folder / f"{name}.json"} for name in VISION}


def views_of(encoder, count=3):
    side = encoder.image_size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=generator)


def features_of(encoder):
    with torch.no_grad():
        return encoder.encode_views(views_of(encoder))


def learn(encoder, choice, *, statistics=False, seed=1):
    """Let parts of a tower learn something, and give what did."""
    lora = choice in LORA
    tune(encoder, "lora" if lora else choice, lora_targets=choice if lora else "qkvo", lora_rank=3)
    generator = torch.Generator().manual_seed(seed)
    names = [name for name, _ in encoder.visual.named_buffers() if name.endswith(("running_mean", "running_var"))]
    names = names if statistics else []
    with torch.no_grad():
        for parameter in encoder.visual.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        for name in names:
            encoder.visual.get_buffer(name).mul_(1.1).add_(0.05)
    return aligned_state(encoder.visual, buffers=names)


def written(path, encoder, state, **changes):
    tuning = {"parts": "lora", "lora_targets": "qkvo", "lora_rank": 3}
    write_alignment(path, encoder, state, **{"tuning": tuning, "made": MADE, **changes})
    return path


@pytest.mark.long
@pytest.mark.parametrize(("tower", "choice"), CHOICES)
def test_written_and_applied_it_is_the_tower_that_learned(options, tower, choice, tmp_path):
    encoder = load_clip(**options[tower])
    before = features_of(encoder)
    state = learn(encoder, choice, statistics=choice == "batchnorm")
    aligned = load_clip(**options[tower], aligned=written(tmp_path / "a.safetensors", encoder, state))
    assert torch.equal(features_of(aligned), features_of(encoder))
    assert not torch.allclose(features_of(aligned), before)
    plain = load_clip(**options[tower])
    assert list(aligned.state_dict()) == list(plain.state_dict())
    assert [p.stride() for p in aligned.parameters()] == [p.stride() for p in plain.parameters()]
    assert not any(parametrize.is_parametrized(module) for module in aligned.modules())
    assert not any(parameter.requires_grad for parameter in aligned.parameters())
    assert torch.equal(aligned.encode_text(["a star"]), plain.encode_text(["a star"]))


def test_what_is_written_comes_back(options, tmp_path):
    encoder = load_clip(**options["vit"])
    checksum, state = encoder.weights_sha256, learn(encoder, "qkvo")
    tuning = {"parts": ["bias", "layernorm"], "lora_targets": "qkvo", "lora_rank": 3}
    path = written(tmp_path / "a.safetensors", encoder, state, tuning=tuning)
    found = read_alignment(path)
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[name], value) for name, value in state.items())
    assert found.clip == {"arch": "vit", "pretrained": None, "weights_sha256": checksum, "quick_gelu": False}
    assert (found.tuning, found.made) == (tuning, MADE)
    again = written(tmp_path / "b.safetensors", encoder, dict(reversed(state.items())), tuning=tuning)
    assert path.read_bytes() == again.read_bytes()
    with safe_open(path, framework="pt") as file:
        assert set(file.metadata()) == {"eventclip"}
        head = json.loads(file.metadata()["eventclip"])
    assert (head["format"], head["kind"], head["sha256"]) == (1, "alignment", found.sha256)


def test_no_path_of_the_machine_that_wrote_it_is_in_the_file(golden_clip_files, golden_clip, tmp_path):
    config, weights = golden_clip_files
    path = written(tmp_path / "a.safetensors", golden_clip, learn(golden_clip, "bias"))
    assert read_alignment(path).clip["pretrained"] == weights.name
    assert str(weights.parent).encode() not in path.read_bytes()
    aligned = load_clip(None, str(weights), config=config, aligned=path)
    assert torch.equal(features_of(aligned), features_of(golden_clip))


def test_an_aligned_clip_is_one_of_its_own(options, tmp_path):
    encoder = load_clip(**options["resnet"])
    plain = load_clip(**options["resnet"])
    path = written(tmp_path / "a.safetensors", encoder, learn(encoder, "batchnorm"))
    aligned = load_clip(**options["resnet"], aligned=path)
    assert "aligned" not in plain.describe()
    told = aligned.describe()
    assert (told["aligned"], told["aligned_sha256"]) == (str(path), read_alignment(path).sha256)
    assert told["weights_sha256"] == aligned.weights_sha256 != plain.weights_sha256
    ours, theirs = aligned.describe_image_tower(), plain.describe_image_tower()
    assert {key for key in ours if ours[key] != theirs[key]} == {"weights_sha256"}
    assert ours == load_clip(**options["resnet"], aligned=path).describe_image_tower()


def test_half_the_bytes_hold_nearly_the_same(options, tmp_path):
    encoder = load_clip(**options["vit"])
    state = learn(encoder, "full")
    exact = written(tmp_path / "exact.safetensors", encoder, state)
    half = written(tmp_path / "half.safetensors", encoder, state, dtype="fp16")
    assert half.stat().st_size < 0.55 * exact.stat().st_size
    features = features_of(load_clip(**options["vit"], aligned=half))
    torch.testing.assert_close(features, features_of(encoder), rtol=5e-3, atol=5e-3)
    assert all(value.dtype is torch.float32 for value in read_alignment(half).state.values())


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_an_aligned_tower_can_be_kept_in_half_precision(options, tmp_path, precision):
    encoder = load_clip(**options["vit"])
    path = written(tmp_path / "a.safetensors", encoder, learn(encoder, "qkvo"))
    exact = load_clip(**options["vit"], aligned=path)
    half = load_clip(**options["vit"], aligned=path, precision=precision)
    assert half.weights_sha256 == exact.weights_sha256
    torch.testing.assert_close(features_of(half), features_of(exact), rtol=0.1, atol=0.05)


def test_statistics_that_were_not_told_to_learn_stay(options):
    encoder = load_clip(**options["resnet"])
    state = learn(encoder, "batchnorm")
    assert not any("running" in name for name in state)
    tuned = learn(load_clip(**options["resnet"]), "batchnorm", statistics=True)
    assert {name for name in tuned if "running" in name} == tuned.keys() - state.keys() != set()
    with pytest.raises(ValueError, match="has no buffer bn9"):
        aligned_state(encoder.visual, buffers=["bn9.running_mean"])


def test_another_clip_is_refused_with_both_checksums(options, tmp_path):
    encoder = load_clip(**options["vit"])
    path = written(tmp_path / "a.safetensors", encoder, learn(encoder, "bias"))
    other = load_clip(**options["vit"], init_seed=1)
    with pytest.raises(UserError) as caught:
        load_clip(**options["vit"], init_seed=1, aligned=path)
    assert f"made for CLIP vit (sha256 {encoder.weights_sha256[:12]})" in str(caught.value)
    assert f"this one is vit (sha256 {other.weights_sha256[:12]})" in str(caught.value)
    with pytest.raises(UserError, match=r"with GELU and this one has QuickGELU: set clip\.quick_gelu=false"):
        load_clip(**options["vit"], quick_gelu=True, aligned=path)


def test_what_is_aligned_already_is_not_written_again(options, tmp_path):
    encoder = load_clip(**options["vit"])
    path = written(tmp_path / "a.safetensors", encoder, learn(encoder, "bias"))
    aligned = load_clip(**options["vit"], aligned=path)
    with pytest.raises(UserError, match=r"leave out clip\.aligned"):
        written(tmp_path / "b.safetensors", aligned, learn(aligned, "bias"))


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (torch.tensor([float("nan")]), "fp32", "diverged"),
        (torch.tensor([1e6]), "fp16", "as fp16: store it as fp32"),
        (torch.ones(1), "bf16", "one of fp32, fp16, got 'bf16'"),
        (None, "fp32", "nothing learned"),
    ],
)
def test_what_is_of_no_use_is_not_written(options, tmp_path, value, dtype, message):
    state = {} if value is None else {"ln_post.bias": value}
    with pytest.raises(UserError, match=message):
        written(tmp_path / "a.safetensors", load_clip(**options["vit"]), state, dtype=dtype)
    assert not list(tmp_path.iterdir())


def state_with(change):
    """Some state of a ViT with one change."""
    down, up = (f"transformer.resblocks.0.attn.parametrizations.in_proj_weight.0.{kind}.q" for kind in ("down", "up"))
    state = {"ln_post.bias": torch.ones(64), down: torch.ones(2, 64), up: torch.ones(64, 2)}
    changes = {
        "unknown": {"ln_last.bias": torch.ones(64)},
        "shape": {"ln_post.bias": torch.ones(63)},
        "scalar": {"ln_post.bias": torch.ones(())},
        "no up": {up: None},
        "rank": {up: torch.ones(64, 3)},
        "no rank": {up: torch.ones(64, 0), down: torch.ones(0, 64)},
        "large rank": {up: torch.ones(64, 65), down: torch.ones(65, 64)},
        "scalars": {up: torch.ones(()), down: torch.ones(())},
        "columns": {down: torch.ones(2, 63)},
        "rows": {up: torch.ones(65, 2)},
        "block": {down.replace(".q", ".z"): torch.ones(2, 64), up.replace(".q", ".z"): torch.ones(64, 2)},
        "vector": {name.replace("in_proj_weight", "in_proj_bias"): torch.ones(2, 2) for name in (down, up)},
        "nowhere": {name.replace("attn", "attn2"): torch.ones(2, 2) for name in (down, up)},
        "twice": {"transformer.resblocks.0.attn.in_proj_weight": torch.ones(192, 64)},
    }
    return {name: value for name, value in (state | changes[change]).items() if value is not None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unknown", r"ln_last\.bias is no tensor of this image tower"),
        ("shape", r"ln_post\.bias has shape \(63,\) there and \(64,\)"),
        ("scalar", r"ln_post\.bias has shape \(\) there"),
        ("no up", "the LoRA pair q of .*in_proj_weight lacks one of its factors"),
        *[(one, "has the LoRA pair q of shapes") for one in ("rank", "no rank", "large rank", "scalars")],
        *[(one, "has the LoRA pair q of shapes") for one in ("columns", "rows")],
        ("block", "has the LoRA pair z of shapes"),
        ("vector", "in_proj_bias has the LoRA pair q of shapes"),
        ("nowhere", "attn2.* is no tensor"),
        ("twice", "in_proj_weight is there twice"),
    ],
)
def test_what_does_not_fit_is_told_and_changes_nothing(options, change, message):
    encoder = load_clip(**options["vit"])
    before = {name: value.clone() for name, value in encoder.visual.state_dict().items()}
    with pytest.raises(UserError, match=message) as caught:
        apply_alignment(encoder.visual, Alignment(state_with(change), {}, {}, {}), source="a.safetensors")
    assert str(caught.value).startswith("a.safetensors ")
    assert all(torch.equal(value, before[name]) for name, value in encoder.visual.state_dict().items())


@pytest.fixture
def good(options, tmp_path):
    """A sound alignment file of the small ViT."""
    encoder = load_clip(**options["vit"])
    return written(tmp_path / "good.safetensors", encoder, learn(encoder, "qv"))


def altered(path, change, state=None):
    """The file again with another head, its checksum as it was."""
    with safe_open(path, framework="pt") as file:
        head = json.loads(file.metadata()["eventclip"])
    change(head)
    save_file(state or load_file(path), path, metadata={"eventclip": json.dumps(head)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head.update(format=2, version="9.9"), r"format 2, written by eventclip 9\.9.*reads format 1"),
        (lambda head: head.update(format=True), "format True"),
        (lambda head: head.update(kind="pack"), "no alignment but of kind pack"),
        (lambda head: head.pop("clip"), "clip in its header is nothing, expected dict"),
        (lambda head: head.update(made=[]), r"made in its header is \[\]"),
        (lambda head: head["clip"].update(weights_sha256=3), r"clip\.weights_sha256 in its header is 3"),
        (lambda head: head["clip"].update(quick_gelu="yes"), r"clip\.quick_gelu in its header is yes"),
        (lambda head: head["made"].update(seed=7), "does not match its checksum"),
    ],
)
def test_a_header_that_is_none_of_ours_is_told(good, change, message):
    altered(good, change)
    with pytest.raises(UserError, match=message):
        read_alignment(good)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((64,), float("nan")), "holds values that are not finite"),
        (torch.full((64,), float("inf"), dtype=torch.float16), "holds values that are not finite"),
        (torch.ones(64, dtype=torch.int32), "is of type I32, expected F32"),
        (torch.ones(64, dtype=torch.bfloat16), "is of type BF16"),
        (torch.ones(64), "does not match its checksum"),
    ],
)
def test_tensors_that_are_of_no_use_are_told(good, value, message):
    altered(good, lambda head: None, {**load_file(good), "ln_post.bias": value})
    with pytest.raises(UserError, match=message):
        read_alignment(good)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no alignment .*gone.* give the file that eventclip align wrote"),
        (b"", "is empty"),
        (b"<html>", "is a web page"),
        (b"1234567", "header claims"),
        ((2**62).to_bytes(8, "little") + b"{}", "its header claims 4,611,686,018,427,387,904 bytes"),
        ((17 << 20).to_bytes(8, "little") + b" " * (18 << 20), "its header claims 17,825,792 bytes"),
        ((2).to_bytes(8, "little") + b"{}", "is no alignment"),
        ((5).to_bytes(8, "little") + b"hello", "cannot be read as an alignment: it is damaged"),
        ((1000).to_bytes(8, "little") + b"[" * 1000, "cannot be read as an alignment: it is damaged"),
    ],
)
def test_other_files_are_told(tmp_path, content, message):
    path = tmp_path / "gone.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_alignment(path)


def test_claims_of_more_than_there_is_are_refused(tmp_path):
    entry = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    text = json.dumps({"__metadata__": {"eventclip": "{}"}, **entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    with pytest.raises(UserError, match="it is damaged"):
        read_alignment(path)


def test_a_folder_and_whole_weights_are_told(tmp_path, options):
    with pytest.raises(UserError, match="is a folder"):
        read_alignment(tmp_path)
    path = tmp_path / "weights.safetensors"
    save_file({name: value.clone() for name, value in load_clip(**options["vit"]).visual.state_dict().items()}, path)
    with pytest.raises(UserError, match=r"weights of a whole CLIP are given by clip\.pretrained"):
        read_alignment(path)


@pytest.mark.long
def test_damage_anywhere_is_one_sentence_or_does_no_harm(good, damage):
    content, sound = good.read_bytes(), read_alignment(good)
    sentences = []
    for head in (None, 2000):  # the header is the smaller part, and the larger danger
        for mutant in damage.mutants(content, 150, seed=3, head=head):
            good.write_bytes(mutant)
            try:
                found = read_alignment(good)
            except UserError as error:
                sentences.append(str(error))
            else:
                assert replace(found, state={}) == replace(sound, state={})
                assert all(torch.equal(found.state[name], value) for name, value in sound.state.items())
    assert len(sentences) > 250
    assert all(str(good) in sentence and "\n" not in sentence for sentence in sentences)


def test_every_cut_is_told(good):
    content = good.read_bytes()
    for length in {*range(0, len(content), 97), len(content) - 1}:
        good.write_bytes(content[:length])
        with pytest.raises(UserError):
            read_alignment(good)
