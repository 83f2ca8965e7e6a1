"""The CLIP behind the golden answers."""

import pytest

from eventclip.models.factory import load_clip


@pytest.fixture
def golden_clip(golden_clip_files):
    config, weights = golden_clip_files
    return load_clip(None, str(weights), config=config)
