"""Listing a data set of ImageNet's size, and what a loader's worker keeps of it in memory, on one thread.

A made tree of nearly empty files in 1000 class folders, its directories in the cache. Memory is what belongs to a
worker alone once it has gone through all recordings, above that of a worker that serves the same loader with ten; the
comparator keeps (path, label) pairs in a list, as torchvision's ImageFolder does.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from benchmarks.measure import DifferError, seconds
from benchmarks.table import Row
from eventclip.datasets.recordings import SETTLED_S, Recordings, list_kept, list_recordings
from eventclip.datasets.samplers import EvaluationBatches

CLASSES, SUFFIXES = 1000, (".npz",)


def make_tree(top: Path, recordings: int) -> None:
    """Class folders named like ImageNet's, each with its part of the files."""
    number = 0
    for label in range(CLASSES):
        own = top / f"n{1_440_764 + 13 * label:08d}"
        own.mkdir(parents=True)
        folder = os.open(own, os.O_RDONLY)
        for _ in range(recordings // CLASSES + (label < recordings % CLASSES)):
            os.close(os.open(f"{own.name}_{number}.npz", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=folder))
            number += 1
        os.close(folder)


class Names(Dataset[int]):
    """What a worker does with a listing: find path and label of a recording. Gives its private memory [bytes]."""

    def __init__(self, recordings: Recordings) -> None:
        self.recordings = recordings

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, key: tuple[int, int]) -> int:
        position = key[1]
        self.recordings.path(position)
        int(self.recordings.labels[position])
        return private_bytes() if position % 4096 in (0, 1) else 0


class Pairs(Dataset[int]):
    """The same from a list of (path, label)."""

    def __init__(self, recordings: Recordings) -> None:
        self.samples = [
            (str(recordings.path(position)), int(recordings.labels[position])) for position in range(len(recordings))
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> int:
        position = key[1]
        _path, _label = self.samples[position]
        return private_bytes() if position % 4096 in (0, 1) else 0


def private_bytes() -> int:
    """Memory that belongs to this process alone."""
    told = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB", told, re.MULTILINE))


def worker_bytes(dataset: Dataset[int], size: int, context: str) -> int:
    """Most private memory of a worker, of two, while they go through everything."""
    loader = DataLoader(
        dataset,
        batch_sampler=EvaluationBatches(size, 4096),
        num_workers=2,
        collate_fn=max,
        multiprocessing_context=context,
    )
    return max(loader)


def rows(*, quick: bool) -> Iterator[Row]:
    """Make the tree and measure."""
    recordings, runs = (20_000, 2) if quick else (1_281_167, 3)
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "N-ImageNet"), Path(folder, "cache")
        make_tree(root / "extracted_train", recordings)
        time.sleep(SETTLED_S + 0.1)

        def kept_anew(number: int) -> Recordings:
            kept = list_kept(root, "extracted_train", suffixes=SUFFIXES, cache=cache / str(number))
            kept.checksum()
            return kept

        def anew() -> Recordings:
            listed = list_recordings(root, "extracted_train", suffixes=SUFFIXES)
            listed.checksum()
            return listed

        times: list[list[float]] = []
        for number in range(runs):
            calls = (lambda n=number: kept_anew(n), anew, lambda n=number: kept_anew(n))
            taken, (first, listed, later) = zip(*(seconds(call) for call in calls), strict=True)
            for kept in (first, later):
                if not (np.array_equal(kept.paths, listed.paths) and np.array_equal(kept.labels, listed.labels)):
                    raise DifferError("a kept listing")
            times.append(list(taken))
        first_s, anew_s, later_s = np.median(times, axis=0).tolist()
        what, how = f"listing {recordings:,} files", f"median of {runs}, in turns"
        yield Row(f"{what}, first start", first_s, "listing without keeping", anew_s, "s", how)
        yield Row(f"{what}, later starts", later_s, "listing without keeping", anew_s, "s", how)
        few = listed.subset(range(10))
        for context in ("fork", "spawn"):
            worker_bytes(Names(few), 10, context)  # the first workers import what later ones find in memory
            extra = [
                worker_bytes(kind(listed), len(listed), context) - worker_bytes(kind(few), 10, context)
                for kind in (Names, Pairs)
            ]
            ours, theirs = (value / 2**20 for value in extra)
            yield Row(f"memory of a worker, {context}", ours, "a list of pairs", theirs, "MiB", "once each")
