"""The CLIP behind the golden answers."""

import pytest

from eventclip.models.encoder import ClipEncoder


@pytest.fixture
def golden_clip(golden_clip_files):
    config, weights = golden_clip_files
    return ClipEncoder(None, str(weights), config=config)
