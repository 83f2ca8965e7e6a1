"""Events in memory to a label, against the bare image tower on the very same views. CPU, one thread.

python benchmarks/classify.py [CONFIG.json WEIGHTS.safetensors]

A made-up N-Caltech101 recording of the 95th-percentile size gives ten views. Without files the tower is an untrained
ViT-B-32: speed does not depend on what weights say.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from eventclip import EventCLIP
from eventclip.events.array import EVENT_DTYPE, Events

SENSOR, COUNT, RUNS = (180, 240), 225_000, 9


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


def seconds(work: Callable[[], object]) -> float:
    """Time of one call [s]."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(arguments: list[str]) -> None:
    """Print both times and their ratio; the two run in turn, so that other jobs disturb them alike."""
    torch.set_num_threads(1)
    clip = {"arch": "ViT-B-32", "pretrained": None}
    if arguments:
        clip = {"arch": None, "config": arguments[0], "pretrained": arguments[1]}
    model = EventCLIP.zero_shot([f"thing {k}" for k in range(101)], clip=clip, device="cpu")
    events = made_up()
    views = model.views(events, sensor_hw=SENSOR)
    encoder = model.encoder
    scaled = torch.addcmul(encoder.pixel_bias, torch.from_numpy(views.frames).float(), encoder.pixel_scale)

    def tower() -> object:
        with torch.inference_mode():
            return encoder.visual(scaled)

    def label() -> object:
        return model.classify(events, sensor_hw=SENSOR).label

    times: dict[str, list[float]] = {"tower": [], "label": []}
    tower(), label()
    for _ in range(RUNS):
        times["tower"].append(seconds(tower))
        times["label"].append(seconds(label))
    bare, whole = (1e3 * statistics.median(times[name]) for name in ("tower", "label"))
    paired = statistics.median(b / a for a, b in zip(times["tower"], times["label"], strict=True))
    name = encoder.describe()["arch"]
    sys.stdout.write(f"{'one recording, one thread [ms]':<40}{'label':>10}{'tower':>10}{'ratio':>8}\n")
    sys.stdout.write(f"{f'{COUNT:,} events -> label, {name}, {len(views)} views':<40}")
    sys.stdout.write(f"{whole:>10.1f}{bare:>10.1f}{paired:>8.3f}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
