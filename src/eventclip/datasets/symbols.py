"""The data set that travels with the package: forty classes of sketched symbols, simulated when first asked for."""

from __future__ import annotations

import shutil
from collections import deque
from dataclasses import asdict
from pathlib import Path

import numpy as np

from eventclip.datasets.datamodule import EventDataModule
from eventclip.datasets.recordings import Recordings
from eventclip.errors import UserError
from eventclip.events.array import Events
from eventclip.files import fingerprint, held
from eventclip.parallel import cores, map_ordered
from eventclip.progress import tqdm
from eventclip.rng import generator
from eventclip.simulation.camera import EventCamera, saccades
from eventclip.simulation.drawings import CLASSES, Hand
from eventclip.views.augment import Augmentation

Job = tuple[str, str, int]  # split, class, number

REVISION = 2  # of the drawing: raise it whenever the same settings would give other recordings
SACCADE_PX = 5.0  # height of the saccades' triangle on a 128 px sensor, up to a fifth more or less
HAND = Hand()
CAMERA = EventCamera(
    threshold_on=0.25,
    threshold_off=0.25,
    threshold_spread=0.06,
    shot_noise_hz=2.5,
    leak_hz=0.2,
    hot_pixel_fraction=2e-3,
    hot_pixel_hz=100.0,
)
"""A noisy sensor in dim light: about a third of all events are not caused by the picture."""


class SymbolsDataModule(EventDataModule):
    """Forty classes of sketched symbols, 30 training and 20 test recordings each; ``root`` is the cache folder.

    The recordings are simulated the first time a split is asked for, which takes about half a minute.
    """

    sensor_hw = (128, 128)
    events_per_frame = 12_000
    p95_events = 53_000
    augmentation = Augmentation(max_shift=5, mirror=False, image=False)  # most symbols have a right way round
    folders = {"training": "training", "test": "testing"}  # noqa: RUF012

    def list_split(self, split: str) -> Recordings:
        """List the training or the test recordings."""
        made = make_symbols(self.root) if self.packed is None else self.root
        return self.list_folder(self.folders[split], suffixes=(".npy",), root=made)


def simulate_symbol(name: str, sensor_hw: tuple[int, int], rng: np.random.Generator) -> Events:
    """Simulate the recording of one sketch of a class, in three saccades.

    Args:
        name: one of :data:`eventclip.simulation.drawings.CLASSES`.
        sensor_hw: height and width of the sensor [px]; the sketch fits the shorter side.
        rng: source of the drawing, of the saccades' size and of the sensor's noise.

    Returns:
        (N,) array of EVENT_DTYPE in order of time, over 300 ms; on a 128×128 sensor 17,000 to 80,000 events.

    Raises:
        UserError: there is no such class, or a sensor is not like that.
    """
    side = min(sensor_hw)
    picture = HAND.sketch(name, side, rng)
    path = saccades(SACCADE_PX * side / 128 * rng.uniform(0.8, 1.2))
    return CAMERA.simulate(picture, path, sensor_hw, rng)


def make_symbols(
    folder: str | Path,
    *,
    seed: int = 0,
    training: int = 30,
    testing: int = 20,
    sensor_hw: tuple[int, int] = (128, 128),
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Simulate the data set into a cache folder, or find it there.

    Recording i of a class and a split is the same for every number of recordings and of workers. The folder's name
    carries a stamp of everything that decides its content; it appears only when it is complete, and two processes
    that start at once make it once.

    Args:
        folder: cache folder; made if it is not there.
        seed: of every drawing and of all noise.
        training: recordings per class in ``training/``.
        testing: recordings per class in ``testing/``.
        sensor_hw: height and width of the sensor [px].
        workers: threads that draw and simulate; None takes one per core that this process may use.
        progress: whether to show a progress bar.

    Returns:
        Root of ``training/<class>/NNN.npy`` and ``testing/<class>/NNN.npy``, the layout of N-Caltech101; spaces in
        class names are underscores. The files hold structured arrays of t [µs], x, y [px] and p (1 = ON, 0 = OFF).

    Raises:
        UserError: a number out of range, or a cache folder that cannot be written.
    """
    if min(training, testing) < 1:
        raise UserError(f"symbols need at least 1 training and 1 testing recording, got {training} and {testing}")
    if min(sensor_hw) < 32:
        raise UserError(f"symbols need a sensor of at least 32x32 px to be told apart, got {sensor_hw}")
    if workers is not None and workers < 1:
        raise UserError(f"symbols are simulated by at least 1 worker, got {workers}; null takes one per core")
    stamp = _stamp(seed=seed, training=training, testing=testing, sensor_hw=tuple(sensor_hw))
    root = Path(folder).expanduser() / f"symbols-{stamp}"
    if root.is_dir():
        return root
    part = root.with_suffix(".part")
    jobs: list[Job] = [
        (split, name, index)
        for split, count in (("training", training), ("testing", testing))
        for name in CLASSES
        for index in range(count)
    ]

    def simulate(job: Job) -> None:
        split, name, index = job
        events = simulate_symbol(name, sensor_hw, generator(seed, f"symbols {split} {name}", index=index))
        _save(events, part / split / name.replace(" ", "_") / f"{index:03d}.npy")

    try:
        with held(root, waiting=lambda: None):
            if root.is_dir():  # another process made it while this one waited
                return root
            try:
                done = map_ordered(simulate, jobs, workers or cores(), threads=True)
                deque(tqdm(done, "simulating symbols", len(jobs), unit="rec", disable=not progress), maxlen=0)
                part.replace(root)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"the symbols data set cannot be written to {root.parent} ({error.strerror or error}); "
            f"set paths.cache to a folder with room for about {len(jobs) // 4 + 1} MB that you can write to"
        ) from error
    return root


def _stamp(**settings: object) -> str:
    """Eight characters that change with anything that decides the recordings."""
    settings |= {
        "revision": REVISION,
        "hand": asdict(HAND),
        "camera": asdict(CAMERA),
        "saccade_px": SACCADE_PX,
        "classes": CLASSES,
    }
    return fingerprint(settings, length=8)


def _save(events: Events, path: Path) -> None:
    """Write events in the fewest bytes per event, 7 of EVENT_DTYPE's 16 where the sensor has at most 256 columns."""
    largest = max(int(events[axis].max(initial=0)) for axis in "xy")
    place = "u1" if largest < 256 else "<u2"
    packed = events.astype([("t_us", "<u4"), ("x", place), ("y", place), ("p", "u1")])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, packed)
