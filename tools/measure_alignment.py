"""How far an alignment brings a CLIP, and whether it harms: a table of the frozen tower and of alignments of it.

    python tools/measure_alignment.py IMAGES --clip CONFIG.json WEIGHTS [--aligned FILE ...] [--digits N-MNIST]

IMAGES has a folder of images a class. The tower is aligned elsewhere, on every second class, the first, third, ... of
the sorted names (``eventclip align leave_out=[...]``; ``--print-leave-out`` prints that list); here the others are
recorded by the simulated camera of ``eventclip simulate``, ten images of each class to learn from and some to test on,
and by cameras of twice the threshold, with strong noise, at half and at double speed. What is told: zero-shot top-1 and
top-5; one and five shots; the test classes' images themselves; digits of a real 34x34 sensor at 1, 5 and 20 shots.

Shots are the linear probe that starts at the text features and is drawn back to them: multinomial logistic regression
on the mean unit feature of a recording, W0 = scale * T, sum of cross entropies + 0.005 |W - W0|^2, by L-BFGS. Every
tower gets the same draws, so that differences to the frozen one are paired; their 95 % intervals are Student's over
the draws, and for zero-shot over the test recordings.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from eventclip import FrameRenderer, ViewTransform, load_clip, read_events
from eventclip.datasets.image_views import as_view
from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.events.frames import events_per_frame_for
from eventclip.features.encode import encode_in_batches
from eventclip.models.encoder import ClipEncoder
from eventclip.models.prompts import encode_classes
from eventclip.parallel import map_ordered
from eventclip.progress import tqdm
from eventclip.reports.table import estimate
from eventclip.rng import generator
from eventclip.simulation.camera import EventCamera
from eventclip.simulation.folder import Simulation
from eventclip.simulation.images import read_image

SUPPORT = 10
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
CAMERA = EventCamera(threshold_on=0.4, threshold_off=0.4, threshold_spread=0.05)
CAMERAS: dict[str, Simulation] = {
    "camera": Simulation(camera=CAMERA),
    "2x threshold": Simulation(camera=replace(CAMERA, threshold_on=0.8, threshold_off=0.8)),
    "noise": Simulation(camera=replace(CAMERA, shot_noise_hz=10.0, leak_hz=1.0, hot_pixel_fraction=5e-3)),
    "half speed": Simulation(camera=replace(CAMERA, step_us=4000.0), saccade_us=200_000),
    "2x speed": Simulation(camera=replace(CAMERA, step_us=1000.0), saccade_us=50_000),
}
"""Name -> what records; the first is that of ``conf/simulate.yaml``."""


class Recordings:
    """Views of several recordings, and what each shows."""

    def __init__(self, views: Sequence[NDArray[np.uint8]], labels: Sequence[int]) -> None:
        self.views, self.labels = [torch.from_numpy(one) for one in views], torch.tensor(labels)

    def features(self, encoder: ClipEncoder) -> list[Tensor]:
        """Unit features of each recording's views."""
        encoded = F.normalize(torch.from_numpy(encode_in_batches(encoder, self.views)), dim=-1)
        return list(encoded.split([len(one) for one in self.views]))


def classes_of(root: Path) -> list[str]:
    """Class folders; Faces shows the same as Faces_easy, and N-Caltech101 leaves it out."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name != "Faces")


def record(images: Sequence[tuple[Path, int]], name: str, image_size: int, workers: int) -> Recordings:
    """Simulate recordings of images by one of :data:`CAMERAS`."""
    simulation = CAMERAS[name]
    hw = (int(simulation.sensor_hw[0]), int(simulation.sensor_hw[1]))
    transform = ViewTransform(FrameRenderer(events_per_frame_for(hw)), image_size=image_size)

    def one(job: tuple[Path, int]) -> NDArray[np.uint8]:
        rng = generator(7, f"measure {name} {job[0].parent.name!a}/{job[0].name!a}")
        return transform(simulation.simulate(read_image(job[0]), rng), hw).pixels

    done = list(tqdm(map_ordered(one, images, workers, threads=True), f"simulating: {name}", len(images)))
    return Recordings(done, [label for _, label in images])


def digits(root: Path, image_size: int) -> dict[str, Recordings]:
    """Recordings of N-MNIST, ``train`` and ``test``, a folder a digit."""
    transform = ViewTransform(FrameRenderer(events_per_frame_for((34, 34))), image_size=image_size)
    found = {}
    for part in ("train", "test"):
        files = [(path, digit) for digit in range(10) for path in sorted((root / part / str(digit)).iterdir())]
        views = [transform(read_events(path, sensor_hw=(34, 34))[0], (34, 34)).pixels for path, _ in files]
        found[part] = Recordings(views, [digit for _, digit in files])
    return found


def probe(features: Tensor, labels: Tensor, text: Tensor, scale: float) -> Tensor:
    """(K, D) weights of the linear probe; see the module."""
    start = scale * text
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=200, tolerance_change=1e-7, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (
            F.cross_entropy(features @ weights.T, labels, reduction="sum") + 0.005 * (weights - start).square().sum()
        )
        value.backward()
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    return weights.detach()


def zero_shot(features: list[Tensor], labels: Tensor, text: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Whether each recording's top-1 and top-5 hold its label, by the mean of its views' probabilities."""
    scores = torch.stack([(scale * one @ text.T).softmax(-1).mean(0) for one in features])
    best = scores.topk(min(5, scores.shape[1]), -1).indices == labels[:, None]
    return best[:, 0].float(), best.any(1).float()


def few_shot(
    learned: tuple[list[Tensor], Tensor],
    tested: tuple[list[Tensor], Tensor],
    text: Tensor,
    scale: float,
    shots: int,
    draws: int,
) -> list[float]:
    """Accuracy [%] of the probe over several draws of so many recordings a class."""
    mean, wanted = (torch.stack([F.normalize(one.mean(0), dim=-1) for one in part]) for part, _ in (learned, tested))
    labels, found = learned[1], []
    for draw in range(draws):
        rng = generator(draw, "measure shots")
        chosen = [rng.permutation(np.flatnonzero(labels.numpy() == k))[:shots] for k in range(len(text))]
        picked = torch.from_numpy(np.concatenate(chosen))
        weights = probe(mean[picked], labels[picked], text, scale)
        found.append(100 * float(((wanted @ weights.T).argmax(-1) == tested[1]).float().mean()))
    return found


def measure(encoder: ClipEncoder, sets: dict[str, Any], text: Tensor, draws: int) -> dict[str, list[float]]:
    """All columns of one tower: values over recordings or draws, in %."""
    scale, columns = encoder.logit_scale, {}
    for name in CAMERAS:
        recordings = sets[name]
        top1, top5 = zero_shot(recordings.features(encoder), recordings.labels, text, scale)
        columns[f"zero-shot, {name}"] = (100 * top1).tolist()
        if name == "camera":
            columns["top-5"] = (100 * top5).tolist()
    support, tests = sets["support"], sets["camera"]
    learned, tested = (support.features(encoder), support.labels), (tests.features(encoder), tests.labels)
    for shots in (1, 5):
        columns[f"{shots} shots"] = few_shot(learned, tested, text, scale, shots, draws)
    top1, _ = zero_shot(sets["images"].features(encoder), sets["images"].labels, text, scale)
    columns["images"] = (100 * top1).tolist()
    if "digits" in sets:
        words = encode_classes(encoder, [f"the digit {word}" for word in DIGITS], ["a photo of a {}"])
        parts = [(sets["digits"][part].features(encoder), sets["digits"][part].labels) for part in ("train", "test")]
        for shots in (1, 5, 20):
            columns[f"N-MNIST {shots}"] = few_shot(parts[0], parts[1], words, scale, shots, draws)
    return columns


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--clip", nargs=2, metavar=("CONFIG", "WEIGHTS"))
    parser.add_argument("--aligned", nargs="*", type=Path, default=[])
    parser.add_argument("--digits", type=Path)
    parser.add_argument("--tests", type=int, default=4, help="test images a class")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--print-leave-out", action="store_true")
    given = parser.parse_args()
    classes = classes_of(given.images)
    if given.print_leave_out:
        print(f"[{','.join(['Faces', *classes[1::2]])}]")
        return
    files = {name: sorted((given.images / name).iterdir()) for name in classes[1::2]}
    support = [(path, label) for label, paths in enumerate(files.values()) for path in paths[:SUPPORT]]
    tests = [
        (path, label) for label, paths in enumerate(files.values()) for path in paths[SUPPORT : SUPPORT + given.tests]
    ]
    options = {"arch": None, "config": given.clip[0], "pretrained": given.clip[1]}
    frozen = load_clip(**options)
    names = NCaltech101DataModule.names or {}
    text = encode_classes(frozen, [names.get(one, one.replace("_", " ").lower()) for one in files], ["a photo of a {}"])
    sets: dict[str, Any] = {name: record(tests, name, frozen.image_size, given.workers) for name in CAMERAS}
    sets["support"] = record(support, "camera", frozen.image_size, given.workers)
    pictures = [as_view(read_image(path, "RGB"), frozen.image_size).numpy() for path, _ in tests]
    sets["images"] = Recordings(pictures, [label for _, label in tests])
    if given.digits:
        sets["digits"] = digits(given.digits, frozen.image_size)
    rows = {"frozen": measure(frozen, sets, text, given.draws)}
    for path in given.aligned:
        rows[path.stem] = measure(load_clip(**options, aligned=path), sets, text, given.draws)
    for column in rows["frozen"]:
        told = [f"{np.mean(rows['frozen'][column]):5.1f}"]
        for name in list(rows)[1:]:
            gain = estimate(list(np.subtract(rows[name][column], rows["frozen"][column])))
            told.append(f"{name} {np.mean(rows[name][column]):5.1f} ({gain.mean:+.1f} ± {gain.half_width or 0:.1f})")
        print(f"{column:24} {'  '.join(told)}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
