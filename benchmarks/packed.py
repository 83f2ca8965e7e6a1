"""Random access to 24 recordings like N-ImageNet's, in a pack and in the files it was made of, on one thread.

Pictures with the spectrum of natural ones, before the simulated camera, 480x640 px, for 50 ms in small movements.
The official files are np.savez_compressed; np.load alone is the quickest way to their array, before anything of it is
checked or converted, and so the strictest comparator. All files are in the page cache; the events are the same, which
is checked.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import DifferError, seconds
from benchmarks.table import Row
from eventclip.datasets.packing import pack_folders
from eventclip.datasets.packs import Listed, PackedFolders
from eventclip.datasets.recordings import list_recordings
from eventclip.io.formats import read_events
from eventclip.simulation.camera import EventCamera, intensity_from_gray, saccades

SENSOR, SCENE = (480, 640), (500, 660)
CAMERA = EventCamera(threshold_on=0.4, threshold_off=0.4, threshold_spread=0.05)
ACROSS_PX = 1.8  # of the movement: gives about 135,000 events, 95 of 100 N-ImageNet recordings have fewer


def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gray noise with a 1/f amplitude spectrum, as photographs have on average (Field 1987)."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SCENE[0]), np.fft.fftfreq(SCENE[1]), indexing="ij"))
    frequency[0, 0] = np.inf
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal(SCENE)) / frequency).real
    return (127.5 + 27 * noise / noise.std()).clip(0, 255).astype(np.uint8)


def write_npz(folder: Path, recordings: int) -> int:
    """Simulate the recordings into N-ImageNet's files; gives the number of all events."""
    count = 0
    for number in range(recordings):
        rng = np.random.default_rng(number)
        path = saccades(ACROSS_PX, duration_us=17_000)
        events = CAMERA.simulate(intensity_from_gray(picture(rng)), path, SENSOR, rng)
        table = np.zeros(len(events), [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "<u1")])
        for name in ("x", "y", "t", "p"):
            table[name] = events[name]
        np.savez_compressed(folder / f"{number:02d}.npz", event_data=table)
        np.savez(folder / f"{number:02d}.plain", event_data=table)
        (folder / f"{number:02d}.plain.npz").rename(folder / f"{number:02d}.plain")
        count += len(events)
    return count


def rows(*, quick: bool) -> Iterator[Row]:
    """Times per recording and sizes."""
    number, rounds = (4, 1) if quick else (24, 5)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "N-ImageNet")
        own = root / "extracted_train" / "n01440764"
        own.mkdir(parents=True)
        count = write_npz(own, number)
        recordings = list_recordings(root, "extracted_train", suffixes=(".npz",))
        listed = Listed("extracted_train", (".npz",), True, recordings)
        pack = Path(folder, "packed")
        pack_folders([listed], pack, read_events, read_as={}, progress=False)
        packs = PackedFolders(pack)
        ways = {
            "packed": lambda i: packs.read(os.fsencode(recordings.relative(i)))[0],
            ".npz, np.load alone": lambda i: np.load(recordings.path(i))["event_data"],
            ".npz, read and checked": lambda i: read_events(recordings.path(i))[0],
            "uncompressed .npz, np.load alone": lambda i: np.load(recordings.path(i).with_suffix(".plain"))[
                "event_data"
            ],
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(1 + rounds):  # the first round compiles
            for i in np.random.default_rng(turn).permutation(number).tolist():
                found = []
                for name, way in ways.items():
                    taken, events = seconds(partial(way, i), clock=time.thread_time)
                    found.append(events)
                    if turn:
                        times[name].append(1e3 * taken)
                if not all(np.array_equal(found[0][axis], one[axis]) for one in found for axis in "txyp"):
                    raise DifferError(f"recording {i}")
        ours, *others = (statistics.median(taken) for taken in times.values())
        how = f"median of {rounds} × {number}, in turns, CPU time"
        for name, theirs in zip(list(ways)[1:], others, strict=True):
            yield Row(f"{count // number:,} packed events, random access", ours, name, theirs, "ms", how)
        size = sum(path.stat().st_size for path in pack.iterdir()) / count
        for name, pattern in ((".npz", "*.npz"), ("uncompressed .npz", "*.plain")):
            theirs = sum(path.stat().st_size for path in own.glob(pattern)) / count
            yield Row("size of a packed event", size, name, theirs, "bytes", "all files together")
