"""Checkpoints of the reference implementation give the golden logits under our names."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eventclip.adapters.paper import JointAdapter, TextAdapter, VisualAdapter
from eventclip.errors import UserError
from eventclip.models.checkpoint import from_reference, load_reference_checkpoint
from eventclip.models.classifier import EventClassifier

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SMALL = {"width": 64, "heads": 2, "mlp_width": 128, "residual": 0.8}


def assert_golden(encoder, adapter, state, golden, golden_batch, kind):
    features, valid, _, _ = golden_batch
    for pooling in ("mean", "max"):
        classifier = EventClassifier(encoder, adapter, pooling=pooling).eval()
        classifier.load_learned_state_dict(state)
        prediction = classifier(features=features, valid=valid)
        for ours, name in ((prediction.logits, "logits"), (prediction.probabilities, "probs")):
            expected = golden[0][f"fs_{kind}_{pooling}_logits/{name}"]
            np.testing.assert_allclose(ours.detach(), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_a_text_adapters_checkpoint_is_golden(golden_clip, golden, golden_batch):
    state = load_reference_checkpoint(GOLDEN / "reference_text-identity.pth")
    assert set(state) == {"adapter.text_features"}
    assert_golden(golden_clip, TextAdapter(golden_batch[3], 100.0), state, golden, golden_batch, "text-identity")


@pytest.mark.parametrize(("kind", "build"), [("trans", VisualAdapter), ("text-trans", JointAdapter)])
def test_a_transformer_adapters_checkpoint_is_golden(golden_folder, golden_clip, golden, golden_batch, kind, build):
    state = load_reference_checkpoint(golden_folder / f"reference_{kind}.pth")
    assert_golden(golden_clip, build(golden_batch[3], 100.0, **SMALL), state, golden, golden_batch, kind)


def test_fine_tuned_and_lora_weights_find_their_places():
    tensor = torch.zeros(1)
    attention = "visual.transformer.resblocks.0.attn"
    state = {
        "text_feats": tensor,
        "model.visual.conv1.weight": tensor,
        f"model.{attention}.in_proj_weight.lora_down_q": tensor,
        f"model.{attention}.out_proj.lora_up.weight": tensor,
    }
    assert set(from_reference(state)) == {
        "adapter.text_features",
        "encoder.visual.conv1.weight",
        f"encoder.{attention}.parametrizations.in_proj_weight.0.down.q",
        f"encoder.{attention}.out_proj.parametrizations.weight.0.up.o",
    }


def test_a_checkpoint_for_another_adapter_is_refused(golden_clip, golden_batch):
    state = load_reference_checkpoint(GOLDEN / "reference_text-identity.pth")
    with pytest.raises(UserError, match=r"lacks adapter\.in_projection"):
        EventClassifier(golden_clip, JointAdapter(golden_batch[3], 100.0)).load_learned_state_dict(state)


def test_other_files_are_refused_in_a_sentence(tmp_path):
    path = tmp_path / "x.pth"
    for content in ({"weights": {}}, [1, 2], {"state_dict": {"text_feats": 3}}):
        torch.save(content, path)
        with pytest.raises(UserError, match="is no checkpoint of the reference"):
            load_reference_checkpoint(path)
    torch.save({"state_dict": {"model.transformer.x": torch.zeros(1)}}, path)
    with pytest.raises(UserError, match=r"model\.transformer\.x is no learned tensor"):
        load_reference_checkpoint(path)
    path.write_bytes(b"nothing of the kind")
    for broken in (path, tmp_path / "absent.pth"):
        with pytest.raises(UserError, match="cannot be read as a checkpoint"):
            load_reference_checkpoint(broken)
