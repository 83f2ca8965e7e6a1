"""Views to features with an untrained ViT-B/32, all cores.

"Ready views" are one tensor of uint8 in memory. The feature caches are real: FeatureCache reads recordings of 225,000
events from disk with 2 worker processes, renders (and, for training, augments) their views, encodes them and writes
them; what a cache does once in a process, such as the checksum of the weights, is in its time. The comparator is the
bare tower on pixels of the same views that lie ready in memory, in batches of the same size. Features are compared bit
by bit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.measure import DifferError, medians
from benchmarks.ncaltech import (
    BATCH,
    CLASSES,
    build_clip,
    composed,
    overrides,
    samples_and_cache,
    write_recordings,
)
from benchmarks.table import Row
from eventclip.datasets.dataset import RecordingDataset
from eventclip.features.encode import encode_in_batches
from eventclip.models.encoder import ClipEncoder


def rows(*, quick: bool) -> Iterator[Row]:
    """Views in a second."""
    encoder = build_clip(quick=quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_recordings(folder / "data", CLASSES, CLASSES)
        settings = overrides(folder / "data", folder, "features=cached", "fewshot.shots=1", quick=quick)
        recordings, copies = (8, 2) if quick else (64, 5)
        cfg = composed([*settings, "data.num_workers=2", f"features.copies={copies}"], folder / "run")
        plain, _ = samples_and_cache(cfg, encoder, "test")
        augmented, _ = samples_and_cache(cfg, encoder, "fit")
        for dataset in (plain, augmented):
            dataset.recordings = dataset.recordings.subset(range(recordings))
        runs = 1 if quick else 3
        yield from_memory(encoder, views_of(plain, 1)[: 2 * BATCH], runs)
        for dataset, seen, kind in ((plain, 1, "evaluation"), (augmented, copies, "augmented training")):
            made: list[NDArray[np.floating[Any]]] = []

            def build(dataset: RecordingDataset = dataset, made: list[Any] = made) -> NDArray[np.floating[Any]]:
                _, cache = samples_and_cache(cfg, encoder, "test")
                cache.folder = folder / f"cache_{dataset is plain}_{len(made)}"
                made.append(cache(dataset).rows)
                return made[-1]

            views = views_of(dataset, seen)
            tower = BareTower(encoder, views)
            ours, bare = medians([build, tower], runs, warm=True)
            if not all(
                np.array_equal(np.concatenate([rows[i] for i in range(len(rows))]), tower.seen) for rows in made
            ):
                raise DifferError(f"the cache of {kind} views")
            what, how = (
                f"recordings → cache, {kind} views, 2 workers",
                f"median of {runs}, in turns, {len(views)} views",
            )
            yield Row(what, len(views) / ours, "bare tower", len(views) / bare, "views/s", how, more_is_better=True)


def from_memory(encoder: ClipEncoder, views: Tensor, runs: int) -> Row:
    """From uint8 views to features."""
    tower = BareTower(encoder, views)
    if not np.array_equal(encode_in_batches(encoder, [views]), tower()):
        raise DifferError("ready views → features")
    ours, bare = medians([lambda: encode_in_batches(encoder, [views]), tower], runs, warm=True)
    how = f"median of {runs}, in turns, {len(views)} views"
    return Row("ready views → features", len(views) / ours, "bare tower", len(views) / bare, "views/s", how, True)


def views_of(dataset: RecordingDataset, copies: int) -> Tensor:
    """All views of a data set, copy after copy."""
    samples = [dataset[epoch, i] for epoch in range(copies) for i in range(len(dataset))]
    return torch.cat([sample["views"] for sample in samples])


class BareTower:
    """Nothing but the image tower, on pixels that lie ready in memory.

    Attributes:
        seen: what it gave last.
    """

    def __init__(self, encoder: ClipEncoder, views: Tensor) -> None:
        with torch.inference_mode():
            pixels = torch.addcmul(encoder.pixel_bias, views.float(), encoder.pixel_scale)
        self.batches, self.visual = pixels.split(BATCH), encoder.visual
        self(self.batches[:1])
        self.seen: NDArray[np.floating[Any]] = np.zeros(0)

    def __call__(self, batches: tuple[Tensor, ...] | None = None) -> NDArray[np.floating[Any]]:
        """Encode them all, or some."""
        with torch.inference_mode():
            self.seen = torch.cat([self.visual(batch) for batch in batches or self.batches]).numpy()
        return self.seen
