"""Is a data set whole, and is it what its configuration says: every recording read once, told as a table."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from eventclip.datasets.recordings import SPLITS, Recordings
from eventclip.datasets.sources import EventFiles
from eventclip.errors import RecordingError, UserError, printable
from eventclip.files import write_json
from eventclip.progress import tqdm
from eventclip.tables import aligned

if TYPE_CHECKING:
    from eventclip.datasets.datamodule import EventDataModule  # which reads recordings beforehand, by this file

_AT_ONCE = 16
"""Recordings between two messages of a worker."""

_Finding = tuple[int, int, int, str, list[str]]

_PERCENTILES = (5, 50, 95)
_CLASSES_SHOWN = 120
_NAMED = 3
"""Recordings named for each kind of damage; all are in the JSON."""


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


@dataclass(frozen=True, eq=False)
class CheckedSplit:
    """One split and what was found in it."""

    recordings: Recordings
    found: Inspection

    def percentiles(self, values: NDArray[np.int64]) -> list[float]:
        """5th, 50th and 95th percentile and maximum over the sound recordings; none without any."""
        sound = values[self.found.sound]
        return [*np.percentile(sound, _PERCENTILES).tolist(), float(sound.max())] if len(sound) else []


@dataclass(frozen=True, eq=False)
class DataCheck:
    """What a walk through a data set found.

    Attributes:
        datamodule: the data set and its constants.
        splits: each split that could be listed.
        unlisted: split -> why it could not be listed.
        alike: groups of relative paths that hold the same events.
    """

    datamodule: EventDataModule
    splits: dict[str, CheckedSplit]
    unlisted: dict[str, str]
    alike: list[list[str]]

    @property
    def damaged(self) -> int:
        """Recordings that cannot be read or used, and splits that cannot be listed."""
        return len(self.unlisted) + sum(len(split.found.causes) for split in self.splits.values())

    def advice(self) -> str:
        """What is damaged and what can be done about it, in a sentence; "" where nothing is."""
        told = []
        recordings = self.damaged - len(self.unlisted)
        if recordings:
            told.append(
                f"{recordings} damaged, named above: mend or remove them, or train without them by "
                f"data.on_bad_recording=skip"
            )
        if self.unlisted:
            told.append(
                f"{' and '.join(self.unlisted)} cannot be listed, see above: mend the folders, or check the others "
                f"alone by splits=[{','.join(self.splits)}]"
            )
        return "; ".join(told)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "data_set": type(self.datamodule).__name__,
            "root": str(self.datamodule.root),
            "events_per_frame": self.datamodule.renderer.events_per_frame,
            "p95_events": self.datamodule.p95_events,
            "splits": {name: _split_as_dict(split) for name, split in self.splits.items()},
            "unlisted": self.unlisted,
            "alike": self.alike,
        }

    def table(self) -> str:
        """Everything as text to read: counts, percentiles against the constants, damage."""
        data = self.datamodule
        blocks = [
            f"{type(data).__name__.removesuffix('DataModule')} in {data.root}, sensor "
            + ("of each file's own size" if data.files.sensor_hw is None else "{}x{}".format(*data.files.sensor_hw)),
            _columns(_class_rows(self.splits)),
            _columns(_split_rows(self.splits)),
            "\n".join(_against_constants(name, split, data) for name, split in self.splits.items()),
            "\n".join(_damage(self)) or "no damage found",
            "\n".join(_remarks(self)),
        ]
        return printable("\n\n".join(block for block in blocks if block), lines=True)


def check_data(datamodule: EventDataModule, splits: Sequence[str] | None = None, *, progress: bool = True) -> DataCheck:
    """Read every recording of a data set once; nothing is changed, and it may be stopped any time.

    Args:
        datamodule: the data set; its ``num_workers`` processes read.
        splits: which of "training", "validation" and "test"; None takes all that the data set has.
        progress: show progress bars.

    Raises:
        UserError: a split that does not exist, or none that could be listed.
    """
    wanted = tuple(splits) if splits else tuple(name for name in datamodule.own_splits if datamodule.has_split(name))
    unknown = [name for name in wanted if name not in datamodule.own_splits]
    if unknown:
        raise UserError(
            f"splits names {unknown[0]!r}, which {type(datamodule).__name__} has no folder for: choose from "
            f"{', '.join(datamodule.own_splits)}"
        )
    checked, unlisted = {}, {}
    for name in (split for split in SPLITS if split in wanted):
        try:
            recordings = datamodule.split(name)
        except UserError as error:
            unlisted[name] = str(error)
            continue
        found = inspect(recordings, datamodule.files, workers=datamodule.num_workers, title=name, progress=progress)
        checked[name] = CheckedSplit(recordings, found)
    if not checked:
        raise UserError(next(iter(unlisted.values())))
    return DataCheck(datamodule, checked, unlisted, _alike(checked.values(), datamodule.files))


def tell_check(check: DataCheck, out: str | None) -> None:
    """Print the table and, where a file is given, write all that was found as JSON.

    Raises:
        UserError: something is damaged, or the file cannot be written.
    """
    print(check.table())
    if out is not None:
        try:
            write_json(Path(out).expanduser(), check.as_dict())
        except OSError as error:
            raise UserError(f"out={out} cannot be written: {error.strerror or error}") from None
    if check.damaged:
        raise UserError(check.advice())


def _alike(splits: Iterable[CheckedSplit], files: EventFiles) -> list[list[str]]:
    """Groups of recordings with the same events; only those with the same numbers are read a second time."""
    groups = defaultdict(list)
    for split in splits:
        found = split.found
        numbers = zip(found.events.tolist(), found.duration_us.tolist(), found.on_events.tolist(), strict=True)
        for position, key in enumerate(numbers):
            if position not in found.causes:
                groups[key].append((split.recordings, position))
    same = defaultdict(list)
    for key, members in groups.items():
        for recordings, position in members if len(members) > 1 else ():
            events, _ = files(recordings.path(position))
            columns = b"".join(events[name].tobytes() for name in "txyp")  # not the padding between them
            digest = hashlib.sha256(columns).hexdigest()
            same[key, digest].append(recordings.relative(position))
    return sorted(paths for paths in same.values() if len(paths) > 1)


def _split_as_dict(split: CheckedSplit) -> dict[str, Any]:
    keys = [*(f"p{percentile}" for percentile in _PERCENTILES), "max"]
    counts = zip(split.recordings.class_folders, split.recordings.class_counts().tolist(), strict=True)
    return {
        "recordings": len(split.recordings),
        "per_class": dict(counts),
        "events": dict(zip(keys, split.percentiles(split.found.events), strict=False)),
        "duration_us": dict(zip(keys, split.percentiles(split.found.duration_us), strict=False)),
        "notes": split.found.notes,
        "damaged": {split.recordings.relative(position): cause for position, cause in split.found.causes.items()},
    }


def _class_rows(splits: dict[str, CheckedSplit]) -> list[list[str]]:
    """Recordings per class and split; of very many classes only the total."""
    folders = list(dict.fromkeys(name for split in splits.values() for name in split.recordings.class_folders))
    counts = {
        name: dict(zip(split.recordings.class_folders, split.recordings.class_counts().tolist(), strict=True))
        for name, split in splits.items()
    }
    rows = [["class", *splits]]
    if len(folders) <= _CLASSES_SHOWN:
        rows += [[folder, *(str(counts[name].get(folder, "-")) for name in splits)] for folder in folders]
    for title, measure in (("fewest", min), ("most", max)):
        rows.append([title, *(str(measure(counts[name].values())) for name in splits)])
    return [*rows, [f"all {len(folders)}", *(str(len(split.recordings)) for split in splits.values())]]


def _split_rows(splits: dict[str, CheckedSplit]) -> list[list[str]]:
    """Percentiles of event counts and durations."""
    places = [*(f"{percentile} %" for percentile in _PERCENTILES), "most"]
    rows = [["of the recordings, at most", *places]]
    for name, split in splits.items():
        rows.append([f"{name}: events", *(f"{value:,.0f}" for value in split.percentiles(split.found.events))])
        durations = split.percentiles(split.found.duration_us)
        rows.append([f"{name}: duration [ms]", *(f"{value / 1e3:,.1f}" for value in durations)])
    return rows


def _against_constants(name: str, split: CheckedSplit, data: EventDataModule) -> str:
    """How a split's sizes stand to the two constants that decide its frames."""
    sound = split.found.events[split.found.sound]
    if not len(sound):
        return f"{name}: no recording can be used"
    per_frame, expected = data.renderer.events_per_frame, data.p95_events
    under, over = (100 * float(np.mean(part)) for part in (sound < per_frame, sound > expected))
    return (
        f"{name}: {under:.1f} % have fewer events than one frame takes (frames.events_per_frame={per_frame:,}), "
        f"{over:.1f} % more than data.p95_events={expected:,} (5 % expected)"
    )


def _damage(check: DataCheck) -> list[str]:
    """Each kind of damage with how often and the first recordings; sentences that differ in numbers are one kind."""
    lines = [f"{split} cannot be listed: {cause}" for split, cause in check.unlisted.items()]
    for name, split in check.splits.items():
        kinds = defaultdict(list)
        for position, cause in split.found.causes.items():
            told = cause.removeprefix(str(split.recordings.path(position))).lstrip(": ")
            kinds[re.sub(r"\d+", "#", told)].append((split.recordings.relative(position), told))
        for members in sorted(kinds.values(), key=len, reverse=True):
            lines.append(f"{name}: {len(members)} damaged of {len(split.recordings)}, the first {members[0][1]}")
            lines += [f"    {path}" for path, _ in members[:_NAMED]]
            lines += [f"    and {len(members) - _NAMED} more"] if len(members) > _NAMED else []
    return lines


def _remarks(check: DataCheck) -> list[str]:
    """What may be right or wrong: units told from numbers, one polarity only, recordings that are there twice."""
    lines = []
    for name, split in check.splits.items():
        found = split.found
        for first, count in found.notes.items():
            lines.append(f"{name}: {count} of {len(split.recordings)} recordings, the first {first}")
        one_sided = found.sound & (found.events > 1) & ((found.on_events == 0) | (found.on_events == found.events))
        if one_sided.any():
            first = split.recordings.relative(int(one_sided.argmax()))
            lines.append(
                f"{name}: {one_sided.sum()} recordings have events of one polarity only, such as {first}: polarity may "
                f"have been lost when they were written"
            )
    if check.alike:
        pair = " and ".join(check.alike[0][:2])
        lines.append(f"groups of recordings with the same events: {len(check.alike)}, such as {pair}")
    return lines


def _columns(rows: list[list[str]]) -> str:
    """Rows as aligned text: the first column to the left, numbers to the right."""
    return "\n".join("  ".join(row).rstrip() for row in aligned(rows))
