"""The transformer over views is torch's own encoder, weight for weight, gradient for gradient."""

import pytest
import torch
from torch import nn

from eventclip.adapters.view_transformer import SampleDropout, ViewTransformer, set_dropout_keys


def torchs(width, layers, heads, mlp_width):
    layer = nn.TransformerEncoderLayer(width, heads, mlp_width, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


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
