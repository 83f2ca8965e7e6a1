"""How free weights and temperatures are chosen on recordings that were left out."""

import numpy as np
import pytest
import torch

from eventclip.adapters.choosing import at_shots, choose, fit_temperature, folds_of, mean_log_likelihood

LABELS = torch.arange(4).repeat(50)


def held_out(sharpness, seed=0):
    """Logits (n, 2, K) whose own softmax the labels are drawn from, times ``sharpness``; labels (n,); shares."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(4000, 1, 4, generator=generator)
    labels = torch.multinomial(logits[:, 0].softmax(1), 1, generator=generator)[:, 0]
    return sharpness * logits.expand(-1, 2, -1), labels, torch.full((4000, 2), 0.5)


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 7.0])
def test_the_temperature_undoes_what_logits_were_multiplied_by(sharpness):
    assert fit_temperature(*held_out(sharpness)) == pytest.approx(sharpness, rel=0.06)


def test_no_other_temperature_is_likelier():
    logits, labels, share = held_out(3.0)
    best = fit_temperature(logits, labels, share)
    highest = mean_log_likelihood(logits / best, labels, share)
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert mean_log_likelihood(logits / (best * factor), labels, share) < highest


def test_a_few_recordings_all_recognised_make_nothing_certain():
    logits = torch.eye(4)[torch.arange(8) % 4].unsqueeze(1)
    temperature = fit_temperature(logits, torch.arange(8) % 4, torch.ones(8, 1))
    assert (logits[0, 0] / temperature).softmax(0).max() == pytest.approx(1 - 1 / 10, abs=1e-3)


def test_of_equal_candidates_the_first_is_chosen():
    logits, labels, share = held_out(1.0)
    worse = torch.zeros_like(logits)
    scored = [({"a": 0.0}, worse), ({"a": 1.0}, logits), ({"a": 2.0}, 2 * logits), ({"a": 3.0}, worse)]
    values, temperature = choose(scored, labels, share)
    assert values == {"a": 1.0}
    assert temperature == pytest.approx(1.0, abs=0.06)
    with pytest.raises(ValueError, match="no candidate"):
        choose([], labels, share)


def test_passes_count_by_their_share():
    logits = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    first = torch.tensor([[1.0, 0.0]]).expand(6, 2)
    alone = mean_log_likelihood(logits[:, :1], labels, torch.ones(6, 1))
    assert mean_log_likelihood(logits, labels, first) == pytest.approx(alone)


def test_folds_hold_all_classes_alike():
    labels = LABELS[torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(0))]
    folds = folds_of(labels, 5)
    for fold in range(5):
        assert torch.bincount(labels[folds == fold]).tolist() == [10, 10, 10, 10]
    assert folds[labels == 2].tolist() == [place % 5 for place in range(50)]


def test_a_table_of_shots_is_read_between_logarithms():
    table = {1: 1.0, 4: 0.01}
    assert at_shots(2, table) == pytest.approx(0.1)
    assert [at_shots(shots, table) for shots in (0.5, 1, 4, 100)] == pytest.approx([1.0, 1.0, 0.01, 0.01])
    assert np.isscalar(at_shots(2, table))
