"""ProKeR and Tip-Adapter against plain formulas, and what is left out against fits without it."""

import numpy as np
import pytest
import torch

from eventclip.adapters.kernel import ProKeRAdapter, TipAdapter, TipAdapterF, kernel, ridge_left_out

CLASSES, SHOTS, WIDTH, SCALE = 4, 3, 8, 30.0


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture
def drawn():
    """Text (K, D), support (n, P, D) of one view, labels (n,), tests (b, D)."""
    rng = np.random.default_rng(4)
    text = rng.standard_normal((CLASSES, WIDTH)) + 0.3
    labels = np.repeat(np.arange(CLASSES), SHOTS)
    passes = 2 * (unit(text)[labels][:, None] + 0.4 * rng.standard_normal((len(labels), 2, WIDTH)))
    return text, passes, labels, rng.standard_normal((6, WIDTH))


def fitted(adapter, drawn, seed=0):
    text, passes, labels, _ = (torch.from_numpy(np.asarray(part)) for part in drawn)
    adapter = adapter(text.float(), SCALE)
    views = torch.ones(*passes.shape[:2], 1, dtype=torch.bool)
    adapter.fit_support(passes.float().unsqueeze(2), views, labels, seed=seed)
    return adapter


def logits_of(adapter, drawn):
    tests = torch.from_numpy(drawn[3]).float().unsqueeze(1)
    return adapter(tests, torch.ones(len(tests), 1, dtype=torch.bool))[:, 0].numpy()


def test_proker_is_as_its_formula_says(drawn):
    text, passes, labels, tests = drawn
    keys, t = unit(unit(passes).mean(1)), unit(text)
    gram = np.exp(-2.0 * (1 - keys @ keys.T))
    residual = np.eye(CLASSES)[labels] - keys @ t.T
    coefficients = np.linalg.solve(gram / 0.2 + np.eye(len(keys)), residual)  # the authors', whose blend is 0.2
    expected = SCALE * (unit(tests) @ t.T + np.exp(-2.0 * (1 - unit(tests) @ keys.T)) @ coefficients)
    options = {"weights": "fixed", "beta": 2.0, "regularization": 0.2, "blend": 0.2}
    ours = logits_of(fitted(lambda *given: ProKeRAdapter(*given, **options), drawn), drawn)
    np.testing.assert_allclose(1.3 * ours, expected, rtol=1e-4, atol=1e-4)  # its constant temperature


@pytest.mark.parametrize("samples", [1, 3])
def test_ridge_without_a_recording_is_a_fit_without_it(samples):
    """One sample a recording, and blocks of several."""
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(12, 5, generator=generator, dtype=torch.float64), dim=1)
    residual = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    groups = torch.arange(12) // samples
    groups = groups[torch.randperm(12, generator=generator)]
    predicted = ridge_left_out(kernel(features, features, 2.0), 0.3, residual, groups)
    for group in groups.unique():
        kept, left = groups != group, groups == group
        gram = kernel(features[kept], features[kept], 2.0)
        refitted = torch.linalg.solve(gram + 0.3 * torch.eye(len(gram), dtype=torch.float64), residual[kept])
        torch.testing.assert_close(predicted[left], kernel(features[left], features[kept], 2.0) @ refitted)


@pytest.mark.parametrize("kind", [ProKeRAdapter, TipAdapter])
def test_held_out_logits_are_those_of_fits_without_the_fold(drawn, kind):
    text, passes, labels, _ = (torch.from_numpy(np.asarray(part)) for part in drawn)
    adapter = kind(text.float(), SCALE)
    views = torch.ones(*passes.shape[:2], 1, dtype=torch.bool)
    support = adapter.gathered(passes.float().unsqueeze(2), views, labels, "support")
    candidates = [adapter.candidates(support)[place] for place in (0, 1, 5, -1)]
    folds = torch.arange(len(labels)) % SHOTS  # sorted by class
    for values, logits in zip(candidates, adapter.left_out(support, candidates, 0), strict=True):
        for fold in range(SHOTS):
            solution = adapter.solve(support.take(folds != fold), values, 0)
            refitted = adapter.judge(solution, support.recordings[folds == fold], support.text)
            torch.testing.assert_close(logits[folds == fold, 0], refitted, rtol=1e-3, atol=1e-3)


def test_tip_adapter_is_as_its_formula_says(drawn):
    text, passes, labels, tests = drawn
    keys = unit(unit(passes).mean(1))
    affinity = np.exp(-3.57 * (1 - unit(tests) @ keys.T))
    expected = SCALE * unit(tests) @ unit(text).T + 0.39 * affinity @ np.eye(CLASSES)[labels]
    ours = logits_of(fitted(lambda *given: TipAdapter(*given, weights="fixed"), drawn), drawn)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_keys_learn_along_the_gradient_of_the_cross_entropy(drawn):
    """After one step, AdamW has moved each number by the learning rate against its gradient's sign."""
    text, passes, labels, _ = (torch.from_numpy(np.asarray(part)) for part in drawn)
    still = fitted(lambda *given: TipAdapter(*given, weights="fixed", alpha=5.0), drawn)
    learned = fitted(lambda *given: TipAdapterF(*given, weights="fixed", alpha=5.0, epochs=1), drawn)
    keys = still.keys.clone().requires_grad_()
    own = torch.nn.functional.normalize(passes.float(), dim=-1)
    votes = kernel(own.flatten(0, 1), keys, 3.57) @ torch.eye(CLASSES)[still.key_labels]
    logits = SCALE * own.flatten(0, 1) @ torch.nn.functional.normalize(text.float(), dim=1).T + 5.0 * votes
    torch.nn.functional.cross_entropy(logits, labels.repeat_interleave(2)).backward()
    moved, steep = learned.keys - still.keys * (1 - 1e-5), keys.grad.abs() > 1e-3
    assert steep.any()
    expected = -1e-3 * keys.grad / (keys.grad.abs() + 1e-4)
    torch.testing.assert_close(moved[steep], expected[steep], rtol=1e-2, atol=1e-6)


@pytest.mark.long
def test_the_seed_decides_the_order_in_which_keys_learn(drawn):
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(CLASSES), 80)  # two batches
    passes = unit(drawn[0])[labels][:, None] + 0.4 * rng.standard_normal((len(labels), 1, WIDTH))
    many = (drawn[0], passes, labels, drawn[3])

    def learned(seed):
        return fitted(lambda *given: TipAdapterF(*given, weights="fixed", epochs=2), many, seed=seed).keys

    assert torch.equal(learned(0), learned(0))
    assert not torch.equal(learned(0), learned(1))


def test_keys_add_no_more_than_twenty_logits_by_themselves():
    assert ProKeRAdapter(torch.eye(3, 8), 100.0).blend == pytest.approx(0.2)
    assert ProKeRAdapter(torch.eye(3, 8), 10.0).blend == 1.0
