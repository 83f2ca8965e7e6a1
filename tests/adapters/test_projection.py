"""ProLIP: what is learned of the tower's last projection, against plain formulas."""

import copy

import pytest
import torch
import torch.nn.functional as F

from eventclip.adapters.paper import IdentityAdapter
from eventclip.adapters.projection import ProLIPAdapter

CLASSES, TAKEN, WIDTH, SCALE = 4, 10, 6, 20.0


@pytest.fixture
def made():
    """Projection, text, and recordings: features (n, 2, 3, H), valid, labels."""
    generator = torch.Generator().manual_seed(3)
    projection = torch.randn(TAKEN, WIDTH, generator=generator), 0.1 * torch.randn(WIDTH, generator=generator)
    text = F.normalize(torch.randn(CLASSES, WIDTH, generator=generator), dim=1)
    labels = torch.arange(CLASSES).repeat(6)
    centres = torch.randn(CLASSES, TAKEN, generator=generator)[labels]
    features = centres[:, None, None] + 0.6 * torch.randn(len(labels), 2, 3, TAKEN, generator=generator)
    return projection, text, features, torch.ones(features.shape[:3], dtype=torch.bool), labels


def fitted(made, **options):
    projection, text, *recordings = made
    adapter = ProLIPAdapter(text, SCALE, projection=projection, **{"weights": "fixed", **options})
    adapter.fit_support(*recordings)
    return adapter


def test_held_for_ever_it_is_zero_shot_of_the_mean_feature(made):
    (weight, bias), text, features, valid, _ = made
    adapter = fitted(made, prior_weight=1e9)
    adapter.temperature.fill_(1.0)
    unit = F.normalize(features[:, 0] @ weight + bias, dim=-1)
    expected = SCALE * F.normalize(unit.mean(dim=1), dim=-1) @ text.T
    torch.testing.assert_close(adapter(features[:, 0], valid[:, 0])[:, 0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prior_weight", [0.03, 1.0, 30.0])
def test_nothing_pulls_at_the_projection_that_was_learned(made, prior_weight):
    (weight, bias), text, features, _, labels = made
    adapter = fitted(made, prior_weight=prior_weight)
    learned = adapter.learned.double().requires_grad_()
    length = (features @ weight + bias).norm(dim=-1, keepdim=True)
    taken = (features / length).mean(dim=(1, 2)).double()
    ones = (1 / length).mean(dim=(1, 2)).double()
    with torch.enable_grad():
        image = F.normalize(taken @ learned + ones * bias, dim=-1)
        loss = F.cross_entropy(SCALE * image @ text.double().T, labels, reduction="sum")
        loss = loss + prior_weight / 2 * (learned - weight).square().sum()
        loss.backward()
    assert learned.grad.abs().max() < 1e-3
    assert (adapter.learned - weight).abs().max() > 1e-3


def test_few_recordings_move_it_as_far_as_they_reach(made):
    projection, text, features, valid, labels = made
    few = (projection, text, features[:8], valid[:8], labels[:8])  # fewer than the projection takes
    moved = fitted(few).learned - projection[0]
    length = (few[2] @ projection[0] + projection[1]).norm(dim=-1, keepdim=True)
    seen = torch.linalg.qr((few[2] / length).mean(dim=(1, 2)).T).Q
    torch.testing.assert_close(seen @ (seen.T @ moved), moved, rtol=1e-4, atol=1e-5)


def test_other_classes_are_a_matter_of_their_text(made):
    projection, _, features, valid, _ = made
    adapter = fitted(made)
    other = F.normalize(torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(8)), dim=1)
    state = copy.deepcopy(adapter.state_dict())
    for_others = ProLIPAdapter(other, SCALE, projection=projection)
    for_others.load_state_dict(state)
    image = F.normalize(F.normalize(features[:, 0] @ projection[0] + projection[1], dim=-1).mean(1), dim=-1)
    logits = for_others(features[:, 0], valid[:, 0])[:, 0]
    assert logits.shape == (len(features), 7)
    assert not torch.allclose(logits * adapter.temperature, SCALE * image @ other.T, atol=0.1)  # it has learned
    untouched = ProLIPAdapter(other, SCALE, projection=projection)
    expected = IdentityAdapter(other, SCALE)(features[:, 0] @ projection[0] + projection[1], valid[:, 0])
    torch.testing.assert_close(untouched(features[:, 0], valid[:, 0]), expected)
