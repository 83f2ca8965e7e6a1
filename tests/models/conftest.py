"""The tiny CLIP behind the golden answers, rebuilt from its parameters' own names."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from eventclip.models.encoder import ClipEncoder

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="session")
def golden():
    """Images, features and logits computed with the reference, as arrays by name, and the values beside them."""
    arrays = dict(np.load(GOLDEN / "model.npz"))
    return arrays, json.loads((GOLDEN / "model.json").read_text())


@pytest.fixture(scope="session")
def golden_clip_files(tmp_path_factory):
    """The golden CLIP as an architecture file and a weight file in OpenAI's layout."""
    spec = importlib.util.spec_from_file_location("tiny_clip", GOLDEN / "tiny_clip.py")
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    folder = tmp_path_factory.mktemp("golden_clip")
    config = {
        "embed_dim": tiny.EMBED_DIM,
        "vision_cfg": {
            "image_size": tiny.IMAGE_SIZE,
            "layers": tiny.VISION_LAYERS,
            "width": tiny.VISION_WIDTH,
            "head_width": 64,
            "patch_size": tiny.PATCH,
        },
        "text_cfg": {
            "context_length": tiny.CONTEXT,
            "vocab_size": tiny.VOCAB,
            "width": tiny.TEXT_WIDTH,
            "heads": tiny.TEXT_HEADS,
            "layers": tiny.TEXT_LAYERS,
        },
    }
    (folder / "golden_clip.json").write_text(json.dumps(config))
    state = {name: torch.from_numpy(np.array(value)) for name, value in tiny.state_dict().items()}
    torch.save(state, folder / "golden_clip.pt")
    return folder / "golden_clip.json", folder / "golden_clip.pt"


@pytest.fixture
def golden_clip(golden_clip_files):
    config, weights = golden_clip_files
    return ClipEncoder(None, str(weights), config=config)


@pytest.fixture
def golden_batch(golden):
    """Raw image features (B, V, D) with zeros where invalid, valid (B, V), labels (B,), unit text features (K, D)."""
    arrays, _ = golden
    valid = torch.from_numpy(arrays["valid"])
    features = torch.zeros(*valid.shape, arrays["image_features"].shape[1])
    features[valid] = torch.from_numpy(arrays["image_features"])
    return features, valid, torch.from_numpy(arrays["labels"]), torch.from_numpy(arrays["text_features"])
