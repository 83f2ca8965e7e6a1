"""Read recordings once, in worker processes: what is in each of them, or why it cannot be read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from eventclip.datasets.recordings import Recordings
from eventclip.datasets.sources import EventFiles
from eventclip.errors import RecordingError, UserError
from eventclip.progress import tqdm

_AT_ONCE = 16
"""Recordings between two messages of a worker."""

_Finding = tuple[int, int, int, str, list[str]]


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found in n recordings.

    Attributes:
        events: (n,) number of events, 0 where damaged.
        duration_us: (n,) time from the first event to the last [µs].
        on_events: (n,) number of events of positive polarity.
        causes: position -> why it cannot be read or used, a sentence with its path; the rest is sound.
        notes: what was told from the numbers, sorted or left out: a sentence with its path for the first recording of
            each kind -> how many recordings it holds for; sentences that differ in numbers are one kind.
    """

    events: NDArray[np.int64]
    duration_us: NDArray[np.int64]
    on_events: NDArray[np.int64]
    causes: dict[int, str]
    notes: dict[str, int]

    @property
    def sound(self) -> NDArray[np.bool_]:
        """(n,) True where nothing is wrong."""
        sound = np.ones(len(self.events), dtype=bool)
        sound[list(self.causes)] = False
        return sound


def inspect(
    recordings: Recordings, files: EventFiles, *, workers: int = 0, title: str = "reading", progress: bool = True
) -> Inspection:
    """Read all of ``recordings``, in order, keeping none of the events.

    Args:
        recordings: what to read.
        files: path -> events.
        workers: processes; 0 reads in this one.
        title: what the progress bar says.
        progress: show a progress bar.
    """
    numbers = np.zeros((len(recordings), 3), np.int64)
    causes = {}
    firsts: dict[str, str] = {}
    kinds: Counter[str] = Counter()
    loader = DataLoader(
        _Findings(recordings, files), batch_size=_AT_ONCE, num_workers=min(workers, len(recordings)), collate_fn=list
    )
    bar = tqdm(chain.from_iterable(loader), title, len(recordings), unit="rec", disable=not progress)
    for position, (*found, cause, notes) in enumerate(bar):
        numbers[position] = found
        if cause:
            causes[position] = cause
        for note in notes:
            kind = re.sub(r"\d[\d,.]*", "#", note)
            kinds[kind] += 1
            firsts.setdefault(kind, f"{recordings.relative(position)}: {note}")
    told = {firsts[kind]: count for kind, count in kinds.most_common()}
    return Inspection(numbers[:, 0], numbers[:, 1], numbers[:, 2], causes, told)


def find_unreadable(recordings: Recordings, files: EventFiles, *, workers: int, title: str) -> dict[str, str]:
    """Read each recording once, also where it is listed twice, and tell the ones that cannot be used.

    Returns:
        Relative path -> cause, in order of the paths.

    Raises:
        UserError: none can be used, which no damage does but a wrong setting.
    """
    once = recordings.subset(np.unique(recordings.paths, return_index=True)[1])
    causes = inspect(once, files, workers=workers, title=title).causes
    if causes and len(causes) == len(once):
        raise UserError(f"not one of the {len(once)} recordings can be used, the first because: {causes[0]}")
    return {once.relative(position): cause for position, cause in causes.items()}


def check_first(recordings: Recordings, files: EventFiles) -> None:
    """Read the first recording of each suffix: what holds for all of a format is told before anything begins.

    Raises:
        RecordingError: one cannot be used, such as that its sensor's size is not known.
    """
    firsts: dict[bytes, int] = {}
    for position, path in enumerate(recordings.paths.tolist()):
        firsts.setdefault(os.path.splitext(path)[1], position)  # noqa: PTH122  (of bytes, a million of them)
    for position in firsts.values():
        files.look(recordings.path(position))


def without(recordings: Recordings, unreadable: Mapping[str, str]) -> Recordings:
    """The recordings whose relative path is not among ``unreadable``."""
    names = np.array([name.encode("utf-8", "surrogateescape") for name in unreadable], dtype=np.bytes_)
    return recordings.subset(np.flatnonzero(~np.isin(recordings.paths, names))) if unreadable else recordings


class _Findings(Dataset[_Finding]):
    """Events, duration [µs], ON events, cause ("" if sound) and notes of each recording."""

    def __init__(self, recordings: Recordings, files: EventFiles) -> None:
        self.recordings, self.files = recordings, files

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, position: int) -> _Finding:
        try:
            events, _, notes = self.files.look(self.recordings.path(position))
        except RecordingError as error:
            return 0, 0, 0, str(error), []
        duration = int(events["t"][-1] - events["t"][0])
        return len(events), duration, int(events["p"].sum(dtype=np.int64)), "", notes
