"""Adapters, pooling and losses give the golden logits, losses and gradients; padding never matters."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eventclip.adapters.paper import IdentityAdapter, JointAdapter, TextAdapter, VisualAdapter
from eventclip.errors import UserError
from eventclip.models.classifier import EventClassifier
from eventclip.models.pooling import logits_loss, pool_logits, pool_probabilities, probability_loss

KINDS = {"text-identity": TextAdapter, "trans": VisualAdapter, "text-trans": JointAdapter}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
SMALL = {"width": 64, "heads": 2, "mlp_width": 128}
RENAMED = {
    "text_feats": "text_features",
    "adapter.in_proj": "in_projection",
    "adapter.out_proj": "out_projection",
    "adapter.transformer_encoder": "transformer",
}


def close(ours, theirs):
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def build(kind, text, **options):
    return KINDS[kind](text, 100.0, **({} if kind == "text-identity" else SMALL | options))


@pytest.mark.parametrize("pooling", ["sum", "mean", "max"])
def test_zero_shot_is_golden_with_raw_image_features(golden, golden_batch, pooling):
    arrays, _ = golden
    features, valid, _, text = golden_batch
    view_logits = IdentityAdapter(text, 100.0, normalize_image_features=False)(features, valid)
    close(view_logits, arrays[f"zs_{pooling}/full_logits"])
    close(pool_logits(view_logits, valid, pooling), arrays[f"zs_{pooling}/logits"])
    close(pool_probabilities(view_logits, valid), arrays[f"zs_{pooling}/probs"])


@pytest.mark.parametrize("loss", ["logits", "probs"])
@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("kind", KINDS)
def test_few_shot_logits_losses_and_gradients_are_golden(golden_folder, golden, golden_batch, kind, pooling, loss):
    arrays, facts = golden
    features, valid, labels, text = golden_batch
    adapter = build(kind, text).eval()
    weights = np.load(golden_folder / "adapter_weights.npz")
    state = {}
    for name in weights.files:
        own, _, parameter = name.partition("/")
        if own == kind and parameter != "adapter.dummy":
            prefix = next(prefix for prefix in RENAMED if parameter.startswith(prefix))
            state[parameter.replace(prefix, RENAMED[prefix])] = torch.from_numpy(weights[name])
    adapter.load_state_dict(state)
    view_logits = adapter(features, valid)
    logits, probabilities = pool_logits(view_logits, valid, pooling), pool_probabilities(view_logits, valid)
    key = f"fs_{kind}_{pooling}_{loss}"
    close(logits, arrays[f"{key}/logits"])
    close(probabilities, arrays[f"{key}/probs"])
    value = logits_loss(logits, labels) if loss == "logits" else probability_loss(probabilities, labels)
    assert value.item() == pytest.approx(facts[key]["loss"], rel=1e-4)
    value.backward()
    if f"{key}/grad_text_feats" in arrays:
        close(adapter.text_features.grad, arrays[f"{key}/grad_text_feats"])
    if f"{key}/grad_in_proj" in arrays:
        close(adapter.in_projection.weight.grad, arrays[f"{key}/grad_in_proj"])


@pytest.mark.parametrize("kind", ["identity", *KINDS])
@pytest.mark.parametrize("poison", [1e3, float("nan"), float("inf")])
def test_padded_views_never_change_anything(golden_batch, kind, poison):
    features, valid, labels, text = golden_batch
    adapter = IdentityAdapter(text, 100.0) if kind == "identity" else build(kind, text, dropout=0.0)
    results = []
    for filler in (0.0, poison):
        adapter.zero_grad()
        padded = torch.where(valid.unsqueeze(-1), features, torch.tensor(filler))
        view_logits = adapter(padded, valid)
        logits = pool_logits(view_logits, valid, "mean")
        if kind != "identity":
            logits_loss(logits, labels).backward()
        gradients = [p.grad.clone() for p in adapter.parameters() if p.grad is not None]
        results.append([view_logits, logits, pool_probabilities(view_logits, valid), *gradients])
    for clean, poisoned in zip(*results, strict=True):
        assert torch.isfinite(poisoned).all()
        assert torch.equal(clean, poisoned)


@pytest.mark.parametrize("kind", ["trans", "text-trans"])
def test_more_padding_and_another_order_of_views_change_nothing(golden_batch, kind):
    features, valid, _, text = golden_batch
    adapter = build(kind, text).eval()
    logits = pool_logits(adapter(features, valid), valid, "mean")
    wider = torch.cat([features, torch.zeros_like(features)], dim=1)
    wider_valid = torch.cat([valid, torch.zeros_like(valid)], dim=1)
    torch.testing.assert_close(
        pool_logits(adapter(wider, wider_valid), wider_valid, "mean"), logits, rtol=1e-4, atol=1e-4
    )
    order = torch.tensor([2, 0, 3, 1])
    turned = pool_logits(adapter(features[:, order], valid[:, order]), valid[:, order], "mean")
    torch.testing.assert_close(turned, logits, **CLOSE)


def test_pooling_by_hand():
    view_logits = torch.tensor([[[0.0, 2.0], [4.0, 0.0], [9.0, 9.0]]])
    valid = torch.tensor([[True, True, False]])
    assert pool_logits(view_logits, valid, "mean").tolist() == [[2.0, 1.0]]
    assert pool_logits(view_logits, valid, "sum").tolist() == [[4.0, 2.0]]
    assert pool_logits(view_logits, valid, "max").tolist() == [[4.0, 2.0]]
    assert pool_probabilities(view_logits, valid).sum().item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least one valid view"):
        pool_logits(view_logits, torch.zeros(1, 3, dtype=torch.bool), "mean")


def test_a_residual_of_one_is_clip_itself(golden_batch):
    features, valid, _, text = golden_batch
    expected = IdentityAdapter(text, 100.0)(features, valid)
    torch.testing.assert_close(build("trans", text, residual=1.0).eval()(features, valid), expected)


@pytest.mark.parametrize("options", [{"heads": 3}, {"residual": 1.5}, {"dropout": 1.0}, {"layers": 0}])
def test_impossible_options_are_refused(golden_batch, options):
    with pytest.raises(UserError, match="adapter"):
        build("trans", golden_batch[3], **options)


def test_forty_steps_of_adam_are_golden(golden_batch):
    features, valid, labels, text = golden_batch
    golden_steps = np.load(Path(__file__).resolve().parents[1] / "golden" / "train_text.npz")
    adapter = TextAdapter(text, 100.0)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1.0)
    for rate, loss_before in zip(golden_steps["lr"], golden_steps["loss"], strict=True):
        optimizer.param_groups[0]["lr"] = float(rate)
        loss = logits_loss(pool_logits(adapter(features, valid), valid, "mean"), labels)
        assert loss.item() == pytest.approx(loss_before, rel=1e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(adapter.text_features.detach(), golden_steps["text_features"], rtol=1e-3, atol=1e-6)


def test_the_classifier_encodes_valid_views_only(golden_clip, golden_batch):
    _, valid, _, text = golden_batch
    classifier = EventClassifier(golden_clip, IdentityAdapter(text, golden_clip.logit_scale))
    views = torch.randint(
        0, 256, (*valid.shape, 1, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    seen = []
    encode = golden_clip.encode_views
    golden_clip.encode_views = lambda chosen: (seen.append(len(chosen)), encode(chosen))[1]
    prediction = classifier(views, valid)
    assert seen == [int(valid.sum())]
    banked = classifier(features=encode(views), valid=valid)
    torch.testing.assert_close(banked.logits, prediction.logits, rtol=1e-4, atol=1e-4)


def test_only_what_learned_is_stored_and_none_may_be_missing(golden_clip, golden_batch):
    text = golden_batch[3]
    classifier = EventClassifier(golden_clip, build("text-trans", text))
    state = classifier.learned_state_dict()
    assert all(name.startswith("adapter.") for name in state)
    other = EventClassifier(golden_clip, build("text-trans", text + 1))
    other.load_learned_state_dict(state)
    assert torch.equal(other.adapter.text_features, classifier.adapter.text_features)
    for broken, message in [
        ({k: v for k, v in state.items() if k != "adapter.text_features"}, "lacks adapter.text_features"),
        (state | {"adapter.extra": text}, "has adapter.extra"),
        (state | {"adapter.text_features": text[:3]}, r"shape \(3, 32\) in the checkpoint and \(7, 32\) here"),
    ]:
        with pytest.raises(UserError, match=message):
            other.load_learned_state_dict(broken)


def test_mixed_precision_does_not_round_the_logits(golden_batch):
    features, valid, _, text = golden_batch
    adapter = IdentityAdapter(text, 100.0, normalize_image_features=False)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = adapter(features, valid)
    assert torch.equal(mixed, adapter(features, valid))


def test_what_an_adapter_keeps_in_buffers_is_stored_too(golden_clip, golden_batch):
    class ClosedForm(IdentityAdapter):
        def __init__(self, text, scale):
            super().__init__(text, scale)
            self.register_buffer("weight", torch.zeros(3))

        def fit_support(self, features, valid, labels):
            self.weight += features[valid].mean()

    features, valid, labels, text = golden_batch
    fitted, other = (EventClassifier(golden_clip, ClosedForm(text, 100.0)) for _ in range(2))
    fitted.adapter.fit_support(features, valid, labels)
    state = fitted.learned_state_dict()
    assert set(state) == {"adapter.weight"}
    other.load_learned_state_dict(state)
    assert torch.equal(other.adapter.weight, fitted.adapter.weight)
