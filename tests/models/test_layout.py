"""Compiled or laid out otherwise, a tower is the same tower: names, checksum, features up to rounding."""

import functools
import json

import pytest
import torch
from open_clip.modified_resnet import ModifiedResNet

from eventclip.errors import UserError
from eventclip.models.factory import load_clip
from eventclip.models.tuning import tune

pytestmark = pytest.mark.long

RESNET = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}


@pytest.fixture
def traced(monkeypatch):
    """Compile without making kernels, which takes a minute; gives the numbers of operators of each graph."""
    graphs = []

    def as_it_is(graph, _inputs):
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=as_it_is))
    yield graphs
    torch.compiler.reset()


def views_of(count, side=32):
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def assert_same_tower(compiled, plain):
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert compiled.weights_sha256 == plain.weights_sha256
    with torch.inference_mode():
        for count in (7, 3, 1, 12):
            torch.testing.assert_close(
                compiled.encode_views(views_of(count)), plain.encode_views(views_of(count)), rtol=1e-4, atol=1e-5
            )


def test_a_compiled_tower_encodes_any_number_of_views(tiny_clip_json, traced):
    plain, compiled = (load_clip(None, None, config=tiny_clip_json, compiled=on) for on in (False, True))
    assert not traced
    assert_same_tower(compiled, plain)
    assert 1 <= len(traced) <= 3  # one size, any size, a view alone


@pytest.mark.slow
def test_compiled_kernels_encode_any_number_of_views(tiny_clip_json):
    assert_same_tower(*(load_clip(None, None, config=tiny_clip_json, compiled=on) for on in (True, False)))


def test_what_learns_in_a_compiled_tower_gets_its_gradient(tiny_clip_json, traced):
    gradients = []
    for compiled in (False, True):
        encoder = load_clip(None, None, config=tiny_clip_json, compiled=compiled)
        tune(encoder, "lora", lora_rank=2)
        encoder.encode_views(views_of(5)).square().sum().backward()
        gradients.append({name: p.grad for name, p in encoder.named_parameters() if p.requires_grad})
    assert traced
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5)


def test_a_compiled_tower_has_features_of_its_own(tiny_clip_json):
    plain, compiled = (load_clip(None, None, config=tiny_clip_json, compiled=on) for on in (False, True))
    assert "compiled" not in plain.describe_image_tower()
    assert plain.describe_image_tower() | {"compiled": True} == compiled.describe_image_tower()


@pytest.mark.parametrize("features", ["live", "cached"])
def test_a_compiled_run_gives_the_results_of_a_plain_one(run_experiment, tmp_path, traced, features, learnable_root):
    from eventclip import EventCLIP

    found = []
    for compiled in ("false", "true"):
        own = (f"features={features}", f"paths.cache={tmp_path / 'cache'}", f"clip.compiled={compiled}")
        folder = run_experiment(*own, "logger.tensorboard=null", "callbacks.pictures=null", folder=compiled)
        model = EventCLIP.from_checkpoint(folder / "checkpoints" / "last.ckpt", device="cpu")
        file = next((learnable_root / "testing").glob("*/*.npy"))
        metrics = json.loads((folder / "results.json").read_text())["metrics"]
        found.append((metrics, torch.from_numpy(model.classify(file).probabilities)))
        assert bool(traced) == (compiled == "true")
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-4)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)


def test_a_checkpoint_from_before_there_was_a_choice_loads(run_experiment, learnable_root):
    from eventclip import EventCLIP

    path = run_experiment("trainer.max_epochs=1") / "checkpoints" / "last.ckpt"
    file = next((learnable_root / "testing").glob("*/*.npy"))
    now = EventCLIP.from_checkpoint(path, device="cpu").classify(file).probabilities
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["eventclip"]["config"]["clip"]["compiled"], checkpoint["eventclip"]["clip"]["compiled"]
    torch.save(checkpoint, path)
    assert (EventCLIP.from_checkpoint(path, device="cpu").classify(file).probabilities == now).all()


def test_a_machine_that_cannot_compile_is_told_what_to_do(tiny_clip_json, monkeypatch):
    def no_compiler(graph, _inputs):
        raise OSError("no C++ compiler found")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=no_compiler))
    encoder = load_clip(None, None, config=tiny_clip_json, compiled=True)
    with pytest.raises(UserError, match=r"no C\+\+ compiler found.*set clip\.compiled=false") as caught:
        encoder.encode_views(views_of(2))
    assert "\n" not in str(caught.value)
    torch.compiler.reset()


def test_an_error_that_is_not_the_compilers_stays_what_it_is(tiny_clip_json, traced, monkeypatch):
    encoder = load_clip(None, None, config=tiny_clip_json, compiled=True)
    monkeypatch.setattr(encoder.visual, "_compiled_call_impl", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        encoder.encode_views(views_of(2))


def fail(*_):
    raise RuntimeError("out of memory")


def test_a_resnet_with_channels_last_sees_the_same(tmp_path):
    path = tmp_path / "small_resnet.json"
    path.write_text(json.dumps(RESNET))
    encoder, other = load_clip(None, None, config=path), load_clip(None, None, config=path)
    assert isinstance(encoder.visual, ModifiedResNet)
    assert encoder.visual.layer2[0].conv2.weight.is_contiguous(memory_format=torch.channels_last)
    other.visual.to(memory_format=torch.contiguous_format)
    assert encoder.weights_sha256 == other.weights_sha256
    assert encoder.describe_image_tower() == other.describe_image_tower()
    assert_same_tower(encoder, other)
