"""Write a packed data set: killable at any moment, resumed where it stopped, never half a file under its name."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from filelock import FileLock, Timeout

import eventclip
from eventclip.datasets.journal import journal_of
from eventclip.datasets.pack_format import DAMAGED, MISSING, STORED, Encoded, Listed, PackHeader, check_paths, encode
from eventclip.datasets.pack_writer import PackWriter
from eventclip.datasets.packed import Pack
from eventclip.errors import RecordingError, UserError
from eventclip.events.array import Events
from eventclip.parallel import in_order
from eventclip.progress import tqdm

Read = Callable[[Path], tuple[Events, tuple[int, int] | None]]
"""Path -> events, and the sensor's (height, width) where the file knows it."""

_NAMED = 3  # damaged recordings told in a sentence; a file lists all


@dataclass(frozen=True)
class Packed:
    """What lies in a pack now.

    Args:
        folders: names of the folders.
        recordings: number of recordings.
        new: how many of them were packed by this call.
        damaged: how many give an error in place of events.
        events: number of events.
        size: bytes of the file.
    """

    folders: tuple[str, ...]
    recordings: int
    new: int
    damaged: int
    events: int
    size: int

    def summary(self) -> str:
        """One line for people."""
        damaged = f", {self.damaged} damaged" if self.damaged else ""
        per_event = f", {self.size / self.events:.2f} bytes an event" if self.events else ""
        return (
            f"{', '.join(self.folders)}: {self.recordings:,} recordings, {self.new:,} of them new{damaged}; "
            f"{self.events:,} events in {self.size / 1e6:,.1f} MB{per_event}"
        )


def pack_folders(
    listed: Sequence[Listed],
    out: str | Path,
    read: Read,
    *,
    read_as: dict[str, Any],
    keep_damaged: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> Packed:
    """Pack folders of recordings into one file.

    The work done is kept in a hidden file beside ``out`` every few seconds, and goes on from there.

    Args:
        listed: the folders.
        out: the file; nothing lies under this name until it is complete.
        read: path -> events and sensor; sent to the worker processes.
        read_as: options that ``read`` stands for, for the header.
        keep_damaged: keep the error of a recording that cannot be read in its place, to be raised when it is read
            from the pack; otherwise the pack is not finished before all can be read.
        workers: processes that read and compress.
        progress: show a progress bar.

    Raises:
        UserError: something else under that name, other recordings than it was begun with, a folder that cannot be
            written to, a disk that is full, another process at the same work, recordings that cannot be read, or a
            name that no pack takes.
    """
    out = Path(str(out)).expanduser().absolute()
    for one in listed:
        if out.resolve().is_relative_to((one.recordings.root / one.folder).resolve()):
            raise UserError(f"the pack cannot lie within the recordings, got out={out}: give another out=")
    header = PackHeader(tuple(one.packed() for one in listed), read_as, eventclip.__version__)
    _check_names(listed, header)
    part = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _claimed(part):
            if out.exists():
                _check_same(out, header)
                new = 0
            else:
                new, sentences = _fill(listed, part, header, partial(_encoded, read), keep_damaged, workers, progress)
                if sentences:
                    raise UserError(_told(sentences, out))
                part.replace(out)
            journal_of(part).unlink(missing_ok=True)
            damage_list(out).unlink(missing_ok=True)
    except Timeout:
        raise UserError(f"another process is packing into {out}: wait for it, or give another out=") from None
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror or error}): make room or give another out=; the work done so "
            f"far is kept beside it"
        ) from error
    with h5py.File(out, "r", locking=False) as file:
        rows = file["rows"][()]
    stored = rows["state"] == STORED
    return Packed(
        tuple(one.folder for one in listed),
        len(rows),
        new,
        int((rows["state"] == DAMAGED).sum()),
        int(rows["count"][stored].sum()),
        out.stat().st_size,
    )


def damage_list(out: Path) -> Path:
    """Where a pack that could not be finished lists the recordings that cannot be read."""
    return out.with_name(f"{out.name}.damaged.txt")


def _check_names(listed: Sequence[Listed], header: PackHeader) -> None:
    """Refuse what no reader of packs would take: names that may lead elsewhere when they are joined to a folder.

    Raises:
        UserError: names the first.
    """
    try:
        PackHeader.from_json(header.as_json())
        for one, folder in zip(listed, header.folders, strict=True):
            check_paths(folder, one.recordings.paths, one.recordings.labels)
    except ValueError as error:
        raise UserError(f"what is to be packed would be {error}: rename it, and pack then") from None


def _told(sentences: list[str], out: Path) -> str:
    """The sentence for recordings that cannot be read; all of them go into a file."""
    damage_list(out).write_text("\n".join(sentences) + "\n", encoding="utf-8", errors="surrogateescape")
    more = f"; and {len(sentences) - _NAMED} more" if len(sentences) > _NAMED else ""
    return (
        f"{len(sentences)} recordings cannot be packed ({'; '.join(sentences[:_NAMED])}{more}; all in "
        f"{damage_list(out)}): put sound files in their place and run this again, which does not repeat the others, or "
        f"keep their errors in the pack with damaged=keep"
    )


@contextlib.contextmanager
def _claimed(part: Path) -> Iterator[None]:
    """Hold an unfinished pack for this process."""
    lock = part.with_suffix(".lock")
    with FileLock(lock, timeout=0):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _check_same(out: Path, header: PackHeader) -> None:
    """Refuse a finished file that is not this very pack."""
    try:
        other = Pack(out).header
    except UserError as error:
        raise UserError(f"out={out} is there already, and {error}: remove it or give another out=") from None
    if (other.folders, other.read_as) != (header.folders, header.read_as):
        raise UserError(f"out={out} is there already with other recordings in it: remove it or give another out=")


def paths_of(listed: Sequence[Listed]) -> Iterator[Path]:
    """All recordings, folder after folder."""
    return (one.recordings.path(position) for one in listed for position in range(len(one.recordings)))


def _encoded(read: Read, path: Path) -> tuple[Encoded, tuple[int, int] | None] | str:
    """What a worker does: read one recording and make its chunks, or say why not."""
    try:
        events, sensor_hw = read(path)
        return encode(events), sensor_hw
    except RecordingError as error:
        return str(error)
    except MemoryError:
        return f"{path} does not fit into memory: split it, or pack it where there is more"


def _fill(
    listed: Sequence[Listed],
    part: Path,
    header: PackHeader,
    work: Callable[[Path], tuple[Encoded, tuple[int, int] | None] | str],
    keep_damaged: bool,
    workers: int,
    progress: bool,
) -> tuple[int, list[str]]:
    """Pack what is missing in the unfinished file; gives the number of recordings looked at, and why some are not."""
    sentences = []
    with PackWriter(part, header, listed) as writer:
        missing = writer.rows["state"] == MISSING
        todo = np.flatnonzero(missing)
        made = in_order(work, itertools.compress(paths_of(listed), missing.tolist()), workers)
        bar = tqdm(made, "packing", len(missing), initial=len(missing) - len(todo), unit="rec", disable=not progress)
        for row, one in zip(todo.tolist(), bar, strict=True):
            if not isinstance(one, str):
                writer.store(row, *one)
            elif keep_damaged:
                writer.store_damage(row, one)
            else:
                sentences.append(one)
        if not sentences:
            writer.finish()
    return len(todo), sentences
