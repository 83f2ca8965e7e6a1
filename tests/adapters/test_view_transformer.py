"""The transformer over views is torch's own encoder, gradient for gradient, but for dropout: keyed by sample alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eventclip.adapters.view_transformer import SampleDropout, ViewTransformer, keyed_uniform, set_dropout_keys

KEYS = torch.tensor([0, 1, -5, 2**62, 12345678901])


def torchs(width, layers, heads, mlp_width):
    layer = nn.TransformerEncoderLayer(width, heads, mlp_width, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


@pytest.mark.long
@pytest.mark.parametrize("training", [False, True])
def test_it_is_torchs_encoder(training):
    torch.manual_seed(0)
    ours = ViewTransformer(24, layers=3, heads=4, mlp_width=40, dropout=0.0).train(training)
    torch.manual_seed(0)
    theirs = torchs(24, 3, 4, 40)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    theirs.load_state_dict(ours.state_dict())
    theirs.eval()
    views = torch.randn(5, 6, 24)
    valid = torch.arange(6) < torch.tensor([1, 6, 3, 2, 5]).unsqueeze(1)
    results = []
    for network, output in (
        (ours, ours(views, valid)),
        (theirs, theirs(views, src_key_padding_mask=~valid)),
    ):
        (output[valid] ** 2).sum().backward()
        results.append([output[valid], *(parameter.grad for parameter in network.parameters())])
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)


def test_each_place_that_drops_has_a_stream_of_its_own():
    network = ViewTransformer(8, layers=2, heads=2, mlp_width=8, dropout=0.1)
    sites = [module.site for module in network.modules() if isinstance(module, SampleDropout)]
    assert sites == list(range(8))  # attention weights, their sum, hidden units, their sum; in two layers


def test_a_sample_is_trained_on_alike_in_any_batch():
    torch.manual_seed(0)
    network = ViewTransformer(8, layers=2, heads=2, mlp_width=16, dropout=0.5)
    views, valid, keys = torch.randn(4, 3, 8), torch.ones(4, 3, dtype=torch.bool), torch.arange(4)
    set_dropout_keys(network, keys)
    together = network(views, valid)
    assert not torch.allclose(together, network.eval()(views, valid))
    network.train()
    for part in ([0, 2], [3], [1]):
        set_dropout_keys(network, keys[part])
        torch.testing.assert_close(network(views[part], valid[part]), together[part], rtol=1e-5, atol=1e-6)


def test_the_numbers_are_those_of_splitmix64():
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # its first three from seed 0
    drawn = keyed_uniform(torch.tensor([0]), 0, 3)
    assert drawn[0].tolist() == [(number >> 40) / 2**24 for number in published]


def test_what_a_sample_loses_depends_on_no_other():
    drop = SampleDropout(0.3, site=2)
    x = torch.randn(5, 4, 7, generator=torch.Generator().manual_seed(0))
    set_dropout_keys(drop, KEYS)
    together = drop(x)
    for chosen in ([3], [4, 0], [2, 1, 3, 0, 4]):
        set_dropout_keys(drop, KEYS[chosen])
        assert torch.equal(drop(x[chosen]), together[chosen])


def test_entries_are_dropped_independently_at_the_given_rate():
    drop = SampleDropout(0.25)
    set_dropout_keys(drop, torch.arange(400))
    kept = drop(torch.ones(400, 500))
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    zeros = (kept == 0).float()
    assert zeros.mean().item() == pytest.approx(0.25, abs=0.005)  # a standard deviation is 0.001
    for other in (zeros.roll(1, dims=1), zeros.roll(1, dims=0)):  # the next entry, the next sample
        assert (zeros * other).mean().item() == pytest.approx(0.25**2, abs=0.005)


def test_two_places_of_the_network_drop_different_entries():
    places = torch.nn.ModuleList([SampleDropout(0.5, 0), SampleDropout(0.5, 1)])
    set_dropout_keys(places, KEYS)
    first, second = (place(torch.ones(5, 2000)) for place in places)
    assert ((first == 0) == (second == 0)).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_without_keys_and_without_training_it_is_torchs_dropout():
    drop, x = SampleDropout(0.4), torch.randn(6, 5)
    torch.manual_seed(3)
    ours = drop(x)
    torch.manual_seed(3)
    assert torch.equal(ours, F.dropout(x, 0.4))
    set_dropout_keys(drop, KEYS)
    assert torch.equal(drop.eval()(x), x)


def test_keys_of_another_batch_are_refused():
    drop = SampleDropout(0.4)
    set_dropout_keys(drop, KEYS)
    with pytest.raises(ValueError, match="5 dropout keys for 6 samples"):
        drop(torch.ones(6, 2))
