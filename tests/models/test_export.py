"""What is exported is loaded by plain open_clip and gives the same features, whatever was merged into it."""

import doctest
import json
import stat

import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import load_file

from eventclip.adapters.paper import TextAdapter
from eventclip.adapters.projection import ProLIPAdapter
from eventclip.errors import UserError
from eventclip.models import export as module
from eventclip.models.alignment import aligned_state, write_alignment
from eventclip.models.checkpoint import make_metadata
from eventclip.models.classifier import EventClassifier
from eventclip.models.export import BESIDE, WEIGHTS, export
from eventclip.models.factory import load_clip
from eventclip.models.tuning import tune

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
VISION = {
    "vit": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "resnet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None},
    "timm": {"timm_model_name": "efficientnet_lite0", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64},
}
PROMPTS = ["a sketch image of a star", "an anchor " * 20]


@pytest.fixture(params=["tiny", *VISION])
def options(request, tmp_path):
    """Arguments of load_clip for the tiny CLIP, and for a small one with each kind of tower."""
    if request.param == "tiny":
        return {"arch": "tiny"}
    return small(tmp_path, request.param)


def small(folder, name, **further):
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": VISION[name], "text_cfg": TEXT, **further}))
    return {"arch": None, "config": str(path)}


def learn(encoder, parts, *, targets="qkvo"):
    tune(encoder, parts, lora_targets=targets, lora_rank=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def aligned(options, folder, *, parts="lora", targets="all"):
    """The CLIP and the same aligned, and the file that does it."""
    encoder = load_clip(**options)
    learn(encoder, parts, targets=targets)
    path = folder / "aligned.safetensors"
    tuning = {"parts": parts, "lora_targets": targets, "lora_rank": 2}
    write_alignment(path, encoder, aligned_state(encoder.visual), tuning=tuning, made={})
    return load_clip(**options), load_clip(**options, aligned=path), path


def assert_plain_open_clip_has(folder, encoder):
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    side = encoder.image_size
    pixels = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.encode_image(pixels), encoder.encode_pixels(pixels), rtol=1e-5, atol=1e-5)
        text = model.encode_text(tokenizer(PROMPTS), normalize=True)
    torch.testing.assert_close(text, encoder.encode_text(PROMPTS), rtol=1e-5, atol=1e-5)
    assert model.logit_scale.exp().item() == pytest.approx(encoder.logit_scale)
    assert list(model.visual.preprocess_cfg["mean"]) == list(encoder.preprocess.mean)
    return model


@pytest.mark.long
def test_an_aligned_clip_has_its_features_in_plain_open_clip(options, tmp_path):
    plain, encoder, path = aligned(options, tmp_path)
    lines = export(tmp_path / "out", clip={**options, "aligned": str(path)})
    assert f"local-dir:{tmp_path / 'out'}" in lines[-1]
    model = assert_plain_open_clip_has(tmp_path / "out", encoder)
    pixels = torch.ones(1, 3, encoder.image_size, encoder.image_size)
    with torch.no_grad():
        assert not torch.allclose(model.encode_image(pixels), plain.encode_pixels(pixels), atol=1e-3)


@pytest.mark.long
def test_it_comes_back_as_our_own_clip_too(options, tmp_path):
    _, encoder, path = aligned(options, tmp_path)
    folder = tmp_path / "out"
    export(folder, clip={**options, "aligned": str(path)})
    back = load_clip(None, str(folder / WEIGHTS), config=folder / BESIDE)
    assert back.weights_sha256 == encoder.weights_sha256
    assert (back.preprocess, back.width) == (encoder.preprocess, encoder.width)
    assert back.describe()["quick_gelu"] == encoder.describe()["quick_gelu"]


@pytest.mark.long
@pytest.mark.parametrize("quick_gelu", [True, False])
def test_the_activation_is_that_of_the_weights(tmp_path, quick_gelu):
    options = {**small(tmp_path, "vit"), "quick_gelu": quick_gelu}
    export(tmp_path / "out", clip=options)
    assert json.loads((tmp_path / "out" / BESIDE).read_text())["model_cfg"]["quick_gelu"] is quick_gelu
    assert_plain_open_clip_has(tmp_path / "out", load_clip(**options))


@pytest.mark.long
def test_an_architecture_of_open_clips_own_keeps_its_options(tmp_path):
    options = {"arch": "ViT-S-32-alt", "quick_gelu": True, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.3, 0.4]}
    export(tmp_path / "out", clip=options)
    written = json.loads((tmp_path / "out" / BESIDE).read_text())
    assert written["model_cfg"] == {**open_clip.get_model_config("ViT-S-32-alt"), "quick_gelu": True}
    assert written["preprocess_cfg"]["mean"] == [0.5, 0.5, 0.5]
    assert written["preprocess_cfg"]["std"] == [0.2, 0.3, 0.4]
    assert_plain_open_clip_has(tmp_path / "out", load_clip(**options))


def test_half_precision_is_no_reason_to_lose_digits(tmp_path):
    options = small(tmp_path, "vit")
    export(tmp_path / "half", clip={**options, "precision": "fp16", "compiled": True})
    export(tmp_path / "full", clip=options)
    assert (tmp_path / "half" / WEIGHTS).read_bytes() == (tmp_path / "full" / WEIGHTS).read_bytes()


CONFIG = {
    "name": "x",
    "seed": 0,
    "adapter": {"_target_": "eventclip.adapters.paper.TextAdapter", "_partial_": True},
    "classifier": {"prompts": ["a {}"], "pooling": "mean"},
    "frames": {"events_per_frame": 100},
    "views": {"evaluation_views": 1, "resize_mode": "crop"},
    "data": {"p95_events": 100},
    **{section: {} for section in ("fewshot", "optim", "selection")},
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("parts", "targets"), [("full", "qkvo"), ("lora", "qkvo"), ("lora", "all"), ("frozen", "qkvo")]
)
@pytest.mark.parametrize("over_alignment", [False, True])
def test_what_a_checkpoint_learned_is_merged(tmp_path, parts, targets, over_alignment):
    options = small(tmp_path, "resnet")
    if over_alignment:
        options["aligned"] = str(aligned(options, tmp_path, parts="bias")[2])
    encoder = load_clip(**options)
    learn(encoder, parts, targets=targets)
    classifier = EventClassifier(encoder, TextAdapter(encoder.encode_text(["a b", "a c"]), encoder.logit_scale))
    tuning = {"parts": parts, "lora_targets": targets, "lora_rank": 2, "clip_factor": 0.1}
    clip = {"_target_": "eventclip.models.factory.load_clip", "pretrained": None, **options}
    config = {**CONFIG, "clip": clip, "tuning": tuning}
    metadata = make_metadata(
        config=config, class_names=["b", "c"], clip=encoder.describe(), data={"checksums": {}}, version="0"
    )
    torch.save({"state_dict": classifier.learned_state_dict(), "eventclip": metadata}, tmp_path / "last.ckpt")
    lines = export(tmp_path / "out", checkpoint=tmp_path / "last.ckpt")
    assert "TextAdapter of last.ckpt is no part of it" in lines[0]
    assert_plain_open_clip_has(tmp_path / "out", encoder)
    assert not any("parametrizations" in name for name in load_file(tmp_path / "out" / WEIGHTS))


@pytest.mark.parametrize("name", VISION)
def test_the_projection_that_prolip_learned_is_merged(tmp_path, name):
    options = small(tmp_path, name)
    encoder = load_clip(**options)
    text = encoder.encode_text(["a b", "a c"])
    adapter = ProLIPAdapter(text, encoder.logit_scale, projection=encoder.take_projection())
    with torch.no_grad():
        adapter.learned.add_(0.05 * torch.randn(adapter.learned.shape, generator=torch.Generator().manual_seed(0)))
    tuning = {"parts": "frozen", "lora_targets": "qkvo", "lora_rank": 2, "clip_factor": 0.1}
    clip = {"_target_": "eventclip.models.factory.load_clip", "pretrained": None, **options}
    target = {"_target_": "eventclip.adapters.projection.ProLIPAdapter", "_partial_": True}
    metadata = make_metadata(
        config={**CONFIG, "clip": clip, "tuning": tuning, "adapter": target},
        class_names=["b", "c"],
        clip=encoder.describe(),
        data={"checksums": {}},
        version="0",
    )
    metadata["fitted"] = {"weights": "fixed"}
    state = EventClassifier(encoder, adapter).learned_state_dict()
    torch.save({"state_dict": state, "eventclip": metadata}, tmp_path / "last.ckpt")
    lines = export(tmp_path / "out", checkpoint=tmp_path / "last.ckpt")
    assert "with the projection of ProLIPAdapter" in lines[0]
    learned = load_clip(**options)
    learned.take_projection()
    learned.give_projection(adapter.learned, adapter.bias)
    assert_plain_open_clip_has(tmp_path / "out", learned)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds notes\.txt, no part of an exported CLIP: give a new or an empty"):
        export(folder, clip="tiny")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="is no folder"):
        export(folder / "notes.txt", clip="tiny")


@pytest.mark.long
def test_exporting_again_takes_the_place_of_what_was_there(tmp_path):
    export(tmp_path / "out", clip=small(tmp_path, "vit"))
    export(tmp_path / "out", clip=small(tmp_path, "resnet"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [BESIDE, WEIGHTS]
    assert_plain_open_clip_has(tmp_path / "out", load_clip(**small(tmp_path, "resnet")))
    assert stat.S_IMODE((tmp_path / "out" / WEIGHTS).stat().st_mode) == stat.S_IMODE(
        (tmp_path / "out" / BESIDE).stat().st_mode
    )


def test_without_the_weights_there_is_no_configuration(tmp_path, monkeypatch):
    export(tmp_path / "out", clip=small(tmp_path, "vit"))

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "out", clip=small(tmp_path, "resnet"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [WEIGHTS]  # which open_clip refuses
    monkeypatch.undo()
    export(tmp_path / "out", clip=small(tmp_path, "resnet"))


def test_a_tokenizer_of_hugging_faces_goes_along(tmp_path, monkeypatch):
    class Fake(HFTokenizer):
        def __init__(self):
            self.tokenizer = self

        def save_pretrained(self, folder):
            (tmp_path / "out" / "tokenizer.json").write_text(folder)

    monkeypatch.setattr("eventclip.models.factory.build_tokenizer", lambda *_: Fake())
    for _ in range(2):
        export(tmp_path / "out", clip=small(tmp_path, "vit"))
        assert (tmp_path / "out" / "tokenizer.json").read_text() == str(tmp_path / "out")


def test_nothing_to_export_and_odd_options_are_told(tmp_path):
    with pytest.raises(UserError, match=r"give clip=NAME, or checkpoint=FILE"):
        export(tmp_path / "out")
    with pytest.raises(UserError, match="clip cannot be built"):
        export(tmp_path / "out", clip={"arch": "tiny", "odd": 3})
    with pytest.raises(UserError, match="there is no alignment"):
        export(tmp_path / "out", clip={"arch": "tiny", "aligned": "gone.safetensors"})
    assert not (tmp_path / "out").exists()


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = doctest.DocTestFinder().find(export, "export", module=module, globs={"export": export})[0]
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
