"""Listing a data set of ImageNet's size, at first and later, and what a loader's worker keeps of it in memory.

python benchmarks/index.py [RECORDINGS [FOLDER]]

A made tree of 1,281,167 nearly empty files in 1000 class folders, removed at the end. "Later" is told against listing
anew in the same run. Memory is what belongs to a worker alone (private pages), above that of a worker that serves the
same loader with ten recordings.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch.utils.data import DataLoader, Dataset

from eventclip.data import index
from eventclip.data.index import list_kept
from eventclip.data.loading import EvaluationBatches
from eventclip.data.recordings import Recordings, list_recordings

CLASSES, SUFFIXES = 1000, (".npz",)
T = TypeVar("T")


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


def seconds(work: Callable[[], T]) -> tuple[float, T]:
    """Time of one call [s], and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


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


def private_bytes() -> int:
    """Memory that belongs to this process alone."""
    told = Path("/proc/self/smaps_rollup").read_text()
    return 1024 * sum(int(size) for size in re.findall(r"^Private_\w+:\s+(\d+) kB", told, re.MULTILINE))


def worker_bytes(recordings: Recordings, context: str) -> int:
    """Most private memory of a worker, of two, while they go through everything."""
    dataset = Names(recordings)
    loader = DataLoader(
        dataset,
        batch_sampler=EvaluationBatches(len(dataset), 4096),
        num_workers=2,
        collate_fn=max,
        multiprocessing_context=context,
    )
    return max(loader)


def report(folder: Path, recordings: int) -> Iterator[str]:
    """Make the tree and measure; lines of the table."""
    root, cache = folder / "N-ImageNet", folder / "cache"
    made, _ = seconds(lambda: make_tree(root / "extracted_train", recordings))
    yield f"{recordings:,} files in {CLASSES} folders, made in {made:.0f} s\n"
    time.sleep(index.SETTLED_S + 0.1)
    first, listed = seconds(lambda: list_kept(root, "extracted_train", suffixes=SUFFIXES, cache=cache))
    anew, _ = seconds(lambda: list_recordings(root, "extracted_train", suffixes=SUFFIXES).checksum())

    def start() -> Recordings:
        kept = list_kept(root, "extracted_train", suffixes=SUFFIXES, cache=cache)
        kept.checksum()
        return kept

    later, kept = seconds(start)
    if not (np.array_equal(kept.paths, listed.paths) and np.array_equal(kept.labels, listed.labels)):
        raise SystemExit("the kept listing differs, so its time means nothing")
    yield f"{'first listing, kept':<28}{first:8.2f} s\n"
    yield f"{'listing anew':<28}{anew:8.2f} s\n"
    yield f"{'later start':<28}{later:8.2f} s{anew / later:8.1f}x\n"
    few = kept.subset(range(10))
    for context in ("fork", "spawn"):
        extra = worker_bytes(kept, context) - worker_bytes(few, context)
        yield f"{f'a worker, {context}':<28}{extra / 1e6:8.1f} MB more than with 10 recordings\n"


def main(recordings: int, folder: str | None) -> None:
    """Print the table as it comes."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        for line in report(Path(made), recordings):
            sys.stdout.write(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_281_167, sys.argv[2] if len(sys.argv) > 2 else None)
