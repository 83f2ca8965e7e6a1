"""An image tower's last projection, cut off and given back."""

import json

import pytest
import torch

from eventclip.errors import UserError
from eventclip.models.factory import load_clip

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}
TIMM = {"timm_model_name": "efficientnet_lite0", "timm_pool": "avg", "image_size": 64}
TOWERS = {
    "ViT": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "ResNet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32, "patch_size": None},
    "timm": {**TIMM, "timm_proj": "linear"},
    "timm with a bias": {**TIMM, "timm_proj": "linear", "timm_proj_bias": True},
}


def build(folder, vision):
    path = folder / "clip.json"
    path.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}))
    return load_clip(None, config=path)


@pytest.fixture(params=TOWERS)
def encoder(request, tmp_path):
    return build(tmp_path, TOWERS[request.param])


@torch.no_grad()
def test_what_is_cut_off_makes_the_features_they_were(encoder):
    views = torch.randint(256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected, described = encoder.encode_views(views), encoder.describe_image_tower()
    weight, bias = encoder.take_projection()
    taken = encoder.encode_views(views)
    assert taken.shape[1] == encoder.width == len(weight)
    torch.testing.assert_close(taken @ weight + bias, expected, rtol=1e-5, atol=1e-5)
    assert encoder.describe_image_tower() != described  # the feature cache tells them apart
    encoder.give_projection(weight, bias)
    assert torch.equal(encoder.encode_views(views), expected)
    assert encoder.describe_image_tower() == described


def test_a_tower_without_a_projection_is_told(tmp_path):
    encoder = build(tmp_path, {**TIMM, "timm_proj": "mlp"})
    with pytest.raises(UserError, match="has no last projection of its own that could learn: give adapter=best"):
        encoder.take_projection()
