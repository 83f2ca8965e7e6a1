"""Another engine runs a frozen tower as torch does, and says so where it cannot."""

import copy
import importlib
import json
import logging

import pytest
import torch
from torch import nn

from eventclip.errors import UserError
from eventclip.features.encode import encode_in_batches
from eventclip.models import engines
from eventclip.models.engines import ENGINES, Engine, find_engine, is_installed
from eventclip.models.factory import TINY, load_clip
from eventclip.models.tuning import tune

pytestmark = pytest.mark.long

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1}
TOWERS = {
    "resnet": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16},
    "vit": {"image_size": 32, "patch_size": 16, "width": 64, "head_width": 32, "layers": 2},
}
INSTALLED = [
    pytest.param(name, marks=pytest.mark.skipif(not is_installed(name), reason=f"{name} is not installed"))
    for name in ENGINES
    if name != "torch"
]
EACH_ENGINE = pytest.mark.parametrize("name", INSTALLED)
OPENVINO = pytest.mark.skipif(not is_installed("openvino"), reason="openvino is not installed")


@pytest.fixture
def clip(tmp_path):
    def load(kind="vit", quick_gelu=False, **options):
        if kind == "tiny":
            return load_clip("tiny", **options)
        file = tmp_path / f"{kind}.json"
        file.write_text(json.dumps({"embed_dim": 32, "vision_cfg": TOWERS[kind], "text_cfg": TEXT}))
        return load_clip(None, config=file, quick_gelu=quick_gelu, **options)

    return load


def views_of(encoder, count, channels=1):
    shape = (count, channels, encoder.image_size, encoder.image_size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def assert_close(features, reference):
    assert (features - reference).abs().max() <= 1e-5 * reference.abs().max()


@EACH_ENGINE
@pytest.mark.parametrize(("kind", "channels"), [("tiny", 1), ("vit", 1), ("resnet", 1), ("vit", 3)])
def test_an_exact_engine_gives_the_features_of_torch(clip, name, kind, channels):
    ours, reference = clip(kind, engine=name), clip(kind)
    views = views_of(ours, 5, channels)
    assert_close(ours.encode_views(views), reference.encode_views(views))
    assert torch.equal(ours.encode_text(["a star"]), reference.encode_text(["a star"]))


@EACH_ENGINE
def test_an_engine_keeps_quick_gelu(clip, name):
    views = views_of(clip(), 3)
    quick, plain = (clip(quick_gelu=on, engine=name).encode_views(views) for on in (True, False))
    assert_close(quick, clip(quick_gelu=True).encode_views(views))
    assert (quick - plain).abs().max() > 1e-4 * plain.abs().max()


@EACH_ENGINE
def test_batches_of_an_engine_change_no_feature(clip, name):
    ours = clip(engine=name)
    views = views_of(ours, 40)
    together = ours.encode_views(views)
    assert_close(torch.cat([ours.encode_views(part) for part in views.split(7)]), together)
    assert_close(ours.encode_views(views.flip(0)).flip(0), together)
    assert_close(torch.from_numpy(encode_in_batches(ours, [views])), together)
    assert ours.encode_views(views[:0]).shape == (0, ours.width)


@EACH_ENGINE
def test_what_an_engine_gave_stays_as_it_was(clip, name):
    ours = clip(engine=name)
    views = views_of(ours, 8)
    first = ours.encode_views(views[:4])
    kept = first.clone()
    ours.encode_views(views[4:])
    assert torch.equal(first, kept)


@EACH_ENGINE
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_an_engine_follows_a_projection_taken_and_given(clip, name, kind):
    ours, reference = clip(kind, engine=name), clip(kind)
    views = views_of(ours, 3)
    before = ours.encode_views(views)
    weight, bias = ours.take_projection()
    reference.take_projection()
    assert_close(ours.encode_views(views), reference.encode_views(views))
    ours.give_projection(2 * weight, 2 * bias)
    assert_close(ours.encode_views(views), 2 * before)


@EACH_ENGINE
def test_a_copy_of_an_engine_runs_its_own_tower(clip, name):
    ours = clip(engine=name)
    views = views_of(ours, 3)
    before = ours.encode_views(views)
    other = copy.deepcopy(ours)
    other.take_projection()
    assert other.encode_views(views).shape[1] == 64
    assert torch.equal(ours.encode_views(views), before)


@EACH_ENGINE
def test_an_aligned_tower_is_what_an_engine_runs(name):
    aligned = TINY / "aligned.safetensors"
    ours, reference = (load_clip("tiny", aligned=aligned, engine=engine) for engine in (name, "torch"))
    views = views_of(ours, 3)
    assert_close(ours.encode_views(views), reference.encode_views(views))


@OPENVINO
def test_fast_features_point_where_exact_ones_do(clip):
    views = views_of(clip("tiny"), 16)
    fast = clip("tiny", engine="openvino", engine_precision="fast").encode_views(views)
    assert nn.functional.cosine_similarity(fast, clip("tiny").encode_views(views)).min() > 0.99


@EACH_ENGINE
def test_an_engine_is_part_of_what_tells_the_features(clip, name):
    plain, ours = clip(), clip(engine=name)
    version = importlib.import_module(name).__version__
    own = {"engine": f"{name} {version}", "engine_precision": "exact"}
    assert ours.describe_image_tower() == plain.describe_image_tower() | own
    assert ours.describe() == plain.describe() | own
    assert "engine" not in plain.describe_image_tower()


@EACH_ENGINE
@pytest.mark.parametrize("parts", ["full", "lora", "bias"])
def test_a_tower_that_learns_is_none_for_an_engine(clip, name, parts):
    with pytest.raises(UserError, match=r"runs a frozen image tower.*clip\.engine=torch, or tuning=frozen"):
        tune(clip(engine=name), parts)
    tune(clip(engine=name), "frozen")


@EACH_ENGINE
def test_no_gradient_is_lost_in_an_engine(clip, name):
    ours = clip(engine=name)
    pixels = torch.zeros(1, 3, 32, 32, requires_grad=True)
    with pytest.raises(UserError, match="frozen image tower"):
        ours.encode_pixels(pixels)
    next(ours.visual.parameters()).requires_grad_()
    with pytest.raises(UserError, match="frozen image tower"):
        ours.encode_views(views_of(ours, 1))


@EACH_ENGINE
def test_an_engine_refuses_other_precisions_of_torch(clip, name):
    for options in ({"precision": "bf16"}, {"compiled": True}):
        with pytest.raises(UserError, match=r"set clip\.precision=fp32 and clip\.compiled=false"):
            clip(engine=name, **options)
    ours = clip(engine=name)
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(UserError, match=r"trainer\.precision=32-true"):
        ours.encode_views(views_of(ours, 1))


@EACH_ENGINE
def test_a_tower_that_an_engine_cannot_take_is_named(name):
    class Odd(nn.Module):
        def forward(self, images):
            raise ValueError(f"no way with {images.shape[0]}")

    with pytest.raises(UserError, match=rf"clip\.engine={name} cannot take the image tower .*Odd .*no way with"):
        Engine(name, "exact")(Odd(), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("name", [name for name in ENGINES if name != "torch"])
def test_torch_takes_the_place_of_a_missing_engine(clip, monkeypatch, caplog, name):
    monkeypatch.setattr(engines, "is_installed", lambda _: False)
    with caplog.at_level(logging.WARNING):
        ours = clip(engine=name)
    assert caplog.messages == [
        f"clip.engine={name} is not installed, and torch encodes: pip install 'eventclip[{name}]'"
    ]
    assert ours.describe_image_tower() == clip().describe_image_tower()


def test_unknown_engines_and_precisions_are_refused():
    with pytest.raises(UserError, match=r"clip\.engine=tensorrt is unknown: expected one of torch, openvino"):
        find_engine("tensorrt", "exact")
    for name in ("torch", "onnxruntime"):
        with pytest.raises(UserError, match=rf"=fast is none of clip\.engine={name}: set clip\.engine=openvino, or"):
            find_engine(name, "fast")
    with pytest.raises(UserError, match=r"=half is none of clip\.engine=openvino: expected exact or fast"):
        find_engine("openvino", "half")
    assert find_engine("torch", "exact") is None
