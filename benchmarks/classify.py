"""Events in memory to a label through EventCLIP, against the bare image tower on the very same views, on one thread.

A made-up N-Caltech101 recording of the 95th-percentile size gives ten views. The tower is an untrained ViT-B/32: speed
does not depend on what weights say.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.measure import DifferError, medians
from benchmarks.table import Row
from eventclip import EventCLIP
from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.models.factory import load_clip
from eventclip.models.prompts import encode_classes

SENSOR, COUNT = (180, 240), 225_000


def made_up() -> Events:
    """Edges of a ring and a tenth of noise."""
    rng = np.random.default_rng(0)
    events = np.zeros(COUNT, EVENT_DTYPE)
    angle, noise = rng.uniform(0, 2 * np.pi, COUNT), rng.random(COUNT) < 0.1
    places = {"x": (np.cos(angle), SENSOR[1]), "y": (np.sin(angle), SENSOR[0])}
    for name, (ring, size) in places.items():
        edge = size * (0.5 + 0.35 * ring + rng.normal(0, 0.02, COUNT))
        events[name] = np.where(noise, rng.integers(0, size, COUNT), np.clip(edge, 0, size - 1))
    events["t"], events["p"] = np.sort(rng.integers(0, 300_000, COUNT)), rng.integers(0, 2, COUNT)
    return events


def rows(*, quick: bool) -> Iterator[Row]:
    """Time of one recording."""
    runs = 1 if quick else 9
    torch.set_num_threads(1)
    names = [f"thing {k}" for k in range(101)]
    model = EventCLIP.zero_shot(names, clip={"arch": "ViT-B-32", "pretrained": None}, device="cpu")
    events = made_up()
    views = model.views(events, sensor_hw=SENSOR)
    encoder = load_clip("ViT-B-32", None)  # the same weights: they are drawn from one seed
    scaled = torch.addcmul(encoder.pixel_bias, torch.from_numpy(views.pixels).float(), encoder.pixel_scale)

    def tower() -> torch.Tensor:
        with torch.inference_mode():
            return encoder.visual(scaled)

    found = model.classify(events, sensor_hw=SENSOR).probabilities
    text = encode_classes(encoder, names, ["a point cloud image of a {}"])
    cosine = torch.nn.functional.normalize(tower(), dim=-1) @ text.T
    if not np.allclose(found, (encoder.logit_scale * cosine).softmax(-1).mean(0).numpy(), atol=1e-4):
        raise DifferError("events → label")
    ours, bare = medians([lambda: model.classify(events, sensor_hw=SENSOR).label, tower], runs)
    what = f"{COUNT:,} events → label, ViT-B/32, {len(views)} views"
    yield Row(what, 1e3 * ours, "bare tower, ready pixels", 1e3 * bare, "ms", f"median of {runs}, in turns")
