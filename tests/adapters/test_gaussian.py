"""Prototypes and Gaussians against plain formulas."""

import numpy as np
import pytest
import torch

from eventclip.adapters.gaussian import GDAAdapter, PrototypeAdapter, gaussian_classifier

CLASSES, SHOTS, PASSES, WIDTH, SCALE = 4, 3, 2, 8, 30.0


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def drawn():
    """Text (K, D), support passes (n, P, D) of one view, labels (n,), tests (b, D)."""
    rng = np.random.default_rng(3)
    text = rng.standard_normal((CLASSES, WIDTH)) + 0.3
    labels = np.repeat(np.arange(CLASSES), SHOTS)
    passes = 2 * (unit(text)[labels][:, None] + 0.5 * rng.standard_normal((len(labels), PASSES, WIDTH)))
    return text, passes, labels, rng.standard_normal((6, WIDTH))


def logits_of(adapter, drawn):
    text, passes, labels, tests = (torch.from_numpy(np.asarray(part)) for part in drawn)
    adapter = adapter(text.float(), SCALE)
    views = torch.ones(*passes.shape[:2], 1, dtype=torch.bool)
    adapter.fit_support(passes.float().unsqueeze(2), views, labels)
    return adapter(tests.float().unsqueeze(1), torch.ones(len(tests), 1, dtype=torch.bool))[:, 0].numpy()


def test_prototypes_are_as_their_formula_says(drawn):
    text, passes, labels, tests = drawn
    recordings = unit(unit(passes).mean(1))
    means = unit(np.stack([recordings[labels == k].mean(0) for k in range(CLASSES)]))
    share = SHOTS / (SHOTS + 2.5)
    blended = (1 - share) * unit(text) + share * means
    cosines = unit(tests) @ blended.T
    ours = logits_of(lambda *given: PrototypeAdapter(*given, weights="fixed", text_shots=2.5), drawn)
    np.testing.assert_allclose(ours, SCALE * cosines, rtol=1e-4, atol=1e-4)


def test_gda_is_as_its_formula_says(drawn):
    text, passes, labels, tests = drawn
    passes, count = unit(passes), len(labels)
    means = np.stack([passes[labels == k].mean((0, 1)) for k in range(CLASSES)])
    away = (passes - means[labels][:, None]).reshape(-1, WIDTH)
    covariance = away.T @ away / PASSES / (count - 1)
    precision = count * np.linalg.inv((count - 1) * covariance + np.trace(covariance) * np.eye(WIDTH))
    weight = means @ precision
    gaussian = unit(tests) @ weight.T - 0.5 * np.einsum("kd,kd->k", weight, means)
    expected = (SCALE * unit(tests) @ unit(text).T + 0.7 * gaussian) / (1 + 3 * 0.7)
    ours = logits_of(lambda *given: GDAAdapter(*given, weights="fixed", alpha=0.7), drawn)
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3)


def test_gaussians_of_round_covariance_choose_the_nearest_mean():
    generator = torch.Generator().manual_seed(0)
    means, points = (torch.randn(rows, 7, generator=generator, dtype=torch.float64) for rows in (5, 40))
    weight, bias = gaussian_classifier(means, 0.3 * torch.eye(7, dtype=torch.float64))
    log_odds = points @ weight.T + bias
    distances = torch.cdist(points, means).square() / (2 * 0.3)
    torch.testing.assert_close(log_odds - log_odds[:, :1], distances[:, :1] - distances)


def test_gaussians_know_which_directions_say_nothing():
    """Two classes differ by a little where recordings hardly spread, and by more where they spread widely."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(2).repeat(40)
    sign = (2.0 * labels - 1).unsqueeze(1)
    spread = torch.randn(80, 2, generator=generator) * torch.tensor([0.05, 1.5])
    features = torch.cat([torch.full((80, 1), 3.0), sign * torch.tensor([0.2, 0.3]) + spread], dim=1)
    views = torch.ones(80, 1, 1, dtype=torch.bool)
    right = {}
    for kind in (PrototypeAdapter, GDAAdapter):
        adapter = kind(torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.001, 0.0]]), 10.0)
        adapter.fit_support(features[:, None, None], views, labels)
        logits = adapter(features.unsqueeze(1), views[:, 0])[:, 0]
        right[kind] = logits.argmax(1).eq(labels).float().mean().item()
    assert right[GDAAdapter] > 0.97 > right[PrototypeAdapter]


def test_from_one_recording_in_one_pass_gda_still_says_something():
    features = torch.eye(3, 6)[:, None, None]
    adapter = GDAAdapter(torch.ones(3, 6), 10.0)
    adapter.fit_support(features, torch.ones(3, 1, 1, dtype=torch.bool), torch.arange(3))
    logits = adapter(features[:, 0], torch.ones(3, 1, dtype=torch.bool))[:, 0]
    assert logits.argmax(1).tolist() == [0, 1, 2]


def test_identical_recordings_do_not_break_gda():
    features = torch.ones(6, 1, 1, 4)
    adapter = GDAAdapter(torch.eye(3, 4), 10.0)
    adapter.fit_support(features, torch.ones(6, 1, 1, dtype=torch.bool), torch.arange(3).repeat(2))
    assert adapter(features[:, 0], torch.ones(6, 1, dtype=torch.bool)).isfinite().all()


@pytest.fixture
def of_others(drawn):
    """A fitted GDA, and a function that gives its logits of the tests for the text features of any classes."""
    text, passes, labels, tests = (torch.from_numpy(np.asarray(part)) for part in drawn)
    fitted = GDAAdapter(text.float(), SCALE, weights="fixed", alpha=0.7)
    fitted.fit_support(passes.float().unsqueeze(2), torch.ones(*passes.shape[:2], 1, dtype=torch.bool), labels)

    def logits(classes):
        other = GDAAdapter(torch.as_tensor(classes).float(), SCALE, weights="fixed", alpha=0.7)
        other.load_state_dict(fitted.state_dict())
        return other(tests.float().unsqueeze(1), torch.ones(len(tests), 1, dtype=torch.bool))[:, 0].numpy()

    return logits


NEW = np.random.default_rng(4).standard_normal((3, WIDTH))


@pytest.mark.parametrize("nearest", [SHOTS, 64])
def test_gda_of_a_new_class_is_as_its_formula_says(drawn, of_others, monkeypatch, nearest):
    monkeypatch.setattr("eventclip.adapters.gaussian._NEAREST", nearest)
    text, passes, labels, tests = drawn
    recordings = unit(passes).mean(1)
    means = np.stack([recordings[labels == k].mean(0) for k in range(CLASSES)])
    away = (unit(passes) - means[labels][:, None]).reshape(-1, WIDTH)
    scatter = away.T @ away / PASSES
    precision = len(labels) * np.linalg.inv(scatter + np.trace(scatter) / (len(labels) - 1) * np.eye(WIDTH))
    moved = unit(NEW) + means.mean(0) - unit(text).mean(0)
    near = np.argsort(-unit(recordings) @ unit(NEW).T, axis=0)[:nearest].T  # of fewer recordings, all
    own = (np.stack([recordings[rows].mean(0) for rows in near]) + 0.25 * moved) / 1.25
    weight = own @ precision
    gaussian = unit(tests) @ weight.T - 0.5 * np.einsum("kd,kd->k", weight, own)
    expected = (SCALE * unit(tests) @ unit(NEW).T + 0.7 * gaussian) / (1 + 3 * 0.7)
    np.testing.assert_allclose(of_others(NEW), expected, rtol=1e-3, atol=1e-3)


def test_a_class_that_gda_was_fitted_to_stays_as_it_was(drawn, of_others):
    text = drawn[0]
    own = of_others(text)
    np.testing.assert_array_equal(of_others(text[::-1].copy())[:, ::-1], own)
    mixed = of_others(np.concatenate([NEW[:1], text[2:], NEW[1:]]))
    np.testing.assert_allclose(mixed[:, 1:3], own[:, 2:], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(mixed[:, [0, 3, 4]], of_others(NEW), rtol=1e-6, atol=1e-5)


def test_gda_heeds_that_its_tensors_were_changed_in_place(drawn):
    text, passes, labels, tests = (torch.from_numpy(np.asarray(part)) for part in drawn)
    views, seen = torch.ones(*passes.shape[:2], 1, dtype=torch.bool), torch.ones(len(tests), 1, dtype=torch.bool)
    states = []
    for alpha in (0.1, 1.0):
        fitted = GDAAdapter(text.float(), SCALE, weights="fixed", alpha=alpha)
        fitted.fit_support(passes.float().unsqueeze(2), views, labels)
        states.append(fitted.state_dict())
    other, fresh = (GDAAdapter(torch.from_numpy(NEW).float(), SCALE, weights="fixed") for _ in range(2))
    other.load_state_dict(states[0])
    before = other(tests.float().unsqueeze(1), seen)
    with torch.no_grad():
        for name, value in states[1].items():
            other.get_buffer(name).copy_(value)
    fresh.load_state_dict(states[1])
    assert torch.equal(other(tests.float().unsqueeze(1), seen), fresh(tests.float().unsqueeze(1), seen))
    assert not torch.equal(other(tests.float().unsqueeze(1), seen), before)
