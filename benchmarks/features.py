"""Views to features against the bare tower, and a few-shot run of ViT-B/32 online against the feature bank.

python benchmarks/features.py

The run: 100 epochs, 101 classes of 5 shots with 2 views, evaluation every 5 epochs on 1,700 recordings with 10 views.
Its bank is real but for the encoder's work: that is measured per view and multiplied. The online side is too.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from eventclip.config import CONFIG_DIR, register_schema
from eventclip.models.encoder import ClipEncoder
from eventclip.run import build_bank, build_datamodule
from eventclip.training import features
from eventclip.training.encoding import encode_in_batches

CLASSES, SHOTS, TEST, EPOCHS, EVERY, PASSES, RUNS = 101, 5, 1700, 100, 5, 10, 3
SENSOR = (60, 80)


def median_s(*work: Callable[[], object]) -> list[float]:
    """Median times [s] of several pieces of work, taken in turns so that a busy machine slows all alike."""
    times = [[] for _ in work]
    for _ in range(RUNS + 1):
        for own, task in zip(times, work, strict=True):
            start = time.perf_counter()
            task()
            own.append(time.perf_counter() - start)
    return [statistics.median(own[1:]) for own in times]


def write_recordings(root: Path) -> None:
    """Small made-up recordings in N-Caltech101's layout; only their number and their views matter here."""
    rng = np.random.default_rng(0)
    for split, count in (("training", CLASSES * SHOTS), ("testing", TEST)):
        for number in range(count):
            xy = rng.integers(0, (SENSOR[1], SENSOR[0]), (2000, 2))
            columns = [xy, np.sort(rng.random(2000))[:, None], rng.choice([-1.0, 1.0], (2000, 1))]
            path = root / split / f"class_{number % CLASSES:03d}" / f"{number:04d}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.concatenate(columns, axis=1).astype(np.float32))


def overrides(folder: Path) -> list[str]:
    """The few-shot run as a command says it."""
    return [
        "experiment=fewshot_ncaltech",
        "features=bank",
        "clip=vit_b_32",
        "clip.pretrained=null",
        "selection=test",
        f"selection.every_n_epochs={EVERY}",
        f"trainer.max_epochs={EPOCHS}",
        f"features.passes={PASSES}",
        f"data.root={folder / 'data'}",
        f"data.sensor_hw=[{SENSOR[0]},{SENSOR[1]}]",
        "data.percentile_events=2000",
        "frames.events_per_frame=200",
        f"paths.cache={folder / 'cache'}",
        "callbacks.progress=null",
    ]


def fill_bank(folder: Path, encoder: ClipEncoder) -> float:
    """Build the bank with made-up features in place of the encoder's: the time of all but the encoder [s]."""
    rng = np.random.default_rng(0)

    def made_up(_encoder: object, pieces: object, **_: object) -> np.ndarray:
        return rng.standard_normal((sum(map(len, pieces)), encoder.width), np.float32)  # type: ignore[arg-type]

    register_schema()
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("train", [*overrides(folder), f"paths.output={folder}"])
    module, bank = build_datamodule(cfg), build_bank(cfg, encoder)
    module.image_size = encoder.image_size
    start = time.perf_counter()
    with mock.patch.object(features, "encode_in_batches", made_up):
        for stage in ("fit", "test"):
            bank(module.dataset(stage))
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    encoder = ClipEncoder("ViT-B-32", None)
    views = torch.randint(0, 256, (64, 1, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        pixels = torch.addcmul(encoder.pixel_bias, views.float(), encoder.pixel_scale)
        bare, ours = median_s(lambda: encoder.visual(pixels), lambda: encode_in_batches(encoder, [views]))
    write = sys.stdout.write
    write(f"views -> features, ViT-B/32: {64 / ours:.1f}/s, bare tower {64 / bare:.1f}/s: {100 * bare / ours:.1f} %\n")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_recordings(folder / "data")
        rest = fill_bank(folder, encoder)
        start = time.perf_counter()
        command = [sys.executable, "-m", "eventclip.train", *overrides(folder), f"hydra.run.dir={folder / 'run'}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        banked = time.perf_counter() - start
    per_view = ours / 64
    training, test = 2 * CLASSES * SHOTS, 10 * TEST
    online = per_view * (EPOCHS * training + (EPOCHS // EVERY + 1) * test)
    first = banked + rest + per_view * (PASSES * training + test)
    write(f"few-shot run online, the encoder's part alone (views x measured time per view): {online:.0f} s\n")
    write(f"the same from an empty cache (measured run and rendering + views x time per view): {first:.0f} s, ")
    write(f"{online / first:.1f}x\n")
    write(f"the same once the bank exists (measured): {banked:.1f} s, {online / banked:.0f}x\n")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    write(f"peak memory of that run: {peak:.2f} GiB\n")


if __name__ == "__main__":
    main()
