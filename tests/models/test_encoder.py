"""CLIP's towers give the golden features, take gray views as the same image in colour, and refuse what does not fit."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from eventclip.errors import UserError
from eventclip.models.factory import load_clip
from eventclip.models.prompts import encode_classes, fill_prompts


def assert_golden(ours, theirs):
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def test_image_and_text_features_are_the_golden_ones(golden_clip, golden):
    arrays, facts = golden
    pixels = torch.from_numpy(arrays["images"]).float()[torch.from_numpy(arrays["valid"])]
    assert_golden(golden_clip.encode_pixels(pixels), arrays["image_features"])
    names = [name.lower().replace("_", " ") for name in facts["class_names"]]
    assert_golden(encode_classes(golden_clip, names, [facts["prompt"]]), arrays["text_features"])
    assert golden_clip.logit_scale == pytest.approx(100.0)
    assert (golden_clip.image_size, golden_clip.width) == (64, 32)


def test_a_gray_view_is_the_same_image_in_three_channels(golden_clip):
    views = torch.randint(0, 256, (2, 3, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    gray, colour = golden_clip.encode_views(views), golden_clip.encode_views(views.expand(-1, -1, 3, -1, -1))
    assert gray.shape == (2, 3, 32)
    assert torch.equal(gray, colour)


def test_views_are_normalised_with_clips_own_mean_and_std(golden_clip):
    views = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    by_hand = golden_clip.encode_pixels((views / 255 - mean) / std)
    torch.testing.assert_close(golden_clip.encode_views(views), by_hand, rtol=1e-4, atol=1e-4)


def test_weights_have_one_checksum_whatever_file_they_come_from(golden_clip, golden_clip_files, tmp_path):
    config, weights = golden_clip_files
    path = tmp_path / "same.safetensors"
    safetensors.torch.save_file(torch.load(weights, weights_only=True), path)
    assert load_clip(None, str(path), config=config).weights_sha256 == golden_clip.weights_sha256
    assert load_clip(None, None, config=config).weights_sha256 != golden_clip.weights_sha256


def test_untrained_weights_are_keyed_by_their_seed_alone(golden_clip_files):
    config, _ = golden_clip_files
    torch.manual_seed(1)
    before = torch.get_rng_state()
    checksums = [load_clip(None, None, config=config, init_seed=seed).weights_sha256 for seed in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    assert checksums[0] == checksums[1] != checksums[2]


def test_nothing_learns_and_no_layer_is_ever_in_training_mode(golden_clip):
    golden_clip.train()
    assert not any(module.training for module in golden_clip.modules())
    assert not any(parameter.requires_grad for parameter in golden_clip.parameters())


def test_the_text_tower_can_be_dropped(golden_clip):
    before = sum(parameter.numel() for parameter in golden_clip.parameters())
    golden_clip.drop_text_tower()
    assert sum(parameter.numel() for parameter in golden_clip.parameters()) < before / 10
    with pytest.raises(UserError, match="text tower was dropped"):
        golden_clip.encode_text(["a cat"])


def test_an_ensemble_is_the_unit_mean_of_its_prompts(golden_clip):
    templates = ["a picture of a {}", "a sketch of a {}"]
    single = [encode_classes(golden_clip, ["cat", "dog"], [template]) for template in templates]
    mean = torch.nn.functional.normalize(single[0] + single[1], dim=-1)
    torch.testing.assert_close(encode_classes(golden_clip, ["cat", "dog"], templates), mean)


def test_prompts_without_a_place_and_double_names_are_refused(golden_clip):
    assert fill_prompts("a {} here", ["cat"]) == ["a cat here"]
    with pytest.raises(UserError, match=r"hold \{\} once"):
        fill_prompts("a picture", ["cat"])
    with pytest.raises(UserError, match="two classes are called 'cat'"):
        encode_classes(golden_clip, ["cat", "cat"], ["a {}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arch": "ViT-B-33"}, "ViT-B-32"),
        ({"arch": "ViT-B-32", "pretrained": "opnai"}, "openai"),
        ({"arch": "ViT-B-32", "pretrained": "/nowhere/weights.pt"}, "weights.pt"),
        ({"arch": None, "config": "/nowhere/x.json"}, "x.json"),
        ({"precision": "fp8"}, "fp8"),
    ],
)
def test_a_clip_that_does_not_exist_is_told_with_what_does(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        load_clip(**arguments)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_downloaded_can_be_given(monkeypatch):
    def no_network(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("open_clip.download_pretrained", no_network)
    with pytest.raises(UserError, match=r"openai.*clip\.pretrained"):
        load_clip("ViT-B-32", "openai")


def test_weights_of_another_shape_are_refused(golden_clip_files, tmp_path):
    config, weights = golden_clip_files
    other = tmp_path / "wider.json"
    options = json.loads(config.read_text())
    options["embed_dim"] = 48
    other.write_text(json.dumps(options))
    with pytest.raises(UserError, match=r"golden_clip\.pt"):
        load_clip(None, str(weights), config=other)


@pytest.mark.parametrize(
    "views",
    [
        torch.zeros(2, 1, 64, 64),
        torch.zeros(2, 1, 32, 32, dtype=torch.uint8),
        torch.zeros(2, 2, 64, 64, dtype=torch.uint8),
        torch.zeros(64, 64, dtype=torch.uint8),
    ],
)
def test_views_of_another_type_or_size_are_refused(golden_clip, views):
    with pytest.raises(ValueError, match=r"expected uint8 \(\.\.\., 1 or 3, 64, 64\)"):
        golden_clip.encode_views(views)


def test_no_views_give_no_features(golden_clip):
    assert golden_clip.encode_views(torch.zeros(0, 1, 64, 64, dtype=torch.uint8)).shape == (0, 32)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_keeps_the_checksum_of_weights(golden_clip_files, golden_clip, precision):
    config, weights = golden_clip_files
    half = load_clip(None, str(weights), config=config, precision=precision)
    assert half.visual.conv1.weight.element_size() == 2
    assert half.weights_sha256 == golden_clip.weights_sha256
    views = torch.randint(0, 256, (4, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = half.encode_views(views)
    assert features.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(features, golden_clip.encode_views(views))
    assert cosine.min() > 0.999
    assert half.encode_text(["a cat"]).dtype == torch.float32
