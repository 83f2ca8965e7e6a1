"""The recommended adapter is the mean of three others, and nothing else."""

import pytest
import torch
import torch.nn.functional as F

from eventclip.adapters.best import BestAdapter
from eventclip.adapters.gaussian import GDAAdapter
from eventclip.adapters.kernel import ProKeRAdapter
from eventclip.adapters.probe import LinearProbeAdapter

CLASSES, WIDTH, SCALE = 6, 16, 20.0
TEXT = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(3)) + 0.5


def recordings(count, seed=0):
    """``count`` of each class about its text, in two passes of two views."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat(count)
    noise = torch.randn(len(labels), 2, 2, WIDTH, generator=generator)
    features = F.normalize(TEXT, dim=1)[labels][:, None, None] + 0.35 * noise
    return features, torch.ones(features.shape[:3], dtype=torch.bool), labels


def fitted(kind, shots, weights="support"):
    adapter = kind(TEXT, SCALE, weights=weights)
    adapter.fit_support(*shots)
    return adapter


def logits(adapter, features, valid):
    with torch.no_grad():
        return adapter(features[:, 0], valid[:, 0])[:, 0]


@pytest.mark.parametrize("weights", ["fixed", "support"])
@pytest.mark.parametrize(("count", "shares"), [(1, (0.5, 0.0, 0.5)), (2, (0.5, 0.25, 0.25)), (7, (0.5, 0.25, 0.25))])
def test_it_is_the_mean_of_what_its_members_say_alone(count, shares, weights):
    shots, (features, valid, _) = recordings(count), recordings(4, seed=1)
    ours = logits(fitted(BestAdapter, shots, weights), features, valid).softmax(dim=-1)
    members = [fitted(kind, shots, weights) for kind in (ProKeRAdapter, GDAAdapter, LinearProbeAdapter)]
    alone = [logits(member, features, valid).log_softmax(dim=-1) for member in members]
    mean = sum(share * told for share, told in zip(shares, alone, strict=True))
    torch.testing.assert_close(ours, mean.softmax(dim=-1), rtol=1e-4, atol=1e-5)


def test_its_values_are_those_of_its_members():
    shots = recordings(5)
    best, kernel = fitted(BestAdapter, shots), fitted(ProKeRAdapter, shots)
    own = {key.removeprefix("kernel_"): value for key, value in best.fitted.items() if key.startswith("kernel_")}
    assert own == {key: value for key, value in kernel.fitted.items() if key != "weights"}


def test_it_says_what_it_is_a_mean_of():
    one, more = (fitted(BestAdapter, recordings(count)).explain() for count in (1, 5))
    assert one == "mean of ProKeR (50%), linear probe (50%): one shot tells Gaussians nothing"
    assert more == "mean of ProKeR (50%), GDA (25%), linear probe (25%): no one of them is always best"
