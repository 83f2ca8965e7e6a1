"""A classifier from its sections: what one run of a sweep leaves to the next."""

import pytest
import torch

from eventclip.models import building
from eventclip.models.building import build_classifier

NAMES = ["ant", "bee"]


@pytest.fixture(autouse=True)
def _forget():
    building._kept.clear()
    yield
    building._kept.clear()


@pytest.fixture
def loaded(monkeypatch):
    """How often CLIP was loaded."""
    count = []
    build = building.build
    monkeypatch.setattr(
        building, "build", lambda node, section, *a, **k: count.append(section) or build(node, section, *a, **k)
    )
    return lambda: count.count("clip")


def test_a_sweep_loads_clip_once_and_changes_no_run(compose_experiment, loaded):
    cfg = compose_experiment("adapter=text")
    alone = build_classifier(cfg, NAMES)
    first = build_classifier(cfg, NAMES, keep=True)
    first.encoder.take_projection()  # whatever a run does to its towers stays its own
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    second = build_classifier(cfg, NAMES, keep=True)
    assert loaded() == 2
    assert second.state_dict().keys() == alone.state_dict().keys()
    assert all(torch.equal(value, alone.state_dict()[name]) for name, value in second.state_dict().items())
    views = torch.randint(0, 256, (2, 3, 1, 32, 32), dtype=torch.uint8)
    assert torch.equal(second.eval()(views).logits, alone.eval()(views).logits)


@pytest.mark.parametrize("other", ["classifier.prompts=['a {}']", "clip.precision=fp16"])
def test_other_prompts_or_weights_are_encoded_anew(compose_experiment, loaded, other):
    build_classifier(compose_experiment("adapter=text"), NAMES, keep=True)
    built = build_classifier(compose_experiment("adapter=text", other), NAMES, keep=True)
    alone = build_classifier(compose_experiment("adapter=text", other), NAMES)
    assert torch.equal(built.adapter.text_features, alone.adapter.text_features)
    assert loaded() == 3
    build_classifier(compose_experiment("adapter=gda", other), NAMES, keep=True)
    assert loaded() == 3
    build_classifier(compose_experiment("adapter=text", other), NAMES[::-1], keep=True)
    assert loaded() == 4


def test_a_file_that_changed_is_read_again(compose_experiment, loaded, tmp_path):
    sentences = tmp_path / "sentences.yaml"
    sentences.write_text("ant: [the outline of an ant]\nbee: [the outline of a bee]\n")
    cfg = compose_experiment("adapter=text", f"classifier.prompts_file={sentences}")
    first = build_classifier(cfg, NAMES, keep=True)
    sentences.write_text("ant: [six legs]\nbee: [the outline of a bee]\n")
    second = build_classifier(cfg, NAMES, keep=True)
    assert loaded() == 2
    assert not torch.equal(first.adapter.text_features[0], second.adapter.text_features[0])
    assert torch.equal(first.adapter.text_features[1], second.adapter.text_features[1])
