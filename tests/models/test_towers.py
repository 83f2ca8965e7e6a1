"""OpenAI's nine towers build at full size, untrained, and encode views of their own size to features of their width."""

import pytest
import torch

from eventclip.models.factory import load_clip

TOWERS = {
    "RN50": (224, 1024),
    "RN101": (224, 512),
    "RN50x4": (288, 640),
    "RN50x16": (384, 768),
    "RN50x64": (448, 1024),
    "ViT-B/32": (224, 512),
    "ViT-B/16": (224, 512),
    "ViT-L/14": (224, 768),
    "ViT-L/14@336px": (336, 768),
}
FAST = ("RN50", "ViT-B/32")

pytestmark = pytest.mark.long


@pytest.mark.parametrize("arch", [a if a in FAST else pytest.param(a, marks=pytest.mark.slow) for a in TOWERS])
def test_each_of_openais_towers_encodes_views_to_its_width(arch):
    encoder = load_clip(arch, quick_gelu=True)
    side, width = TOWERS[arch]
    assert (encoder.image_size, encoder.width) == (side, width)
    with torch.no_grad():
        features = encoder.encode_views(torch.zeros(1, 1, 1, side, side, dtype=torch.uint8))
    assert features.shape == (1, 1, width)
    assert features.isfinite().all()
    text = encoder.encode_text(["a point cloud image of a cat"])
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(1))
    assert text.shape == (1, width)
