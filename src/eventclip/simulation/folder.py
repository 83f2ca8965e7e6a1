"""Turn a folder of images into a data set of simulated event recordings in the layout of N-Caltech101."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from eventclip.errors import UserError, printable, said
from eventclip.events.array import Events
from eventclip.files import held, open_regular, read_json, whole_file, write_json
from eventclip.parallel import map_ordered
from eventclip.progress import tqdm
from eventclip.rng import generator
from eventclip.simulation.camera import EventCamera, intensity_from_gray, saccades
from eventclip.simulation.images import list_images, read_image

T = TypeVar("T")
R = TypeVar("R")

HEADER = "simulation.json"
_LOCK = f".{HEADER}.lock"

REVISION = 1
"""Of the simulation: raise it whenever the same settings would give other recordings."""

SPLITS = ("training", "testing", "validation")
"""In the order in which they get an image where there are few."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Simulation:
    """How recordings are simulated of images, and split: everything that decides the recordings.

    Args:
        camera: the sensor.
        sensor_hw: its height and width [px].
        amplitude_px: height of the saccades' triangle [px].
        saccade_us: time of one of the three saccades [µs].
        fit: "inside": the whole picture is shown on the sensor, as N-Caltech101 does it, and events come from the
            part of it that never leaves the window (151×173 px for a 290×334 picture on a 240×180 sensor); "cover":
            the sensor sees nothing but picture, of which the rest is lost.
        split: share of each class in each of training, validation and testing; together 1.
        seed: of the split, the sensors and all noise.

    Raises:
        UserError: a value outside its range.
    """

    camera: EventCamera
    sensor_hw: Sequence[int] = (180, 240)
    amplitude_px: float = 6.5
    saccade_us: int = 100_000
    fit: str = "inside"
    split: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"training": 0.6, "validation": 0.2, "testing": 0.2}
    )
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fit not in ("inside", "cover"):
            raise UserError(f"fit must be 'inside' or 'cover', got {self.fit!r}")
        sides = self.sensor_hw if isinstance(self.sensor_hw, (tuple, list)) else ()
        if len(sides) != 2 or not all(isinstance(side, int) and side >= 16 for side in sides):
            raise UserError(f"sensor_hw must be a height and a width of at least 16 px, got {self.sensor_hw}")
        most = min(self.sensor_hw) / 4
        if not isinstance(self.amplitude_px, (int, float)) or not 0 <= self.amplitude_px <= most:
            raise UserError(
                f"amplitude_px must lie between 0 and a quarter of the sensor's shorter side ({most:g}), got "
                f"{self.amplitude_px!r}"
            )
        if not isinstance(self.saccade_us, int) or self.saccade_us < 1000:
            raise UserError(f"saccade_us must be a whole number of at least 1000 µs, got {self.saccade_us!r}")
        if not isinstance(self.seed, int):
            raise UserError(f"seed must be a whole number, got {self.seed!r}")
        shares = list(self.split.values()) if isinstance(self.split, Mapping) else []
        positive = len(shares) == len(SPLITS) and all(isinstance(x, (int, float)) and x >= 0 for x in shares)
        if not positive or not math.isclose(sum(shares), 1) or not self.split.get("training"):
            raise UserError(
                f"split must give {', '.join(SPLITS)} shares that add up to 1, and training more than 0, got "
                f"{self.split}"
            )
        if set(self.split) != set(SPLITS):
            raise UserError(f"split must name {', '.join(SPLITS)}, got {', '.join(map(str, self.split))}")

    def simulate(self, image: Image.Image, rng: np.random.Generator) -> Events:
        """Simulate the recording of one image in three saccades.

        Args:
            image: of mode "L", any size.
            rng: source of the sensor's spread and noise.

        Returns:
            (N,) array of EVENT_DTYPE in order of time.
        """
        path = saccades(self.amplitude_px, self.saccade_us)
        margin_hw = np.ceil(np.ptp(path[:, :0:-1], axis=0)).astype(int)
        sensor_hw, image_hw = np.array(self.sensor_hw), np.array(image.size[::-1])
        if self.fit == "inside":
            scaled_hw = np.rint(image_hw * np.min(sensor_hw / image_hw)).astype(int)
            window_hw = np.maximum(scaled_hw - margin_hw, 1)
        else:
            scaled_hw = np.rint(image_hw * np.max((sensor_hw + margin_hw) / image_hw)).astype(int)
            window_hw = sensor_hw
        height, width = np.maximum(scaled_hw, 1).tolist()
        gray = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
        return self.camera.simulate(intensity_from_gray(gray), path, (int(window_hw[0]), int(window_hw[1])), rng)

    def split_of(self, class_folder: str, count: int) -> list[str]:
        """Decide the splits of a class's images: drawn by the seed and the class's name, in the shares asked for.

        Shares are rounded by the largest remainder. A split whose share is not 0 gets at least one image as long as
        there are enough, training first, then testing, then validation.

        Args:
            class_folder: the class's name.
            count: number of its images, in the order of their names.

        Returns:
            The split of each image.
        """
        exact = [self.split[split] * count for split in SPLITS]
        counts = [math.floor(share + 1e-9) for share in exact]
        by_remainder = sorted(range(len(SPLITS)), key=lambda part: counts[part] - exact[part])
        for part in by_remainder[: count - sum(counts)]:
            counts[part] += 1
        wanting = [part for part in range(len(SPLITS)) if exact[part] > 0][:count]
        for part in wanting:
            if counts[part] == 0:
                # Of the largest the last: what an earlier split has just been given stays there.
                counts[max(range(len(SPLITS)), key=lambda other: (counts[other], other))] -= 1
                counts[part] += 1
        splits = np.repeat(SPLITS, counts)
        order = generator(self.seed, f"split {class_folder!a}").permutation(count)
        return [str(split) for split in splits[np.argsort(order)]]

    def header(self, images: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
        """Plain values that are equal exactly when the same recordings would be made."""
        # Another image in a class deals out the splits anew, and some would be simulated twice. (!a: any name on disk.)
        listing = [f"{name!a}/{path.name!a} {path.stat().st_size}" for name, paths in images.items() for path in paths]
        settings = dataclasses.asdict(self) | {"sensor_hw": list(self.sensor_hw), "split": dict(self.split)}
        made_of = {"count": len(listing), "sha256": hashlib.sha256("\n".join(listing).encode()).hexdigest()}
        plain: dict[str, Any] = json.loads(json.dumps({"revision": REVISION, **settings, "images": made_of}))
        return plain


@dataclasses.dataclass(frozen=True)
class SimulatedFolder:
    """What lies in the data set's folder now.

    Args:
        classes: number of classes.
        recordings: split -> number of recordings, in all classes.
        new: how many of them this run has simulated.
        events: (n,) number of events of every recording.
    """

    classes: int
    recordings: dict[str, int]
    new: int
    events: NDArray[np.int64]

    def summary(self) -> str:
        """One line for people."""
        splits = ", ".join(f"{count} {split}" for split, count in self.recordings.items())
        middle, most = np.percentile(self.events, [50, 95])
        return (
            f"{self.classes} classes, {splits} recordings, {self.new} of them new; "
            f"events per recording: median {middle:,.0f}, 95th percentile {most:,.0f}"
        )


def simulate(settings: dict[str, Any]) -> None:
    """Simulate a folder as settings say, and say what was made; what ``eventclip simulate`` does.

    Args:
        settings: of ``conf/simulate.yaml``, plain values.

    Raises:
        UserError: a setting that there is not or that is outside its range, or what :func:`simulate_folder` raises.
    """
    given = dict(settings)
    camera, images, out = (given.pop(key) for key in ("camera", "images", "out"))
    how = {key: given.pop(key) for key in ("leave_out", "workers", "progress")}
    for prefix, values, kind in (("", given, Simulation), ("camera.", camera, EventCamera)):
        unknown = set(values) - {field.name for field in dataclasses.fields(kind)}
        if unknown:
            raise UserError(f"{prefix}{min(unknown)} is no setting of the simulation: --cfg job prints all of them")
    made = simulate_folder(images, out, Simulation(camera=EventCamera(**camera), **given), **how)
    print(printable(f"{out}: {made.summary()}"))


def simulate_folder(
    images: str | Path,
    out: str | Path,
    simulation: Simulation,
    *,
    leave_out: Sequence[str] = (),
    workers: int = 1,
    progress: bool = True,
) -> SimulatedFolder:
    """Simulate ``images/<class>/*.{jpg,jpeg,png}`` to ``out/{training,validation,testing}/<class>/<name>.npy``.

    The recordings are the EST release's: float32 (N, 4) of x, y [px], t [s] and p ±1. All images are looked at before
    anything is written. A recording appears whole or not at all, and depends on the seed, its class and its name but
    not on the number of workers; a run that was interrupted goes on where it stopped. ``out/simulation.json`` says
    how the recordings were made.

    Args:
        images: folder of class folders.
        out: the data set's folder: new, empty, or begun with the same images and settings.
        simulation: how to simulate and split.
        leave_out: class folders that are not wanted.
        workers: threads that read and simulate; nearly all of their work needs no Python.
        progress: whether to show a progress bar.

    Returns:
        What was made.

    Raises:
        UserError: bad images (see :mod:`eventclip.simulation.images`), or a folder that cannot be written to, lies
            within the images, holds something else, was made with other settings or is being written to.
    """
    images, out = Path(str(images)).expanduser(), Path(str(out)).expanduser()
    if not isinstance(workers, int) or workers < 1:
        raise UserError(f"workers must be a whole number of at least 1, got {workers!r}")
    if out.resolve().is_relative_to(images.resolve()):
        raise UserError(f"the recordings cannot lie within the images, got out={out} and images={images}")
    listed = list_images(images, leave_out=leave_out)
    header = simulation.header(listed)
    jobs = {
        out / split / name / f"{image.stem}.npy": image
        for name, paths in listed.items()
        for image, split in zip(paths, simulation.split_of(name, len(paths)), strict=True)
    }
    _check_out(out, header)
    _check_folders(out, jobs)
    missing = {recording: image for recording, image in jobs.items() if not os.path.lexists(recording)}
    for recording in jobs.keys() - missing.keys():
        _count(recording)  # before anything is simulated
    _check_images(list(missing.values()), workers, progress)

    def simulate(recording: Path) -> None:
        image = missing[recording]
        # "film": an older word for the same, which decides the noise of every recording there is.
        rng = generator(simulation.seed, f"film {image.parent.name!a}/{image.stem!a}")
        _save(simulation.simulate(read_image(image), rng), recording)

    try:
        with _claimed(out, header):
            _in_parallel(simulate, list(missing), "simulating", workers, progress)
        events = np.array([_count(recording) for recording in jobs], np.int64)
    except OSError as error:
        raise UserError(
            f"the recordings cannot be written to {out} ({error.strerror or error}): give a folder with room that you "
            f"can write to"
        ) from error
    placed = [recording.parents[1].name for recording in jobs]
    recordings = {split: placed.count(split) for split in simulation.split}
    return SimulatedFolder(len(listed), recordings, len(missing), events)


def _check_out(out: Path, header: dict[str, Any]) -> None:
    """Refuse a folder that holds anything but the beginning of this very data set."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file, expected a folder for the recordings: give another out=")
    if not (out / HEADER).is_file():
        if any(entry.name != _LOCK for entry in out.iterdir()):
            raise UserError(f"{out} holds something else already: give out= a new or an empty folder")
        return
    try:
        read = read_json(out / HEADER)
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise UserError(f"{out / HEADER} cannot be read ({told}): give another out=") from error
    if not isinstance(read, dict):
        raise UserError(f"{out / HEADER} cannot be read (it holds no settings): give another out=")
    made_with, wanted = _flat(read), _flat(header)
    other = sorted(key for key in made_with.keys() | wanted.keys() if made_with.get(key) != wanted.get(key))
    if other:
        told = ", ".join(
            f"{said(key, 60)} was {said(made_with.get(key), 60)} and is now {wanted.get(key)}" for key in other[:3]
        )
        raise UserError(f"{out} was simulated from other images or in another way ({told}): give another out=")


def _check_folders(out: Path, recordings: Iterable[Path]) -> None:
    """Refuse folders in ``out`` that are links, and so may lie anywhere.

    Raises:
        UserError: names the first.
    """
    classes = {recording.parent for recording in recordings}
    link = next((folder for folder in sorted(classes | {one.parent for one in classes}) if folder.is_symlink()), None)
    if link is not None:
        raise UserError(f"{link} is a link, and recordings are written to {out} alone: remove it or give another out=")


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value; a header has no more than two levels."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
        flat |= inner
    return flat


def _check_images(images: list[Path], workers: int, progress: bool) -> None:
    """Read every image once: what cannot be simulated must be known before the first recording is written."""

    def complaint(image: Path) -> str | None:
        try:
            read_image(image)
        except UserError as error:
            return str(error)
        return None

    found = [told for told in _in_parallel(complaint, images, "checking images", workers, progress) if told]
    if found:
        more = f"; {len(found) - 1} more of {len(images)} images cannot be simulated" if len(found) > 1 else ""
        raise UserError(f"{found[0]}{more}")


@contextlib.contextmanager
def _claimed(out: Path, header: dict[str, Any]) -> Iterator[None]:
    """Hold the folder for this process, its header written first."""
    with held(out / HEADER):
        _check_out(out, header)
        for part in out.glob("*/*/.*.part"):  # of a run that was killed
            part.unlink()
        if not (out / HEADER).exists():
            write_json(out / HEADER, header)
        yield


def _in_parallel(task: Callable[[T], R], items: Sequence[T], what: str, workers: int, progress: bool) -> list[R]:
    done = map_ordered(task, items, workers, threads=True)
    return list(tqdm(done, what, len(items), unit="img", disable=not progress))


def _save(events: Events, path: Path) -> None:
    """Write events as the EST release has them."""
    columns = (events["x"], events["y"], events["t"] * 1e-6, 2.0 * events["p"] - 1.0)
    table = np.stack(columns, axis=1).astype(np.float32)
    with whole_file(path) as part, part.open("wb") as file:  # np.save would append .npy to the name
        np.save(file, table)


def _count(path: Path) -> int:
    """Number of events in a recording, from its header and its size alone.

    Raises:
        UserError: it is none that was simulated here, or not all of it.
        OSError: it cannot be read for another reason.
    """
    try:
        with open_regular(path) as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            whole = file.tell() + math.prod(shape) * dtype.itemsize == os.fstat(file.fileno()).st_size
        if len(shape) == 2 and shape[1] == 4 and dtype == np.float32 and whole:
            return int(shape[0])
    except PermissionError:
        raise
    except Exception:  # noqa: BLE001, S110  (numpy tells a damaged header by any of several exceptions)
        pass
    raise UserError(f"{path} is there already and no whole recording: remove it and run this again, which simulates it")
