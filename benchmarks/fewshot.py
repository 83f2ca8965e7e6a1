"""A few-shot run and a sweep of them with ViT-B/32: live as the reference does it, and from the cache.

101 classes, 100 epochs of 2 augmented views a recording, 1,700 test recordings of 10 views that are evaluated every 5
epochs and at the end; the sweep is 5 × 3 × 2: shots 1, 3, 5, 10, 20, seeds 0, 1, 2, adapters text and joint, sampled
from 4,343 training recordings. Every recording is read from disk at full size.

Live is extrapolated: a real run is cut short after some batches, and the median time from one batch to the next,
loading and backward pass included, is multiplied by the batches of all epochs and evaluations. An empty cache is
extrapolated too: a slice of evaluation and one of augmented training views are really built, and the time per view is
multiplied by the views that are missing. The cache's own keys count them: each seed has its own training views, shots
share what their samples have in common, and all share the evaluation views. Runs on a cache that is filled are measured
whole, process start included, on made-up features; the sweep's for seed 0, times 3, as many runs at once as cores.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import seconds
from benchmarks.ncaltech import (
    TESTING,
    TRAINING,
    build_clip,
    composed,
    fill,
    overrides,
    samples_and_cache,
    write_recordings,
)
from benchmarks.table import Row
from eventclip.models.encoder import ClipEncoder

SHOTS, SEEDS, ADAPTERS = (1, 3, 5, 10, 20), (0, 1, 2), ("text", "joint")
BATCH = 32
VIEWS = {"fit": 2, "test": 10}


class Protocol(NamedTuple):
    """The size of it all."""

    shots: tuple[int, ...] = SHOTS
    epochs: int = 100
    training: int = TRAINING
    testing: int = TESTING
    copies: int = 10
    built: tuple[int, int] = (32, 5)
    """Recordings and copies of the slices that are really encoded."""
    live: tuple[int, int] = (8, 4)
    """Training and evaluation batches that really run live."""


SMALL = Protocol((1, 2), 10, 202, 101, 2, (4, 2), (3, 2))


class Pace(NamedTuple):
    """Measured times [s]: of a live batch of 32 recordings, and of encoding one view into the cache."""

    live: dict[str, float]
    view: dict[str, float]

    def live_run(self, recordings: int, size: Protocol) -> float:
        """The reference's whole protocol: an evaluation every 5 epochs and one at the end."""
        training, evaluation = recordings / BATCH, size.testing / BATCH
        evaluations = size.epochs // 5 + 1
        return size.epochs * training * self.live["fit"] + evaluations * evaluation * self.live["validate"]

    def build(self, views: dict[str, int]) -> float:
        """Encoding what is missing."""
        return sum(self.view[stage] * count for stage, count in views.items())


def rows(*, quick: bool) -> Iterator[Row]:
    """Seconds of a run and of the sweep."""
    size, encoder = SMALL if quick else Protocol(), build_clip(quick=quick)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_recordings(folder / "data", size.training, size.testing)
        common = overrides(folder / "data", folder / "cache", f"features.copies={size.copies}", quick=quick)
        common += ["features=cached", "features.progress=false", f"trainer.max_epochs={size.epochs}"]
        pace = Pace(live_pace(folder, size, quick=quick), cache_pace(folder, encoder, size, quick=quick))
        missing, comparator = Missing(folder, common, encoder), "features=live, extrapolated"

        one = size.shots[len(size.shots) // 2]
        recordings, absent = missing.fill([one], [0])
        cached, _ = seconds(lambda: train([*common, f"fewshot.shots={one}"], f"hydra.run.dir={folder / 'run'}"))
        live, what = pace.live_run(recordings[0], size), f"{one}-shot run"
        how = f"built: {told(absent)} × measured time per view; run measured once"
        yield Row(f"{what}, cache empty", pace.build(absent) + cached, comparator, live, "s", how)
        yield Row(f"{what}, cache filled", cached, comparator, live, "s", "measured once")
        together, _ = seconds(lambda: side_by_side([*common, f"fewshot.shots={one}"], folder))
        yield Row(f"two {what}s at once", together, "one after the other", 2 * cached, "s", "measured once")

        recordings, more = missing.fill(size.shots, SEEDS)
        absent = {stage: absent[stage] + more[stage] for stage in VIEWS}
        swept = [f"fewshot.shots={','.join(map(str, size.shots))}", f"adapter={','.join(ADAPTERS)}", "seed=0"]
        swept.append("hydra/launcher=joblib")
        part, _ = seconds(lambda: train(["-m", *common, *swept], f"hydra.sweep.dir={folder / 'sweep'}"))
        cached, runs = part * len(SEEDS), len(size.shots) * len(ADAPTERS)
        live = len(ADAPTERS) * sum(pace.live_run(drawn, size) for drawn in recordings)
        what, how = f"sweep of {runs * len(SEEDS)} runs", f"{runs} runs measured, × {len(SEEDS)}"
        built = f"built: {told(absent)} × measured time per view; {how}"
        yield Row(f"{what}, cache empty", pace.build(absent) + cached, comparator, live, "s", built)
        yield Row(f"{what}, cache filled", cached, comparator, live, "s", how)


def told(views: dict[str, int]) -> str:
    """Numbers of views in words."""
    return f"{views['fit']:,} training and {views['test']:,} evaluation views"


class Missing:
    """Fills a cache with made-up features and counts what a build would have encoded.

    Args:
        folder: to compose in.
        settings: of the run.
        encoder: of the cache.
    """

    def __init__(self, folder: Path, settings: list[str], encoder: ClipEncoder) -> None:
        self.folder, self.settings, self.encoder = folder, settings, encoder

    def fill(self, shots: Iterable[int], seeds: Iterable[int]) -> tuple[list[int], dict[str, int]]:
        """Recordings drawn for training, by draw, and views that were missing of all draws, by stage."""
        views, recordings = dict.fromkeys(VIEWS, 0), []
        for number, seed in product(shots, seeds):
            cfg = composed([*self.settings, f"fewshot.shots={number}", f"seed={seed}"], self.folder / "composed")
            for stage, most in VIEWS.items():
                dataset, cache = samples_and_cache(cfg, self.encoder, stage)
                copies = cache.copies if stage == "fit" else 1
                views[stage] += fill(dataset, cache, copies=copies, views=most)
                if stage == "fit":
                    recordings.append(len(dataset))
        return recordings, views


def train(settings: list[str], place: str) -> None:
    """Run the command, in the package that is measured, with the threads that it chooses by itself."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "eventclip.train", *settings, place]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)


def side_by_side(settings: list[str], folder: Path) -> None:
    """Two of the same run at once, as two people on one machine would start them."""
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(train, settings, f"hydra.run.dir={folder / name}") for name in ("one", "other")]:
            done.result()


def live_pace(folder: Path, size: Protocol, *, quick: bool) -> dict[str, float]:
    """Median time of a training step and of an evaluation batch, in a real run cut short."""
    file, (steps, batches) = folder / "clock.json", size.live
    settings = overrides(folder / "data", folder / "cache", "features=live", quick=quick)
    settings += [f"trainer.limit_train_batches={steps}", f"+trainer.limit_val_batches={batches}"]
    settings += ["trainer.max_epochs=1", "trainer.limit_test_batches=1", "selection.every_n_epochs=1"]
    settings += ["+callbacks.clock._target_=benchmarks.clock.Clock", f"+callbacks.clock.file={file}"]
    train(settings, f"hydra.run.dir={folder / 'live'}")
    return {stage: statistics.median(taken) for stage, taken in json.loads(file.read_text()).items()}


def cache_pace(folder: Path, encoder: ClipEncoder, size: Protocol, *, quick: bool) -> dict[str, float]:
    """Time per view of filling a cache, once for each kind of views."""
    recordings, copies = size.built
    settings = ["features=cached", "fewshot.shots=1", f"features.copies={copies}"]
    cfg = composed(overrides(folder / "data", folder / "slice", *settings, quick=quick), folder / "composed")
    pace = {}
    for stage in VIEWS:
        dataset, cache = samples_and_cache(cfg, encoder, stage)
        dataset.recordings = dataset.recordings.subset(range(recordings))
        taken, built = seconds(partial(cache, dataset))
        pace[stage] = taken / int(built.rows.counts.sum())
    return pace
