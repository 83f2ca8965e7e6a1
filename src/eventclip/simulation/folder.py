"""Turn a folder of still images into a data set of event recordings in the layout of N-Caltech101."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from eventclip.errors import UserError
from eventclip.events.array import Events
from eventclip.files import open_regular, read_json, whole_file, write_json
from eventclip.progress import tqdm
from eventclip.rng import generator
from eventclip.simulation.images import list_stills, read_still
from eventclip.simulation.settings import Filming

T = TypeVar("T")
R = TypeVar("R")

HEADER = "simulation.json"
_LOCK = ".simulation.lock"


@dataclasses.dataclass(frozen=True)
class Filmed:
    """What lies in the data set's folder now.

    Args:
        classes: number of classes.
        recordings: split -> number of recordings, in all classes.
        filmed: how many of them are new.
        events: (n,) number of events of every recording.
    """

    classes: int
    recordings: dict[str, int]
    filmed: int
    events: NDArray[np.int64]

    def summary(self) -> str:
        """One line for people."""
        splits = ", ".join(f"{count} {split}" for split, count in self.recordings.items())
        middle, most = np.percentile(self.events, [50, 95])
        return (
            f"{self.classes} classes, {splits} recordings, {self.filmed} of them new; "
            f"events per recording: median {middle:,.0f}, 95th percentile {most:,.0f}"
        )


def film_folder(
    images: str | Path,
    out: str | Path,
    filming: Filming,
    *,
    leave_out: Sequence[str] = (),
    workers: int = 1,
    progress: bool = True,
) -> Filmed:
    """Film ``images/<class>/*.{jpg,jpeg,png}`` to ``out/{training,validation,testing}/<class>/<name>.npy``.

    The recordings are the EST release's: float32 (N, 4) of x, y [px], t [s] and p ±1. All images are looked at before
    anything is written. A recording appears whole or not at all, and depends on the seed, its class and its name but
    not on the number of workers; a run that was interrupted goes on where it stopped. ``out/simulation.json`` says
    how the recordings were made.

    Args:
        images: folder of class folders.
        out: the data set's folder: new, empty, or begun with the same images and settings.
        filming: how to film and split.
        leave_out: class folders that are not wanted.
        workers: threads that read and film; nearly all of their work needs no Python.
        progress: whether to show a progress bar.

    Returns:
        What was made.

    Raises:
        UserError: bad images (see :mod:`eventclip.simulation.images`), or a folder that cannot be written to, lies
            within the images, holds something else, was made with other settings or is being filmed into.
    """
    images, out = Path(str(images)).expanduser(), Path(str(out)).expanduser()
    if not isinstance(workers, int) or workers < 1:
        raise UserError(f"workers must be a whole number of at least 1, got {workers!r}")
    if out.resolve().is_relative_to(images.resolve()):
        raise UserError(f"the recordings cannot lie within the images, got out={out} and images={images}")
    stills = list_stills(images, leave_out=leave_out)
    header = filming.header(stills)
    jobs = {
        out / split / name / f"{still.stem}.npy": still
        for name, paths in stills.items()
        for still, split in zip(paths, filming.split_of(name, len(paths)), strict=True)
    }
    _check_out(out, header)
    _check_folders(out, jobs)
    missing = {recording: still for recording, still in jobs.items() if not os.path.lexists(recording)}
    for recording in jobs.keys() - missing.keys():
        _count(recording)  # before anything is filmed
    _check_stills(list(missing.values()), workers, progress)

    def film(recording: Path) -> None:
        still = missing[recording]
        rng = generator(filming.seed, f"film {still.parent.name!a}/{still.stem!a}")
        _save(filming.film(read_still(still), rng), recording)

    try:
        with _claimed(out, header):
            _in_parallel(film, list(missing), "filming", workers, progress)
        events = np.array([_count(recording) for recording in jobs], np.int64)
    except OSError as error:
        raise UserError(
            f"the recordings cannot be written to {out} ({error.strerror or error}): give a folder with room that you "
            f"can write to"
        ) from error
    placed = [recording.parents[1].name for recording in jobs]
    return Filmed(len(stills), {split: placed.count(split) for split in filming.split}, len(missing), events)


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
            f"{_in_a_line(key)} was {_in_a_line(made_with.get(key))} and is now {wanted.get(key)}" for key in other[:3]
        )
        raise UserError(f"{out} was filmed from other images or in another way ({told}): give another out=")


def _check_folders(out: Path, recordings: Iterable[Path]) -> None:
    """Refuse folders in ``out`` that are links, and so may lie anywhere.

    Raises:
        UserError: names the first.
    """
    classes = {recording.parent for recording in recordings}
    link = next((folder for folder in sorted(classes | {one.parent for one in classes}) if folder.is_symlink()), None)
    if link is not None:
        raise UserError(f"{link} is a link, and recordings are written to {out} alone: remove it or give another out=")


def _in_a_line(said: object) -> str:
    """What a header says, cut, and with escapes where a terminal would act on it."""
    text = str(said)
    return (text if text.isprintable() else repr(text))[:60]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value; a header has no more than two levels."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        inner = {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, dict) else {key: value}
        flat |= inner
    return flat


def _check_stills(stills: list[Path], workers: int, progress: bool) -> None:
    """Read every image once: what cannot be filmed must be known before the first recording is written."""

    def complaint(still: Path) -> str | None:
        try:
            read_still(still)
        except UserError as error:
            return str(error)
        return None

    found = [told for told in _in_parallel(complaint, stills, "checking images", workers, progress) if told]
    if found:
        more = f"; {len(found) - 1} more of {len(stills)} images cannot be filmed" if len(found) > 1 else ""
        raise UserError(f"{found[0]}{more}")


@contextlib.contextmanager
def _claimed(out: Path, header: dict[str, Any]) -> Iterator[None]:
    """Hold the folder for this process, its header written first."""
    out.mkdir(parents=True, exist_ok=True)
    lock = out / _LOCK
    try:
        with FileLock(lock, timeout=0):
            _check_out(out, header)
            for part in out.glob("*/*/.*.part"):  # of a run that was killed
                part.unlink()
            if not (out / HEADER).exists():
                write_json(out / HEADER, header)
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
    except Timeout as error:
        raise UserError(f"another process is filming into {out}: wait for it, or give another out=") from error


def _in_parallel(task: Callable[[T], R], items: Sequence[T], what: str, workers: int, progress: bool) -> list[R]:
    with ThreadPoolExecutor(workers) as pool:
        try:
            return list(tqdm(pool.map(task, items), what, len(items), unit="img", disable=not progress))
        except BaseException:  # also when interrupted: what has not begun shall not hold up the end
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _save(events: Events, path: Path) -> None:
    """Write events as the EST release has them."""
    columns = (events["x"], events["y"], events["t"] * 1e-6, 2.0 * events["p"] - 1.0)
    table = np.stack(columns, axis=1).astype(np.float32)
    with whole_file(path) as part, part.open("wb") as file:  # np.save would append .npy to the name
        np.save(file, table)


def _count(path: Path) -> int:
    """Number of events in a recording, from its header and its size alone.

    Raises:
        UserError: it is none that was filmed here, or not all of it.
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
    raise UserError(f"{path} is there already and no whole recording: remove it and run this again, which films it")
