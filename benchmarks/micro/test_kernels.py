"""A dozen kernels by themselves, a minute in all: ``make micro`` keeps the times and compares them with the last ones.

Inputs are made up, of the sizes of `benchmarks.frames`; one thread. Times of two machines do not compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.camera import NOISY, SCENE, SENSOR, natural_picture
from benchmarks.frames import SHAPES, SIDE, Shape, write_recording
from eventclip.adapters.gaussian import GDAAdapter
from eventclip.adapters.kernel import ProKeRAdapter
from eventclip.adapters.paper import JointAdapter, TextAdapter
from eventclip.adapters.probe import LinearProbeAdapter
from eventclip.adapters.support import SupportAdapter
from eventclip.adapters.view_transformer import set_dropout_keys
from eventclip.datasets.dataset import collate
from eventclip.io.formats import read_events
from eventclip.io.writing import write_events
from eventclip.models.pooling import logits_loss, pool_logits
from eventclip.simulation.camera import intensity_from_gray, saccades
from eventclip.training.optim import AdamWarmupCosine
from eventclip.views.transform import ViewTransform

CLASSES, WIDTH, BATCH, VIEWS = 101, 512, 32, 2
Measured = Callable[..., Any]
"""pytest-benchmark's fixture: calls a function over and over."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads would measure the machine's other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_events_to_frames(benchmark: Measured, tmp_path: Path, shape: Shape) -> None:
    _, events = write_recording(tmp_path, shape)
    benchmark(shape.renderer, events, shape.sensor_hw)


@pytest.mark.parametrize("shape", SHAPES[:2], ids=lambda shape: shape.name)
def test_events_to_views(benchmark: Measured, tmp_path: Path, shape: Shape) -> None:
    _, events = write_recording(tmp_path, shape)
    benchmark(ViewTransform(shape.renderer, image_size=SIDE, max_views=10), events, shape.sensor_hw)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5", ".csv"])
def test_file_to_events(benchmark: Measured, tmp_path: Path, suffix: str) -> None:
    shape = SHAPES[2]
    path, events = write_recording(tmp_path, shape._replace(suffix=suffix if suffix == ".npy" else ".npz"))
    if suffix in (".h5", ".csv"):
        path = tmp_path / f"recording{suffix}"
        write_events(path, events[:20_000] if suffix == ".csv" else events, shape.sensor_hw)
    benchmark(read_events, path, sensor_hw=shape.sensor_hw)


def test_picture_to_events(benchmark: Measured) -> None:
    picture = Image.fromarray(natural_picture()).resize(SCENE[::-1], Image.Resampling.LANCZOS)
    image, path = intensity_from_gray(np.asarray(picture)), saccades(6.5)
    benchmark(lambda: NOISY.simulate(image, path, SENSOR, np.random.default_rng(0)))


def test_samples_to_batch(benchmark: Measured) -> None:
    views = torch.zeros(VIEWS, 1, SIDE, SIDE, dtype=torch.uint8)
    benchmark(collate, [{"views": views, "label": 0, "index": index} for index in range(BATCH)])


@pytest.mark.parametrize("kind", [TextAdapter, JointAdapter])
def test_a_step_of_training(benchmark: Measured, kind: type[TextAdapter | JointAdapter]) -> None:
    adapter, features = kind(_text(), 100.0), torch.randn(BATCH, VIEWS, WIDTH)
    labels, valid = torch.arange(BATCH), torch.ones(BATCH, VIEWS, dtype=torch.bool)
    optimizer, schedule = AdamWarmupCosine(lr=1e-3)(list(adapter.parameters()), 10**6)
    set_dropout_keys(adapter, torch.arange(BATCH))

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(logits_loss(pool_logits(adapter(features, valid), valid, "mean"), labels))
        optimizer.step()
        schedule.step()

    benchmark(step)


@pytest.mark.parametrize("kind", [GDAAdapter, ProKeRAdapter, LinearProbeAdapter])
def test_a_fit(benchmark: Measured, kind: type[SupportAdapter]) -> None:
    shots, text = 5, _text()
    labels = torch.arange(CLASSES).repeat(shots)
    noise = torch.randn(len(labels), 3, VIEWS, WIDTH, generator=torch.Generator().manual_seed(1))
    features = nn.functional.normalize(text[labels][:, None, None] + noise / WIDTH**0.5, dim=-1)
    valid = torch.ones(features.shape[:3], dtype=torch.bool)
    fixed: Any = kind  # each takes the same three
    benchmark.pedantic(lambda: fixed(text, 100.0, weights="fixed").fit_support(features, valid, labels), rounds=5)  # type: ignore[attr-defined]


def _text() -> Tensor:
    return nn.functional.normalize(torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1)
