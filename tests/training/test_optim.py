"""The learning rate follows the paper's curve, step for step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eventclip.errors import UserError
from eventclip.models.tuning import ParameterGroup
from eventclip.training.optim import AdamWarmupCosine, warmup_cosine


@pytest.mark.parametrize(("curve", "rates"), [("steps100", [1e-4]), ("steps37", [2e-4]), ("finetune", [2e-5, 2e-6])])
def test_the_curve_is_the_golden_one(curve, rates):
    golden = np.load(Path(__file__).resolve().parents[1] / "golden" / "lr.npz")[curve]
    ours = [[rate * warmup_cosine(step, len(golden)) for rate in rates] for step in range(len(golden))]
    np.testing.assert_allclose(ours, golden, rtol=1e-9)


def test_the_warm_up_length_is_not_rounded():
    # 30 steps: w = 1.5, so step 1 is two thirds of the way up and step 2 has begun to fall
    assert warmup_cosine(0, 30) == pytest.approx(0.01)
    assert warmup_cosine(1, 30) == pytest.approx(0.01 + 0.99 / 1.5)
    assert warmup_cosine(2, 30) == pytest.approx(0.01 + 0.99 * (1 + np.cos(np.pi * 0.5 / 28.5)) / 2)


def test_the_floor_is_not_reached_again():
    assert warmup_cosine(99, 100) > 0.01
    assert warmup_cosine(100, 100) == pytest.approx(0.01)


def test_the_optimizer_steps_along_the_curve():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer, schedule = AdamWarmupCosine(lr=0.1)([parameter], total_steps=20)
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, [0.1 * warmup_cosine(step, 20) for step in range(20)], rtol=1e-12)


def test_each_group_steps_along_the_curve_at_its_own_rate():
    head, clip = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    groups = [ParameterGroup("head", [head], 1.0), ParameterGroup("clip", [clip], 0.1)]
    golden = np.load(Path(__file__).resolve().parents[1] / "golden" / "lr.npz")["finetune"]
    optimizer, schedule = AdamWarmupCosine(lr=2e-5)(groups, total_steps=len(golden))
    rates = []
    for _ in golden:
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, golden, rtol=1e-9)
    assert [group["name"] for group in optimizer.param_groups] == ["head", "clip"]


@pytest.mark.parametrize("options", [{"lr": 0.0}, {"lr": 1.0, "warmup": 1.0}, {"lr": 1.0, "floor": 1.5}])
def test_impossible_recipes_are_refused(options):
    with pytest.raises(UserError, match="optim"):
        AdamWarmupCosine(**options)
