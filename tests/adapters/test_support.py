"""Laws of every adapter that a support fits: what order, padding, passes and storage may not change, and bad input."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from eventclip.adapters import kernel as kernel_module
from eventclip.adapters.best import BestAdapter
from eventclip.adapters.gaussian import GDAAdapter, PrototypeAdapter
from eventclip.adapters.kernel import ProKeRAdapter, TipAdapter, TipAdapterF
from eventclip.adapters.paper import IdentityAdapter
from eventclip.adapters.probe import LinearProbeAdapter, LPPlusPlusAdapter, RandomProbeAdapter
from eventclip.adapters.projection import ProLIPAdapter
from eventclip.adapters.support import SupportAdapter, mean_features
from eventclip.errors import UserError
from eventclip.models.classifier import EventClassifier

KINDS = {
    "best": BestAdapter,
    "prototype": PrototypeAdapter,
    "gda": GDAAdapter,
    "proker": ProKeRAdapter,
    "linear_probe": LinearProbeAdapter,
    "prolip": lambda text, *given, **options: ProLIPAdapter(
        text, *given, projection=(torch.eye(text.shape[1]), torch.zeros(text.shape[1])), **options
    ),
    "clap": lambda *given, **options: LinearProbeAdapter(*given, class_weights="clap", **options),
    "random_probe": RandomProbeAdapter,
    "lp++": lambda *given, **options: LPPlusPlusAdapter(*given, steps=60, **options),
    "tip": TipAdapter,
    "tip-f": lambda *given, **options: TipAdapterF(*given, epochs=3, **options),
}
MODES = ("fixed", "support", "validation")
CLASSES, WIDTH, SCALE = 5, 12, 20.0
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def recordings(count, seed=0, *, passes=2, views=3):
    """Features (n, P, V, D), valid (n, P, V) with gaps, labels (n,): count of each class about a common text."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat(count)
    centres = F.normalize(text(), dim=1)
    noise = torch.randn(len(labels), passes, views, WIDTH, generator=generator)
    features = 3 * (centres[labels][:, None, None] + 0.35 * noise)
    valid = torch.rand(len(labels), passes, views, generator=generator) < 0.8
    valid[:, 0, 0] = True
    return features, valid, labels


def text():
    return torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(99)) + 0.5


def build(kind, weights="fixed"):
    return KINDS[kind](text(), SCALE, weights=weights)


def fit(kind, features, valid, labels, weights="fixed"):
    adapter = build(kind, weights)
    adapter.fit_support(features, valid, labels, validation=recordings(3, seed=5, passes=1), seed=3)
    return adapter


def logits_of(adapter, count=4):
    features, valid, _ = recordings(count, seed=7, passes=1)
    return adapter(features[:, 0], valid[:, 0])


@pytest.mark.parametrize("weights", MODES)
@pytest.mark.parametrize("kind", KINDS)
class TestLaws:
    @pytest.mark.long
    def test_order_padding_and_doubled_passes_change_nothing(self, kind, weights):
        features, valid, labels = recordings(3)
        expected = logits_of(fit(kind, features, valid, labels, weights))
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
        turned = logits_of(fit(kind, features[order], valid[order], labels[order], weights))
        torch.testing.assert_close(turned, expected, **CLOSE)
        padding = torch.full_like(features, float("nan"))
        wider = fit(kind, torch.cat([padding, features], 2), torch.cat([valid & False, valid], 2), labels, weights)
        torch.testing.assert_close(logits_of(wider), expected, **CLOSE)
        for doubled in (torch.cat, lambda pair, dim: torch.stack(pair, dim + 1).flatten(dim, dim + 1)):
            twice = fit(kind, doubled([features] * 2, 1), doubled([valid] * 2, 1), labels, weights)
            torch.testing.assert_close(logits_of(twice), expected, **CLOSE)

    def test_a_fresh_module_takes_what_was_stored(self, kind, weights):
        fitted = fit(kind, *recordings(3), weights)
        state = {f"adapter.{name}": value.clone() for name, value in fitted.state_dict().items()}
        fresh = torch.nn.ModuleDict({"adapter": build(kind, weights)})
        fresh.load_state_dict(state)
        assert torch.equal(logits_of(fresh["adapter"]), logits_of(fitted))
        sized = build(kind, weights)
        sized.resize_for(fitted.state_dict())
        for name, value in fitted.state_dict().items():
            assert sized.state_dict()[name].shape == value.shape

    def test_what_was_fitted_is_told_in_plain_values(self, kind, weights):
        adapter = fit(kind, *recordings(3), weights)
        assert adapter.fitted["weights"] == weights
        assert adapter.fitted["temperature"] == pytest.approx(adapter.temperature.item())
        assert {type(value) for name, value in adapter.fitted.items() if name != "weights"} == {float}

    def test_classes_that_the_support_shows_are_recognised(self, kind, weights):
        adapter = fit(kind, *recordings(8), weights)
        features, valid, labels = recordings(20, seed=11, passes=1)
        right = adapter(features[:, 0], valid[:, 0]).sum(1).argmax(1).eq(labels).float().mean()
        assert right > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_before_it_is_fitted_it_is_zero_shot(kind):
    adapter = build(kind)
    assert not list(adapter.parameters())
    expected = logits_of(IdentityAdapter(text(), SCALE))
    torch.testing.assert_close(logits_of(adapter), expected)
    assert not torch.equal(logits_of(fit(kind, *recordings(3))), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_views_change_nothing_and_have_zero_logits(kind):
    adapter = fit(kind, *recordings(3))
    features, valid, _ = recordings(2, seed=7, passes=1)
    features, valid = features[:, 0], valid[:, 0]
    clean = adapter(features, valid)
    poisoned = adapter(torch.where(valid.unsqueeze(-1), features, torch.tensor(float("nan"))), valid)
    assert torch.equal(poisoned, clean)
    assert not clean[~valid].any()
    own = clean[valid.all(dim=1)]
    assert torch.equal(own, own[:, :1].expand_as(own))  # all valid views of a recording say the same


@pytest.mark.parametrize("kind", KINDS)
def test_one_shot_in_one_pass_falls_back_to_constants(kind):
    features, valid, labels = recordings(1, passes=1)
    adapter = fit(kind, features, valid, labels, "support")
    assert adapter.fitted["weights"] == "fixed"
    torch.testing.assert_close(logits_of(adapter), logits_of(fit(kind, features, valid, labels)))
    assert logits_of(adapter).isfinite().all()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_second_fit_forgets_the_first(kind):
    adapter = fit(kind, *recordings(4, seed=2), "support")
    adapter.fit_support(*recordings(2), seed=3)
    torch.testing.assert_close(logits_of(adapter), logits_of(fit(kind, *recordings(2), "support")))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_temperature_makes_held_out_recordings_likelier(kind):
    """Labels of which a third are wrong: what constants say is far too sure, what the support chose is not."""
    features, valid, labels = recordings(9)
    labels = torch.where(torch.arange(len(labels)) % 3 == 0, (labels + 1) % CLASSES, labels)
    fresh, fresh_valid, truth = recordings(30, seed=13, passes=1)
    truth = torch.where(torch.arange(len(truth)) % 3 == 0, (truth + 1) % CLASSES, truth)
    fixed, chosen = fit(kind, features, valid, labels), fit(kind, features, valid, labels, "support")
    first = fresh_valid[:, 0].float().argmax(1)
    losses = [
        F.cross_entropy(adapter(fresh[:, 0], fresh_valid[:, 0])[torch.arange(len(truth)), first], truth)
        for adapter in (fixed, chosen)
    ]
    assert losses[1] < losses[0] + 0.02
    assert losses[1] < torch.log(torch.tensor(CLASSES))  # better than knowing nothing


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_does_not_round_the_logits(kind):
    adapter = fit(kind, *recordings(3))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = logits_of(adapter)
    assert torch.equal(mixed, logits_of(adapter))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_recordings_choose_by_those_of_some_classes(kind, monkeypatch):
    monkeypatch.setattr(SupportAdapter, "judged_by", 6)
    for weights, count in (("support", 3), ("support", 9), ("validation", 3)):
        adapter = fit(kind, *recordings(count), weights)
        assert adapter.fitted["weights"] == weights
        assert logits_of(adapter).isfinite().all()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_classes_may_have_unlike_numbers_of_recordings(kind):
    features, valid, labels = recordings(6)
    kept = torch.arange(len(labels)) // CLASSES < 2 + labels  # 2 of class 0 to 6 of class 4
    adapter = fit(kind, features[kept], valid[kept], labels[kept], "support")
    assert adapter.fitted["weights"] == "support"
    tests, tests_valid, truth = recordings(20, seed=11, passes=1)
    assert adapter(tests[:, 0], tests_valid[:, 0]).sum(1).argmax(1).eq(truth).float().mean() > 0.85


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_stores_it_and_takes_it_back(kind, golden_clip, golden_batch):
    features, valid, labels, text = golden_batch
    classes = labels.unique()
    labels = torch.searchsorted(classes, labels)
    fitted, other = (EventClassifier(golden_clip, KINDS[kind](text[classes], 100.0, weights="fixed")) for _ in range(2))
    fitted.adapter.fit_support(features.unsqueeze(1), valid.unsqueeze(1), labels)
    state = fitted.learned_state_dict()
    other.adapter.resize_for({name.removeprefix("adapter."): value for name, value in state.items()})
    other.load_learned_state_dict(state)
    assert torch.equal(other(features=features, valid=valid).logits, fitted(features=features, valid=valid).logits)


def broken(change):
    features, valid, labels = recordings(2)
    return change(features, valid, labels)


def with_value(tensor, place, value):
    changed = tensor.clone()
    changed[place] = value
    return changed


BAD = {
    "class 3 has no recording": lambda f, v, y: (f[y != 3], v[y != 3], y[y != 3]),
    "class 1 and 3 more have no recording": lambda f, v, y: (f[y == 0], v[y == 0], y[y == 0]),
    "from -1 to 4": lambda f, v, y: (f, v, with_value(y, 1, -1)),
    "from 0 to 5": lambda f, v, y: (f, v, with_value(y, 1, CLASSES)),
    "torch.float32": lambda f, v, y: (f, v, y.float()),
    "recording 2 of the support has features that are not finite": lambda f, v, y: (
        with_value(f, (2, 0, 0), float("nan")),
        v,
        y,
    ),
    "recording 4 of the support has no valid view": lambda f, v, y: (f, with_value(v, 4, False), y),
    r"features \(10, 3, 12\)": lambda f, v, y: (f[:, 0], v[:, 0], y),
    r"features \(10, 2, 3, 11\)": lambda f, v, y: (f[..., 1:], v, y),
    r"valid \(10, 2, 2\)": lambda f, v, y: (f, v[..., 1:], y),
    r"labels \(9,\)": lambda f, v, y: (f, v, y[1:]),
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_recordings_are_told_in_a_sentence(sentence):
    with pytest.raises(UserError, match=sentence):
        PrototypeAdapter(text(), SCALE).fit_support(*broken(BAD[sentence]))


def test_no_recording_and_one_class_are_told_in_a_sentence():
    features, valid, labels = recordings(2)
    with pytest.raises(UserError, match="class 0 and 4 more have no recording"):
        PrototypeAdapter(text(), SCALE).fit_support(features[:0], valid[:0], labels[:0])
    with pytest.raises(UserError, match="one class only"):
        PrototypeAdapter(text()[:1], SCALE).fit_support(features, valid, labels * 0)


def test_a_validation_set_must_be_there_and_fit():
    adapter = PrototypeAdapter(text(), SCALE, weights="validation")
    with pytest.raises(UserError, match=r"adapter\.weights=validation needs validation recordings"):
        adapter.fit_support(*recordings(2))
    features, valid, labels = recordings(2, passes=1)
    with pytest.raises(UserError, match="the validation set has features"):
        adapter.fit_support(*recordings(2), validation=(features[..., 1:], valid, labels))
    some = labels < 2  # not every class need be in it
    adapter.fit_support(*recordings(2), validation=(features[some], valid[some], labels[some]))
    assert adapter.fitted["weights"] == "validation"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (PrototypeAdapter, {"weights": "test"}),
        (PrototypeAdapter, {"text_shots": 0}),
        (GDAAdapter, {"alpha": -1.0}),
        (ProKeRAdapter, {"beta": float("nan")}),
        (ProKeRAdapter, {"regularization": 0.0}),
        (ProKeRAdapter, {"blend": float("inf")}),
        (LinearProbeAdapter, {"prior_weight": 0.0}),
        (LinearProbeAdapter, {"class_weights": "mine"}),
        (LPPlusPlusAdapter, {"steps": 0}),
        (TipAdapter, {"alpha": 0.0}),
        (TipAdapterF, {"epochs": 1.5}),
    ],
)
def test_impossible_options_are_refused(kind, options):
    name = next(iter(options))
    with pytest.raises(UserError, match=rf"adapter\.{name} must be"):
        kind(text(), SCALE, **options)


def test_a_gram_matrix_beyond_memory_is_told_before_it_is_made(monkeypatch):
    monkeypatch.setattr(kernel_module, "memory_of", lambda device: 1000)
    with pytest.raises(UserError, match=r"Gram matrix of 10 recordings needs about 0\.0 GB"):
        ProKeRAdapter(text(), SCALE).fit_support(*recordings(2))


def test_a_support_leaves_what_it_was_given_as_it_was():
    given = recordings(2)
    kept = copy.deepcopy(given)
    for kind in KINDS:
        fit(kind, *given)
    assert all(torch.equal(one, other) for one, other in zip(given, kept, strict=True))


def test_mean_features_by_hand():
    features = torch.tensor([[[3.0, 0.0], [0.0, 2.0], [float("nan"), 1.0]]])
    mean = mean_features(features, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(mean, torch.full((1, 2), 0.5**0.5))
    assert not mean_features(features, torch.zeros(1, 3, dtype=torch.bool)).any()


def test_a_thinned_support_keeps_two_of_each_class():
    support = build("prototype").gathered(*recordings(12), "support")
    assert support.thinned(15).counts.tolist() == [4] * CLASSES  # ranks 0, 1, 4 and 8
    assert support.thinned(1).counts.tolist() == [2] * CLASSES
    assert len(support.thinned(1000)) == len(support)


def test_some_classes_of_a_support_are_numbered_anew():
    adapter = build("prototype")
    support = adapter.gathered(*recordings(2), "support")
    some = support.of_classes(torch.tensor([3, 1]))
    assert some.labels.tolist() == [1, 1, 0, 0]
    assert torch.equal(some.text, support.text[[3, 1]])
    assert torch.equal(some.passes, support.passes[(support.labels == 1) | (support.labels == 3)])
    assert dataclasses.is_dataclass(some)
