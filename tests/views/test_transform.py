"""The views of a recording, as one number: feature banks rely on its revision."""

import hashlib

import numpy as np

from eventclip.events.array import EVENT_DTYPE
from eventclip.events.frames import FrameRenderer
from eventclip.rng import generator
from eventclip.views.augment import Augmentation
from eventclip.views.transform import REVISION, ViewTransform

VIEWS_OF_REVISION = {1: "8257da313eb4e540"}


def test_other_views_need_another_revision():
    rng = np.random.default_rng(0)
    events = np.zeros(5000, EVENT_DTYPE)
    events["x"], events["y"] = rng.integers(0, 80, 5000), rng.integers(0, 60, 5000) ** 2 // 60
    events["t"], events["p"] = np.sort(rng.integers(0, 300_000, 5000)), rng.integers(0, 2, 5000)
    digest = hashlib.sha256()
    for augmentation in (None, Augmentation(max_shift=5, flip_time=True)):
        for color in ("gray", "rgb"):
            transform = ViewTransform(
                FrameRenderer(700, color=color), image_size=32, max_views=3, augmentation=augmentation
            )
            for draw in range(1 if augmentation is None else 20):
                chance = None if augmentation is None else generator(0, "views", index=draw)
                views = transform(events, (60, 80), chance).pixels
                filled = np.concatenate([views, np.zeros((3 - len(views), *views.shape[1:]), np.uint8)])
                digest.update(filled.tobytes() + (np.arange(3) < len(views)).tobytes())
    assert digest.hexdigest()[:16] == VIEWS_OF_REVISION[REVISION], "raise transform.REVISION and add it here"
