"""One recording of each data set's 95th-percentile size, made up, on one thread.

The comparators are plain numpy and Pillow with the same bytes as a result, which is checked: "add.at" counts events the
way one writes it down, "bincount" the quickest way numpy knows. Most of N-ImageNet's time from file to views is the
inflating of its .npz.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.measure import DifferError, medians
from benchmarks.table import Row
from eventclip.datasets.sources import EventFiles
from eventclip.events.array import events_from_columns
from eventclip.events.frames import FrameRenderer, choose_windows, views_per_recording
from eventclip.views.transform import ViewTransform

SIDE, VIEWS = 224, 10


class Shape(NamedTuple):
    """A data set as far as speed goes."""

    name: str
    sensor_hw: tuple[int, int]
    events: int
    renderer: FrameRenderer
    suffix: str


SHAPES = [
    Shape("N-Caltech101", (180, 240), 225_000, FrameRenderer(20_000), ".npy"),
    Shape("N-Cars", (100, 120), 12_500, FrameRenderer(30_000, count_non_zero=True, white_background=False), ".npy"),
    Shape("N-ImageNet", (480, 640), 135_000, FrameRenderer(70_000), ".npz"),
]


Count = Callable[[NDArray[np.void], int, int], NDArray[np.float64]]


def count_by_add_at(events: NDArray[np.void], height: int, width: int) -> NDArray[np.float64]:
    """Events per polarity and pixel as one writes it down: add one at each event's place."""
    counts = np.zeros((2, height, width))
    for channel, polarity in enumerate((1, 0)):
        part = events[events["p"] == polarity]
        np.add.at(counts[channel], (part["y"], part["x"]), 1)
    return counts


def count_by_bincount(events: NDArray[np.void], height: int, width: int) -> NDArray[np.float64]:
    """The same by the quickest way numpy knows: number the cells and count the numbers."""
    cell = ((1 - events["p"].astype(np.int64)) * height + events["y"]) * width + events["x"]
    return np.bincount(cell, minlength=2 * height * width).reshape(2, height, width).astype(np.float64)


def plain_frames(
    events: NDArray[np.void], shape: Shape, count: Count, windows: NDArray[np.int64] | None = None
) -> NDArray[np.uint8]:
    """The method's frames in plain numpy: counts per window, then array arithmetic in float64."""
    height, width = shape.sensor_hw
    renderer, frames = shape.renderer, []
    for start, end in renderer.windows(len(events)) if windows is None else windows:
        counts = count(events[start:end], height, width)
        cells = counts[counts > 0] if renderer.count_non_zero else counts
        counts[counts > renderer.hot_pixel_std * cells.std() + cells.mean()] = 0.0
        on, off = counts / counts.max()
        gray = 127.0 * on + 127.0 * off
        if renderer.white_background:
            share = np.clip(on + off, 0.0, 1.0)
            gray = gray * share + 255.0 * (1.0 - share)
        frames.append(np.rint(gray).astype(np.uint8))
    return np.stack(frames)


def plain_views(path: Path, shape: Shape) -> NDArray[np.uint8]:
    """File to views in plain numpy and Pillow: load, centre, frames in RGB as CLIP's preprocessing takes them."""
    height, width = shape.sensor_hw
    loaded = np.load(path)
    if path.suffix == ".npz":
        loaded = loaded["event_data"]
        x, y, t, p = (loaded[name].astype(np.float64) for name in ("x", "y", "t", "p"))
    else:
        x, y, t, p = loaded.T
    t, p = np.rint((t - t.min()) * (1e6 if path.suffix == ".npy" else 1)), p > 0
    x, y = (axis - ((axis.max() + axis.min() + 1) - size) // 2 for axis, size in ((x, width), (y, height)))
    events = events_from_columns(t, x, y, p)
    views = []
    windows = choose_windows(shape.renderer.windows(len(events)), VIEWS, None)
    for frame in plain_frames(events, shape, count_by_add_at, windows):
        image = Image.fromarray(np.repeat(frame[..., None], 3, axis=-1))
        scale = SIDE / min(image.size)
        image = image.resize((int(scale * image.width), int(scale * image.height)), Image.Resampling.BICUBIC)
        left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
        views.append(np.asarray(image.crop((left, top, left + SIDE, top + SIDE))))
    return np.stack(views)


def write_recording(folder: Path, shape: Shape) -> tuple[Path, NDArray[np.void]]:
    """A made-up recording in the data set's own file format: edges of blobs, a tenth of noise, two hot pixels."""
    rng = np.random.default_rng(0)
    height, width = shape.sensor_hw
    angle, ring = rng.uniform(0, 2 * np.pi, shape.events), rng.choice([0.15, 0.25, 0.4], shape.events)
    x = np.clip(width * (0.5 + ring * np.cos(angle) + rng.normal(0, 0.02, shape.events)), 0, width - 1).astype(int)
    y = np.clip(height * (0.5 + ring * np.sin(angle) + rng.normal(0, 0.02, shape.events)), 0, height - 1).astype(int)
    noise = rng.random(shape.events) < 0.1
    x[noise], y[noise] = rng.integers(0, width, noise.sum()), rng.integers(0, height, noise.sum())
    hot = rng.random(shape.events) < 0.01
    x[hot], y[hot] = width // 3, height // 4
    x[:2], y[:2] = (0, width - 1), (0, height - 1)
    t, p = np.sort(rng.integers(0, 300_000, shape.events)), rng.integers(0, 2, shape.events)
    path = folder / f"{shape.name}{shape.suffix}"
    if shape.suffix == ".npz":
        table = np.zeros(shape.events, [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "<u1")])
        for name, column in zip(("x", "y", "t", "p"), (x, y, t, p), strict=True):
            table[name] = column
        np.savez_compressed(path, event_data=table)
    else:
        np.save(path, np.stack([x, y, t / 1e6, 2 * p - 1], axis=1).astype(np.float32))
    return path, events_from_columns(t, x, y, p)


def rows(*, quick: bool) -> Iterator[Row]:
    """Times of one recording."""
    runs, turn_s = (2, 0.0) if quick else (9, 0.1)
    measure = partial(medians, runs=runs, clock=time.thread_time, turn_s=turn_s)
    how = f"median of {runs} turns of {turn_s} s, CPU time"
    with tempfile.TemporaryDirectory() as folder:
        recordings = [write_recording(Path(folder), shape) for shape in SHAPES]
        for shape, (_, events) in zip(SHAPES, recordings, strict=True):
            quickest = partial(shape.renderer, events, shape.sensor_hw)
            plain = [partial(plain_frames, events, shape, count) for count in (count_by_add_at, count_by_bincount)]
            if not all(np.array_equal(quickest(), work()) for work in plain):
                raise DifferError(f"events → frames, {shape.name}")
            ours, *others = measure([quickest, *plain])
            for name, theirs in zip(("numpy, add.at", "numpy, bincount"), others, strict=True):
                yield Row(f"events → frames, {shape.name}", 1e3 * ours, name, 1e3 * theirs, "ms", how)
        for shape, (path, _) in zip(SHAPES, recordings, strict=True):
            files = EventFiles(sensor_hw=shape.sensor_hw)
            most = views_per_recording(shape.events, shape.renderer.events_per_frame, VIEWS)
            transform = ViewTransform(shape.renderer, image_size=SIDE, max_views=most)

            def views(
                path: Path = path, files: EventFiles = files, transform: ViewTransform = transform
            ) -> NDArray[np.uint8]:
                return transform(*files(path)).pixels

            plainly = partial(plain_views, path, shape)
            if not np.array_equal(views(), plainly()[..., 0][:, None]):
                raise DifferError(f"file → views, {shape.name}")
            ours, theirs = measure([views, plainly])
            yield Row(f"file → views, {shape.name}", 1e3 * ours, "numpy and Pillow", 1e3 * theirs, "ms", how)
