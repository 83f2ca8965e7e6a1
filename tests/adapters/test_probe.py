"""Linear probes end in their minimum, which the prior's weight moves; LP++ against its steps in plain numpy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eventclip.adapters.probe import LinearProbeAdapter, LPPlusPlusAdapter, RandomProbeAdapter, clap_weights

CLASSES, SHOTS, WIDTH, SCALE = 4, 5, 8, 30.0


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def drawn():
    """Text (K, D), support (n, P, D) of one view, labels (n,)."""
    rng = np.random.default_rng(4)
    text = rng.standard_normal((CLASSES, WIDTH)) + 0.3
    labels = np.repeat(np.arange(CLASSES), SHOTS)
    return text, 2 * (unit(text)[labels][:, None] + 0.6 * rng.standard_normal((len(labels), 2, WIDTH))), labels


def fitted(drawn, kind=LinearProbeAdapter, **options):
    text, passes, labels = (torch.from_numpy(np.asarray(part)) for part in drawn)
    adapter = kind(text.float(), SCALE, **options)
    views = torch.ones(*passes.shape[:2], 1, dtype=torch.bool)
    adapter.fit_support(passes.float().unsqueeze(2), views, labels)
    return adapter


def gradient(weight, drawn, prior, held):
    _, passes, labels = drawn
    features = unit(passes)
    logits = features @ weight.T
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    errors = odds / odds.sum(-1, keepdims=True) - np.eye(CLASSES)[labels][:, None]
    return np.einsum("npk,npd->kd", errors, features) / passes.shape[1] + held[:, None] * (weight - prior)


@pytest.mark.long
@pytest.mark.parametrize("prior_weight", [1.0, 0.01, 1e-4])
@pytest.mark.parametrize("kind", ["uniform", "clap", "random"])
def test_a_probe_ends_where_the_gradient_is_nil(drawn, kind, prior_weight):
    options = {"weights": "fixed", "prior_weight": prior_weight}
    held, prior = np.full(CLASSES, prior_weight), SCALE * unit(drawn[0])
    if kind == "random":
        adapter, prior = fitted(drawn, RandomProbeAdapter, **options), 0 * prior
    else:
        adapter = fitted(drawn, class_weights=kind, **options)
    if kind == "clap":
        recordings = torch.from_numpy(unit(unit(drawn[1]).mean(1))).float()
        zero_shot = (SCALE * recordings @ F.normalize(torch.from_numpy(drawn[0]).float(), dim=1).T).softmax(1)
        own = zero_shot[torch.arange(len(recordings)), torch.from_numpy(drawn[2])].reshape(CLASSES, SHOTS).mean(1)
        held = held * (own / own.mean()).numpy()
    weight = adapter.weight.double().numpy()
    assert np.abs(gradient(weight, drawn, prior, held)).max() < 2e-4
    assert np.abs(gradient(prior, drawn, prior, held)).max() > 0.1


@pytest.mark.long
def test_an_endless_prior_is_zero_shot_a_loose_one_is_not(drawn):
    _, passes, labels = drawn
    tight, loose = (fitted(drawn, weights="fixed", prior_weight=weight) for weight in (1e7, 1e-5))
    torch.testing.assert_close(tight.weight, SCALE * tight.text_features, rtol=0, atol=1e-4)
    held, learned = (
        (unit(passes) @ adapter.weight.numpy().T).argmax(-1) == labels[:, None] for adapter in (tight, loose)
    )
    assert learned.mean() > held.mean() + 0.05


@pytest.mark.long
def test_labels_that_say_nothing_make_logits_small(drawn):
    """Labels drawn blindly: what was learned of them is of no use for recordings left out."""
    text, passes, labels = drawn
    shuffled = np.random.default_rng(0).permutation(labels)
    blind, told = fitted((text, passes, shuffled)), fitted(drawn)
    assert blind.fitted["temperature"] > 2 * told.fitted["temperature"]


@pytest.mark.long
def test_a_random_probe_forgets_the_text(drawn):
    text, passes, labels = drawn
    other = fitted((text[::-1].copy(), passes, labels), RandomProbeAdapter)
    assert torch.equal(other.weight, fitted(drawn, RandomProbeAdapter).weight)


def test_a_class_that_zero_shot_never_finds_is_still_held(drawn):
    text, passes, labels = drawn
    adapter = LinearProbeAdapter(torch.from_numpy(text).float(), 1e4)
    views = torch.ones(*passes.shape[:2], 1, dtype=torch.bool)
    mixed = torch.from_numpy(np.where(labels == 0, 1, np.where(labels == 1, 0, labels)))
    support = adapter.gathered(torch.from_numpy(passes).float().unsqueeze(2), views, mixed, "support")
    held = clap_weights(support, 1e4)
    assert held.min() > 0
    assert held.argmin() < 2


def test_lp_plus_plus_takes_the_steps_of_its_paper(drawn):
    text, passes, labels = drawn
    features, t, count = unit(passes), unit(text), len(labels)
    targets = np.eye(CLASSES)[labels][:, None]
    means = features.mean(1)
    weight = np.stack([means[labels == k].sum(0) for k in range(CLASSES)])
    blend = np.array([250 * SCALE / 100 * (means[labels == k] @ t[k]).mean() for k in range(CLASSES)])
    bias = np.zeros(CLASSES)
    cosines = features @ t.T
    rate = 4 * count / np.linalg.eigvalsh(np.einsum("npd,npe->de", features, features) / 2)[-1]
    blend_rate = count / (4 * (cosines**2).mean(1).sum(0).max())
    speed_w, speed_b, speed_a = 0, 0, 0
    for step in range(20):
        logits = features @ weight.T + bias + blend * cosines
        odds = np.exp(logits - logits.max(-1, keepdims=True))
        errors = (odds / odds.sum(-1, keepdims=True) - targets) / 2 / count
        speed_w = 0.9 * speed_w + np.einsum("npk,npd->kd", errors, features)
        speed_b = 0.9 * speed_b + errors.sum((0, 1))
        weight, bias = weight - rate * speed_w, bias - rate * speed_b
        if step in (9, 19):
            speed_a = 0.9 * speed_a + (errors * cosines).sum((0, 1))
            blend = blend - blend_rate * speed_a
    adapter = fitted(drawn, LPPlusPlusAdapter, weights="fixed", steps=20)
    np.testing.assert_allclose(adapter.weight, weight, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(adapter.bias, bias, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(adapter.blend, blend, rtol=1e-3, atol=1e-3)
