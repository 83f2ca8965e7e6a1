"""A feature depends on its view alone, not on the views it was encoded with."""

import numpy as np
import pytest
import torch

from eventclip.errors import UserError
from eventclip.features.encode import encode_in_batches
from eventclip.models.factory import load_clip


@pytest.fixture(scope="module")
def encoder(tiny_clip_json):
    return load_clip(None, None, config=tiny_clip_json)


@pytest.fixture(scope="module")
def views():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (150, 1, 32, 32), dtype=np.uint8))


@pytest.mark.parametrize("sizes", [[150], [1] * 150, [3, 64, 80, 3], [63, 1, 0, 86]])
def test_features_do_not_depend_on_how_the_views_arrive(encoder, views, sizes):
    whole = encode_in_batches(encoder, [views])
    assert whole.shape == (150, 32)
    np.testing.assert_array_equal(encode_in_batches(encoder, views.split(sizes)), whole)


def test_a_view_alone_and_any_order_give_the_very_same_bits(encoder, views):
    whole = encode_in_batches(encoder, [views])
    order = np.random.default_rng(1).permutation(150)
    np.testing.assert_array_equal(encode_in_batches(encoder, [views[order]]), whole[order])
    np.testing.assert_array_equal(encode_in_batches(encoder, [views[7:8]]), whole[7:8])


def test_half_precision_is_the_rounded_feature(encoder, views):
    exact = encode_in_batches(encoder, [views])
    half = encode_in_batches(encoder, [views], dtype="fp16")
    np.testing.assert_array_equal(half, exact.astype(np.float16))
    assert encode_in_batches(encoder, []).shape == (0, 32)


def test_features_too_large_for_half_precision_are_told(encoder, views, monkeypatch):
    monkeypatch.setattr(encoder, "encode_views", lambda views: torch.full((len(views), 32), 1e6))
    with pytest.raises(UserError, match=r"do not fit fp16 \(largest 1e\+06\): set features\.dtype=fp32"):
        encode_in_batches(encoder, [views], dtype="fp16")
