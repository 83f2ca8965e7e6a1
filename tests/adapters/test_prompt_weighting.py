"""Prompts weighed by recordings and recordings by prompts (TIMO), and prompts as recordings, against their laws."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eventclip.adapters.gaussian import GDAAdapter
from eventclip.adapters.probe import LinearProbeAdapter
from eventclip.adapters.prompt_weighting import guided, recording_weights
from eventclip.errors import UserError
from eventclip.models.prompts import PromptFeatures

CLASSES, SHOTS, PASSES, WIDTH, PROMPTS, SCALE = 4, 3, 2, 8, 3, 30.0
WEIGHTS = ["fixed", "support"]
TIMO = {"prompt_weighting": "timo"}


@pytest.fixture
def drawn():
    """Prompts (K, M, D), features (n, P, 1, D), valid (n, P, 1), labels (n,), tests (b, 1, D)."""
    generator = torch.Generator().manual_seed(5)
    prompts = torch.randn(CLASSES, PROMPTS, WIDTH, generator=generator)
    labels = torch.arange(CLASSES).repeat_interleave(SHOTS)
    noise = torch.randn(len(labels), PASSES, 1, WIDTH, generator=generator)
    features = prompts.mean(1)[labels][:, None, None] + 0.7 * noise
    tests = torch.randn(6, 1, WIDTH, generator=generator)
    return F.normalize(prompts, dim=-1), features, torch.ones(features.shape[:3], dtype=torch.bool), labels, tests


def whole(prompts):
    return PromptFeatures(prompts, torch.ones(prompts.shape[:2], dtype=torch.bool))


def fitted(kind, prompts, drawn, **options):
    _, features, valid, labels, _ = drawn
    adapter = kind(prompts.mean(), SCALE, prompt_features=prompts, **options)
    adapter.fit_support(features, valid, labels)
    return adapter


def said(kind, prompts, drawn, **options):
    tests = drawn[-1]
    return fitted(kind, prompts, drawn, **options)(tests, torch.ones(tests.shape[:2], dtype=torch.bool))


def gathered(prompts, drawn):
    adapter = GDAAdapter(prompts.mean(), SCALE, prompt_features=prompts)
    return adapter.gathered(*drawn[1:4], "support")


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("kind", [GDAAdapter, LinearProbeAdapter])
def test_one_prompt_a_class_is_as_before_bit_for_bit(drawn, kind, weights):
    alone = whole(drawn[0][:, :1])
    padded = PromptFeatures(drawn[0], torch.tensor([[True, False, False]] * CLASSES))
    adapter = kind(alone.mean(), SCALE, weights=weights)
    adapter.fit_support(*drawn[1:4])
    before = adapter(drawn[-1], torch.ones(6, 1, dtype=torch.bool))
    for prompts in (alone, padded):
        assert torch.equal(said(kind, prompts, drawn, weights=weights, **TIMO), before)
        assert "gamma" not in fitted(kind, prompts, drawn, weights=weights, **TIMO).fitted


@pytest.mark.parametrize("kind", [GDAAdapter, LinearProbeAdapter])
def test_gamma_of_0_is_the_mean_bit_for_bit(drawn, kind):
    prompts = whole(drawn[0])
    plain = said(kind, prompts, drawn, weights="fixed")
    assert torch.equal(said(kind, prompts, drawn, weights="fixed", gamma=0.0, **TIMO), plain)
    near = said(kind, prompts, drawn, weights="fixed", gamma=1e-5, **TIMO)
    torch.testing.assert_close(near, plain, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(said(kind, prompts, drawn, weights="fixed", gamma=5.0, **TIMO), plain, atol=0.05)


@pytest.mark.parametrize("options", [TIMO, {"prompt_samples": True}, {**TIMO, "prompt_samples": True}])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_neither_order_doubling_nor_padding_of_prompts_counts(drawn, options, weights):
    kinds = [GDAAdapter] if "prompt_samples" in options else [GDAAdapter, LinearProbeAdapter]
    prompts = drawn[0]
    junk = torch.cat([prompts, torch.full((CLASSES, 2, WIDTH), float("nan"))], dim=1)
    valid = torch.tensor([[True] * PROMPTS + [False] * 2] * CLASSES)
    alike = [whole(prompts.flip(1)), whole(prompts.repeat(1, 2, 1)), PromptFeatures(junk, valid)]
    for kind in kinds:
        expected = said(kind, whole(prompts), drawn, weights=weights, **options)
        for other in alike:
            ours = said(kind, other, drawn, weights=weights, **options)
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=2e-3)


def test_weighted_text_is_as_its_formula_says(drawn):
    support = gathered(whole(drawn[0]), drawn)
    text = guided(support, 4.0).text.numpy()
    prompts, recordings, labels = drawn[0].numpy(), support.recordings.numpy(), support.labels.numpy()
    for k in range(CLASSES):
        raised = np.exp(4.0 * (prompts[k] @ recordings[labels == k].T).mean(1))
        expected = (raised[:, None] / raised.sum() * prompts[k]).sum(0)
        np.testing.assert_allclose(text[k], expected / np.linalg.norm(expected), atol=1e-5)


def test_a_large_gamma_leaves_the_nearest_prompt(drawn):
    support = gathered(whole(drawn[0]), drawn)
    cosines = torch.einsum("kmd,kd->km", drawn[0], support.class_means(support.recordings))
    nearest = drawn[0][torch.arange(CLASSES), cosines.argmax(dim=1)]
    torch.testing.assert_close(guided(support, 1e5).text, nearest)


def test_recordings_weigh_as_their_formula_says(drawn):
    support = guided(gathered(whole(drawn[0]), drawn), 4.0)
    weights = recording_weights(support, 4.0)
    cosines = (support.recordings * support.text[support.labels]).sum(1)
    for k in range(CLASSES):
        own = support.labels == k
        torch.testing.assert_close(weights[own], SHOTS * (4.0 * cosines[own]).softmax(0))


def test_a_class_of_one_prompt_keeps_its_text_and_its_means(drawn):
    valid = torch.ones(CLASSES, PROMPTS, dtype=torch.bool)
    valid[1, 1:] = False
    support = gathered(PromptFeatures(drawn[0], valid), drawn)
    moved = guided(support, 9.0)
    assert torch.equal(moved.text[1], support.text[1])
    assert not torch.allclose(moved.text[0], support.text[0], atol=1e-3)
    weights = recording_weights(moved, 9.0)
    assert torch.equal(weights[support.labels == 1], torch.ones(SHOTS))
    assert not torch.allclose(weights[support.labels == 0], torch.ones(SHOTS), atol=1e-3)


def test_prompts_are_one_more_recording_moved_to_the_others(drawn):
    prompts, features, _, labels, tests = drawn
    ours = said(GDAAdapter, whole(prompts), drawn, weights="fixed", alpha=1.0, prompt_samples=True)
    means = F.normalize(features, dim=-1).squeeze(2).reshape(CLASSES, SHOTS * PASSES, WIDTH).mean(1)
    moved = prompts - prompts.mean(1).mean(0) + means.mean(0)
    recordings = torch.cat([F.normalize(features, dim=-1).squeeze(2).double(), torch.zeros(CLASSES, PASSES, WIDTH)])
    labels = torch.cat([labels, torch.arange(CLASSES)])
    samples = [recordings[i] for i in range(len(recordings) - CLASSES)] + [row.double() for row in moved]
    total = torch.stack([one.mean(0) for one in samples])
    mu = torch.stack([total[labels == k].mean(0) for k in range(CLASSES)])
    scatter = sum((one - mu[k]).T @ (one - mu[k]) / len(one) for one, k in zip(samples, labels, strict=True))
    count = len(samples)
    shrunk = (scatter + torch.eye(WIDTH) * torch.trace(scatter) / (count - 1)) / count
    weight = torch.linalg.solve(shrunk, mu.T).T
    unit = F.normalize(tests[:, 0], dim=-1).double()
    gaussian = unit @ weight.T - 0.5 * (weight * mu).sum(1)
    expected = (SCALE * unit @ whole(prompts).mean().double().T + gaussian) / 4
    torch.testing.assert_close(ours[:, 0].double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [GDAAdapter, LinearProbeAdapter])
def test_cross_validation_sets_gamma_and_tells_it(drawn, kind):
    told = fitted(kind, whole(drawn[0]), drawn, weights="support", **TIMO).fitted
    assert told["weights"] == "support"
    assert told["gamma"] in (0.0, 1.0, 10.0, 100.0)
    assert fitted(kind, whole(drawn[0]), drawn, weights="fixed", gamma=7.0, **TIMO).fitted["gamma"] == 7.0


def test_what_cannot_be_meant_is_told():
    text = torch.eye(3, 8)
    with pytest.raises(UserError, match=r"adapter\.prompt_weighting must be mean or timo, got 'best'"):
        GDAAdapter(text, SCALE, prompt_weighting="best")
    with pytest.raises(UserError, match=r"adapter\.gamma must be a number of 0 or more, got -1"):
        LinearProbeAdapter(text, SCALE, gamma=-1)
