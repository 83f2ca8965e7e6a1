"""What learns is exactly what was asked for, LoRA gives the golden features, and merging it changes nothing."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from eventclip.adapters.paper import IdentityAdapter, TextAdapter
from eventclip.errors import UserError
from eventclip.models.checkpoint import from_reference
from eventclip.models.classifier import EventClassifier
from eventclip.models.factory import load_clip
from eventclip.models.tuning import LowRankUpdate, merge_lora, parameter_groups, tune

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
REFERENCE_NAMES = {
    "full": "full",
    "conv1": "conv1",
    "bias": "bias",
    "ln": "layernorm",
    "cls_fc": "projection",
    "cls_token": "class_token",
    "bias_ln": ["bias", "layernorm"],
}
TINY_RESNET = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


@pytest.fixture
def resnet(tmp_path):
    path = tmp_path / "tiny_resnet.json"
    path.write_text(json.dumps(TINY_RESNET))
    return load_clip(None, config=path)


def learning(module):
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def make_views(side, count=2):
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", REFERENCE_NAMES)
def test_each_choice_trains_the_golden_parameters(golden_clip, golden, golden_batch, name):
    facts = golden[1]["finetune"][name]
    tune(golden_clip, REFERENCE_NAMES[name])
    classifier = EventClassifier(golden_clip, TextAdapter(golden_batch[3], golden_clip.logit_scale))
    assert {f"model.{name}" for name in learning(golden_clip)} == set(facts["trainable_visual"])
    assert sum(p.numel() for p in classifier.parameters() if p.requires_grad) == facts["trainable_parameters"]


@pytest.mark.parametrize("targets", ["qv", "qkv", "qkvo"])
def test_lora_is_golden_and_merging_it_changes_nothing(golden_clip, golden, golden_batch, targets):
    arrays, key = golden[0], f"lora_{targets}_4"
    valid, text = golden_batch[1], golden_batch[3]
    stored = np.load(GOLDEN / "lora.npz")
    theirs = {
        name.removeprefix(f"{key}/"): torch.from_numpy(stored[name])
        for name in stored.files
        if name.startswith(f"{key}/model.")
    }
    names_before = set(golden_clip.state_dict())
    tune(golden_clip, "lora", lora_targets=targets, lora_rank=4)
    classifier = EventClassifier(golden_clip, IdentityAdapter(text, golden_clip.logit_scale))
    classifier.load_learned_state_dict(from_reference(theirs))
    pixels = torch.from_numpy(arrays["images"]).float()[valid]

    def check():
        features = torch.zeros(*valid.shape, golden_clip.width)
        with torch.no_grad():
            features[valid] = golden_clip.encode_pixels(pixels)
        logits = classifier(features=features, valid=valid).logits
        for ours, expected in ((features[valid], stored[f"{key}/image_features"]), (logits, stored[f"{key}/logits"])):
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())

    check()
    merge_lora(golden_clip)
    check()
    assert set(golden_clip.state_dict()) == names_before
    assert not learning(golden_clip)


@pytest.mark.parametrize("targets", ["qv", "qkv", "qkvo"])
def test_lora_trains_as_many_parameters_as_the_golden_file_tells(golden_clip, golden, golden_batch, targets):
    tune(golden_clip, "lora", lora_targets=targets, lora_rank=4)
    classifier = EventClassifier(golden_clip, TextAdapter(golden_batch[3], golden_clip.logit_scale))
    expected = golden[1]["finetune"][f"lora_{targets}_4"]["trainable_parameters"]
    assert sum(p.numel() for p in classifier.parameters() if p.requires_grad) == expected


@pytest.mark.long
def test_lora_starts_as_clip_itself_by_its_seed_alone(golden_clip_files, golden_clip):
    config, weights = golden_clip_files
    views = make_views(64)
    before = golden_clip.encode_views(views)
    state = torch.get_rng_state()
    drawn = []
    for seed in (0, 0, 1):
        encoder = load_clip(None, str(weights), config=config)
        tune(encoder, "lora", lora_rank=4, seed=seed)
        torch.testing.assert_close(encoder.encode_views(views).detach(), before, rtol=1e-4, atol=1e-4)
        drawn.append(torch.cat([p.flatten() for p in encoder.parameters() if p.requires_grad]))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(state, torch.get_rng_state())


def test_lora_draws_down_with_a_deviation_of_one_over_the_rank(golden_clip):
    tune(golden_clip, "lora", lora_rank=4)
    down = torch.cat([p.flatten() for n, p in golden_clip.named_parameters() if ".down." in n])
    assert down.std().item() == pytest.approx(1 / 4, rel=0.05)


@pytest.mark.long
@pytest.mark.parametrize("choice", ["frozen", "full", "class_token", ["bias", "conv1"], "lora"])
def test_gradients_reach_what_learns_and_nothing_else(golden_clip, golden_batch, choice):
    text = golden_batch[3]
    tune(golden_clip, choice)
    classifier = EventClassifier(golden_clip, TextAdapter(text, golden_clip.logit_scale))
    classifier.train()
    views, valid = make_views(64, 4).view(2, 2, 1, 64, 64), torch.tensor([[True, True], [True, False]])
    classifier(views, valid).logits.logsumexp(-1).sum().backward()
    reached = {name for name, p in classifier.named_parameters() if p.grad is not None and p.grad.isfinite().all()}
    assert reached == learning(classifier)
    assert (choice == "frozen") == (not learning(golden_clip))


def test_clips_own_weights_have_a_tenth_of_the_base_rate(golden_clip, golden_batch):
    text = golden_batch[3]
    for choice, expected in (
        ("frozen", {"head": 1.0}),
        ("bias", {"head": 1.0, "clip": 0.1}),
        ("lora", {"head": 1.0, "lora": 1.0}),
    ):
        tune(golden_clip, choice)
        classifier = EventClassifier(golden_clip, TextAdapter(text, 100.0))
        groups = parameter_groups(classifier)
        assert {group.name: group.factor for group in groups} == expected
        grouped = [id(parameter) for group in groups for parameter in group.parameters]
        assert sorted(grouped) == sorted(id(p) for p in classifier.parameters() if p.requires_grad)


@pytest.mark.parametrize("choice", ["full", "lora"])
def test_a_tuned_classifier_comes_back_from_what_learned(golden_clip, golden_batch, choice):
    text = golden_batch[3]
    fresh = copy.deepcopy(golden_clip)
    tune(golden_clip, choice, lora_rank=2)
    trained = EventClassifier(golden_clip, TextAdapter(text, 100.0))
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    state = trained.learned_state_dict()
    assert set(state) == learning(trained)
    tune(fresh, choice, lora_rank=2, seed=5)
    back = EventClassifier(fresh, TextAdapter(text, 100.0))
    back.load_learned_state_dict(state)
    views, valid = make_views(64).unsqueeze(0), torch.ones(1, 2, dtype=torch.bool)
    assert torch.equal(back(views, valid).logits, trained(views, valid).logits)
    with pytest.raises(UserError, match="tuning it was trained with"):
        EventClassifier(fresh.requires_grad_(requires_grad=False), TextAdapter(text, 100.0)).load_learned_state_dict(
            state
        )


@pytest.mark.long
def test_a_resnets_pool_takes_lora_and_norms_stay(resnet):
    views = make_views(64)
    before = resnet.encode_views(views)
    tune(resnet, "lora", lora_targets="qkvo", lora_rank=3)
    assert len(learning(resnet)) == 8
    assert all("attnpool" in name for name in learning(resnet))
    torch.testing.assert_close(resnet.encode_views(views).detach(), before)
    with torch.no_grad():
        for parameter in resnet.parameters():
            if parameter.requires_grad:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    changed = resnet.encode_views(views).detach()
    assert not torch.allclose(changed, before)
    merge_lora(resnet)
    torch.testing.assert_close(resnet.encode_views(views), changed)
    statistics = resnet.visual.bn1.running_mean.clone()
    tune(resnet, "full")
    resnet.train()
    resnet.encode_views(views).sum().backward()
    assert torch.equal(statistics, resnet.visual.bn1.running_mean)


@pytest.mark.parametrize(("choice", "names"), [("projection", "c_proj"), ("conv1", "visual.conv1.weight")])
def test_a_resnet_has_a_first_convolution_and_a_last_projection(resnet, choice, names):
    tune(resnet, choice)
    assert learning(resnet)
    assert all(names in name for name in learning(resnet))


def test_what_a_tower_does_not_have_is_told_with_what_it_has(resnet):
    for choice in ("layernorm", "class_token"):
        with pytest.raises(UserError, match="tiny_resnet has none; it has bias, batchnorm, conv1, projection"):
            tune(resnet, choice)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": "ln"}, "tuning=ln is unknown"),
        ({"parts": ["bias", "lora"]}, "cannot be combined"),
        ({"parts": ["frozen", "bias"]}, "cannot be combined"),
        ({"parts": []}, "cannot be combined"),
        ({"parts": "lora", "lora_targets": "qk"}, "lora_targets=qk is unknown"),
        ({"parts": "lora", "lora_rank": 0}, "lora_rank=0"),
        ({"parts": "lora", "lora_rank": 65}, "lora_rank=65"),
    ],
)
def test_impossible_choices_are_refused(golden_clip, options, message):
    with pytest.raises(UserError, match=message):
        tune(golden_clip, **options)


def test_lora_twice_and_learning_in_half_precision_are_refused(golden_clip, golden_clip_files):
    tune(golden_clip, "lora")
    with pytest.raises(UserError, match="LoRA weights already"):
        tune(golden_clip, "lora")
    half = load_clip(None, None, config=golden_clip_files[0], precision="bf16")
    tune(half, "frozen")
    with pytest.raises(UserError, match="precision=bf16"):
        tune(half, "bias")


def make_timm(tmp_path, name, side=32):
    path = tmp_path / f"{name}.json"
    vision = {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": side}
    path.write_text(json.dumps({**TINY_RESNET, "vision_cfg": vision}))
    return load_clip(None, config=path)


@pytest.mark.long
def test_batch_norms_learn_weights_and_biases_but_no_statistics(resnet):
    tune(resnet, "batchnorm")
    norms = [name for name, module in resnet.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert learning(resnet) == {f"{name}.{kind}" for name in norms for kind in ("weight", "bias")}
    statistics = resnet.visual.bn1.running_mean.clone()
    resnet.train()
    resnet.encode_views(make_views(64)).sum().backward()
    assert torch.equal(statistics, resnet.visual.bn1.running_mean)


def test_timms_norms_with_an_activation_inside_learn_too(tmp_path):
    encoder = make_timm(tmp_path, "mobilenetv3_small_050")
    tune(encoder, "batchnorm")
    assert learning(encoder)
    assert {name.split(".")[-2][:2] for name in learning(encoder)} == {"bn"}
    assert len(learning(encoder)) == 2 * sum(isinstance(m, torch.nn.BatchNorm2d) for m in encoder.modules())


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "side"), [("efficientnet_lite0", 64), ("vit_tiny_patch16_224", 224), ("mobilevit_xxs", 64)]
)
def test_lora_on_all_matrices_changes_and_merges_in_timms_towers(tmp_path, name, side):
    encoder = make_timm(tmp_path, name, side)
    views, names_before, layout = make_views(side), set(encoder.state_dict()), encoder._layout
    before = encoder.encode_views(views)
    with pytest.raises(UserError, match=r"set tuning\.lora_targets=all"):
        tune(encoder, "lora")
    tune(encoder, "lora", lora_targets="all", lora_rank=3)
    torch.testing.assert_close(encoder.encode_views(views).detach(), before)
    adapted = {name.split(".parametrizations")[0] for name in learning(encoder.visual)}
    expected = {
        name
        for name, module in encoder.visual.named_modules()
        if (isinstance(module, torch.nn.Conv2d) and module.groups == 1)
        or (isinstance(module, torch.nn.Linear) and ".attn." in name)
    }
    assert adapted == expected
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    changed = encoder.encode_views(views).detach()
    assert not torch.allclose(changed, before)
    merge_lora(encoder)
    assert set(encoder.state_dict()) == names_before
    weights = [p for p in encoder.visual.parameters() if p.ndim == 4 and p.shape[1] > 1]
    assert all(p.is_contiguous(memory_format=layout) for p in weights)  # as fast as it was
    torch.testing.assert_close(encoder.encode_views(views), changed)


def test_all_matrices_of_a_resnet_are_its_convolutions_and_pool(resnet):
    tune(resnet, "lora", lora_targets="all", lora_rank=3)
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in resnet.visual.modules())
    assert len(learning(resnet)) == 2 * (convolutions + 4)
    resnet.encode_views(make_views(64)).sum().backward()
    assert all(p.grad is not None for p in resnet.parameters() if p.requires_grad)


def test_of_all_matrices_a_short_one_has_its_side_as_rank(resnet):
    tune(resnet, "lora", lora_targets="all", lora_rank=16)
    shapes = {name: tuple(p.shape) for name, p in resnet.named_parameters() if ".down." in name}
    assert shapes["visual.conv1.parametrizations.weight.0.down.m"] == (4, 27)
    assert shapes["visual.attnpool.q_proj.parametrizations.weight.0.down.q"][0] == 16


def test_a_convolution_is_updated_as_the_matrix_of_its_outputs():
    weight, generator = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0)), torch.Generator()
    update = LowRankUpdate(weight, "m", "m", 2, generator)
    with torch.no_grad():
        update.up["m"].normal_(generator=generator)
    expected = weight.reshape(5, 12) + update.up["m"] @ update.down["m"]
    torch.testing.assert_close(update(weight).detach().reshape(5, 12), expected.detach())


@pytest.mark.shared
def test_a_timm_tower_learns_whole_or_in_kinds_but_takes_no_lora(shared):
    config = shared / "models" / "liteclip" / "liteclip.json"
    encoder = load_clip(None, config=config)
    for choice in ("lora", "conv1", "class_token", "layernorm"):
        with pytest.raises(UserError, match="liteclip has n"):
            tune(encoder, choice)
    tune(encoder, "projection")
    assert learning(encoder) == {"visual.head.proj.weight", "visual.head.proj.bias"}
