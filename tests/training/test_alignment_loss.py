"""The loss of an alignment against plain loops, and what tells how far it has come."""

import math

import pytest
import torch
import torch.nn.functional as F

from eventclip.errors import UserError
from eventclip.training.alignment_loss import DISTANCES, AlignmentLoss, Spread, distance, recall_at_1


@pytest.fixture
def features():
    """Raw features of 7 views and of their images, in 12 dimensions."""
    generator = torch.Generator().manual_seed(0)
    targets = 3 * torch.randn(7, 12, generator=generator, dtype=torch.float64)
    return targets + torch.randn(7, 12, generator=generator, dtype=torch.float64), targets


@pytest.fixture
def spread(features):
    return Spread.of(features[1])


def unit(rows):
    return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in rows.tolist()]


def dot(one, other):
    return sum(a * b for a, b in zip(one, other, strict=True))


def huber(difference):
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def test_contrast_is_cross_entropy_both_ways(features, spread):
    seen, wanted = (unit(rows) for rows in features)
    scale, total = 15.0, 0.0
    for i in range(7):
        row = [math.exp(scale * dot(seen[i], wanted[j])) for j in range(7)]
        column = [math.exp(scale * dot(seen[j], wanted[i])) for j in range(7)]
        total -= math.log(row[i] / sum(row)) / 2 + math.log(column[i] / sum(column)) / 2
    loss = AlignmentLoss(contrast=1.5, scale=scale, regression=0.0)
    assert float(loss.of_views(*features, spread)) == pytest.approx(1.5 * total / 7)


def test_each_distance_is_what_a_loop_finds(features, spread):
    seen, wanted = (unit(rows) for rows in features)
    mean = [sum(row[d] for row in wanted) / 7 for d in range(12)]
    deviation = [math.sqrt(sum((row[d] - mean[d]) ** 2 for row in wanted) / 6) for d in range(12)]
    loops = {
        "cosine": [1 - dot(a, b) for a, b in zip(seen, wanted, strict=True)],
        "smooth_l1": [
            sum(huber(math.sqrt(12) * (x - y)) for x, y in zip(a, b, strict=True)) / 12
            for a, b in zip(seen, wanted, strict=True)
        ],
        "standardized": [
            sum(huber((x - y) / s) for x, y, s in zip(a, b, deviation, strict=True)) / 12
            for a, b in zip(seen, wanted, strict=True)
        ],
    }
    assert set(loops) == set(DISTANCES)
    for kind, expected in loops.items():
        found = distance(*(F.normalize(rows, dim=-1) for rows in features), kind, spread)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
        loss = AlignmentLoss(contrast=0.0, regression=0.7, distance=kind)
        assert float(loss.of_views(*features, spread)) == pytest.approx(0.7 * sum(expected) / 7)


@pytest.mark.parametrize("kind", DISTANCES)
def test_features_that_arrived_are_at_no_distance(features, spread, kind):
    loss = AlignmentLoss(contrast=0.0, distance=kind)
    assert float(loss.of_views(2.5 * features[1], features[1], spread)) == pytest.approx(0, abs=1e-12)


def test_neither_order_nor_length_of_features_matters(features, spread):
    loss = AlignmentLoss()
    seen, wanted = features
    order = torch.randperm(7, generator=torch.Generator().manual_seed(1))
    first = loss.of_views(seen, wanted, spread)
    torch.testing.assert_close(loss.of_views(seen[order], wanted[order], spread), first)
    torch.testing.assert_close(loss.of_views(4 * seen, 0.1 * wanted, spread), first)


def test_images_add_their_distance_over_the_number_expected(features, spread):
    loss = AlignmentLoss(keep_images=3.0, regression=0.0)
    seen, wanted = features
    expected = 3.0 * float(distance(F.normalize(seen, dim=-1), F.normalize(wanted, dim=-1), "cosine", spread).sum()) / 5
    assert float(loss.of_images(seen, wanted, spread, 5)) == pytest.approx(expected)
    assert float(loss.of_images(seen[:0], wanted[:0], spread, 5)) == 0


def test_a_loss_leads_features_to_their_targets(features, spread):
    seen = features[0].clone().requires_grad_()
    AlignmentLoss().of_views(seen, features[1], spread).backward()
    moved = seen.detach() - 0.1 * seen.grad
    closer = [float(F.cosine_similarity(rows, features[1]).mean()) for rows in (seen.detach(), moved)]
    assert closer[1] > closer[0]


def test_spread_is_of_unit_features_and_never_zero():
    rows = torch.tensor([[3.0, 4.0, 0.0], [0.0, 2.0, 0.0]])
    spread = Spread.of(rows)
    torch.testing.assert_close(spread.mean, torch.tensor([0.3, 0.9, 0.0]))
    torch.testing.assert_close(spread.deviation, torch.tensor([0.6 / 2**0.5, 0.2 / 2**0.5, 1e-4]))
    assert (Spread.of(rows[:1]).deviation == 1e-4).all()
    assert spread.to(torch.device("cpu")).mean is spread.mean


def test_recall_counts_views_whose_own_image_is_nearest():
    targets = torch.eye(4)
    assert recall_at_1(5 * targets, targets) == 1.0
    assert recall_at_1(targets[[1, 0, 2, 3]], targets) == 0.5
    assert recall_at_1(targets[[1, 2, 3, 0]], 7 * targets) == 0.0
    generator = torch.Generator().manual_seed(0)
    views, images = torch.randn(40, 6, generator=generator), torch.randn(40, 6, generator=generator)
    right = 0
    for i in range(40):
        cosines = [float(F.cosine_similarity(views[i], images[j], dim=0)) for j in range(40)]
        right += cosines.index(max(cosines)) == i
    assert recall_at_1(views, images) == pytest.approx(right / 40)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"contrast": -1}, "loss.contrast=-1, .* must be 0 or more"),
        ({"scale": 0}, "loss.scale=0 above 0"),
        ({"keep_images": -0.1}, "loss.keep_images=-0.1 must be 0 or more"),
        ({"contrast": 0, "regression": 0}, "loss.contrast=0 and loss.regression=0 leave nothing to learn"),
        ({"distance": "l2"}, "loss.distance must be one of cosine, smooth_l1, standardized, got 'l2'"),
    ],
)
def test_weights_that_make_no_loss_are_refused(given, told):
    with pytest.raises(UserError, match=told) as refused:
        AlignmentLoss(**given)
    assert "\n" not in str(refused.value)
