"""One recording on disk -> one sample, the same whoever asks, whenever, in whatever order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from eventclip.data.packed import PackedFolders
from eventclip.data.randomness import generator
from eventclip.data.recordings import Recordings
from eventclip.data.view_maker import ViewMaker
from eventclip.errors import RecordingError, UserError
from eventclip.events.sensor import on_sensor
from eventclip.io.formats import TIME_UNITS, read_events

Sample = dict[str, Any]
"""views uint8 (V,C,S,S), valid bool (V,), label int, index int; a batch adds B in front."""

_DRAWS = 10
"""Training draws of one recording before giving up: a shift of 20 px empties none that fills a sensor."""


class EventFiles:
    """Read recordings as events that are known to lie inside the sensor.

    Args:
        sensor_hw: sensor height and width [px]; None takes each file's own.
        file_format: format name as in :func:`eventclip.io.formats.read_events`; None tells it by the suffix.
        time_unit: unit of time in tables, "s", "ms", "us" or "ns"; None tells it by the numbers.
    """

    def __init__(
        self,
        *,
        sensor_hw: Sequence[int] | None = None,
        file_format: str | None = None,
        time_unit: str | None = None,
    ) -> None:
        if sensor_hw is not None and (len(sensor_hw) != 2 or min(sensor_hw) < 1):
            raise UserError(f"data.sensor_hw must be [height, width] in pixels, got {list(sensor_hw)}")
        self.sensor_hw = None if sensor_hw is None else (int(sensor_hw[0]), int(sensor_hw[1]))
        self.file_format = file_format
        if time_unit is not None and time_unit not in TIME_UNITS:
            raise UserError(f"data.time_unit must be one of {', '.join(TIME_UNITS)}, or null, got {time_unit!r}")
        self.time_unit = time_unit

    def describe(self) -> dict[str, Any]:
        """Plain values that decide how a file is understood."""
        sensor_hw = None if self.sensor_hw is None else list(self.sensor_hw)
        return {"sensor_hw": sensor_hw, "format": self.file_format, "time_unit": self.time_unit}

    def stamp(self, path: Path) -> str:
        """Size and time of change of a file [bytes, ns], which tell whether it is still the same.

        Raises:
            RecordingError: it is not there.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise RecordingError(f"{path} cannot be read ({error.strerror}): check data.root") from None
        return f"{status.st_size}-{status.st_mtime_ns}"

    def __call__(self, path: Path) -> tuple[NDArray[np.void], tuple[int, int]]:
        """Read one file.

        Returns:
            (N,) events of EVENT_DTYPE and the sensor's (height, width).

        Raises:
            RecordingError: unreadable, empty, outside the sensor, or the sensor's size is not known.
        """
        events, own_hw = self.read(path)
        sensor_hw = self.sensor_hw or own_hw
        return events, on_sensor(events, sensor_hw, name=str(path), ask="data.sensor_hw=[H,W]")

    def read(self, path: Path) -> tuple[NDArray[np.void], tuple[int, int] | None]:
        """Events of one file as they are, and the sensor's (height, width) where the file knows it."""
        return read_events(path, self.file_format, time_unit=self.time_unit)


class PackedFiles(EventFiles):
    """Read recordings from packs in place of files.

    Args:
        packs: where they are.
        root: the data set's folder, which need not exist.
        sensor_hw: sensor height and width [px]; None takes what each file said.
    """

    def __init__(self, packs: PackedFolders, root: Path, *, sensor_hw: Sequence[int] | None = None) -> None:
        super().__init__(sensor_hw=sensor_hw)
        self.packs, self.root = packs, root

    def stamp(self, path: Path) -> str:
        """Size and time of change of the packs: whichever of them holds the recording."""
        return self._stamp

    @cached_property
    def _stamp(self) -> str:  # of each recording it would be asked for, and it is one
        return "+".join(super(PackedFiles, self).stamp(pack.path) for pack in self.packs.packs)

    def read(self, path: Path) -> tuple[NDArray[np.void], tuple[int, int] | None]:
        """Events of the recording that was packed from this path below the root."""
        return self.packs.read(os.fsencode(path.relative_to(self.root).as_posix()))


class RecordingDataset(Dataset[Sample]):
    """Samples of a set of recordings.

    A sample is asked for by ``(epoch, position)``; what is random in it is drawn from a generator keyed by seed, epoch
    and the recording itself (its relative path, and which of its repeats it is), so it depends neither on workers,
    ranks, batches or interruptions, nor on what else was drawn: the one shot of a class is augmented alike among five.

    Args:
        recordings: what to read, in order; few-shot draws may repeat a recording.
        files: path -> events.
        make_views: events -> views.
        seed: seed of the augmentation.
    """

    def __init__(self, recordings: Recordings, files: EventFiles, make_views: ViewMaker, *, seed: int = 0) -> None:
        self.recordings = recordings
        self.files = files
        self.make_views = make_views
        self.seed = seed
        # Without augmentation the repeats of a recording are one and the same sample.
        self.repeats = None if make_views.augmentation is None else repeats(recordings.paths)

    def __len__(self) -> int:
        return len(self.recordings)

    def describe(self) -> dict[str, Any]:
        """Plain values that decide what the views of a given recording look like."""
        seed = None if self.make_views.augmentation is None else self.seed
        return {"files": self.files.describe(), "views": self.make_views.describe(), "seed": seed}

    def row_name(self, position: int) -> bytes:
        """What tells this recording from all others of the same description; changes when its file does.

        Raises:
            RecordingError: the recording is not there.
        """
        repeat = 0 if self.repeats is None else self.repeats[position]
        stamp = self.files.stamp(self.recordings.path(position))
        return b"%d/%s/%s" % (repeat, stamp.encode(), bytes(self.recordings.paths[position]))

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, position = key
        path = self.recordings.path(position)
        events, sensor_hw = self.files(path)
        made = None
        if self.make_views.augmentation is None:
            made = self.make_views(events, sensor_hw)
        else:
            rng = self._generator(epoch, position)
            for _ in range(_DRAWS):
                made = self.make_views(events, sensor_hw, rng)
                if made is not None:
                    break
        if made is None:
            raise RecordingError(
                f"{path} has {len(events)} events and none was left on the {sensor_hw[0]}x{sensor_hw[1]} sensor "
                f"after {_DRAWS} random shifts: lower data.augmentation.max_shift or leave the recording out"
            )
        views, valid = made
        return {
            "views": torch.from_numpy(views),
            "valid": torch.from_numpy(valid),
            "label": int(self.recordings.labels[position]),
            "index": position,
        }

    def _generator(self, epoch: int, position: int) -> np.random.Generator:
        name = ascii(self.recordings.relative(position))  # file names need not be UTF-8
        repeat = 0 if self.repeats is None else int(self.repeats[position])
        return generator(self.seed, f"augment {name}", epoch=epoch, index=repeat)


def repeats(paths: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """(n,) how often each path came before: 0 where it comes first."""
    order = np.argsort(paths, kind="stable")
    ordered = paths[order]
    first = np.ones(len(paths), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    places = np.arange(len(paths))
    counts = np.empty(len(paths), np.int64)
    counts[order] = places - np.maximum.accumulate(np.where(first, places, 0))
    return counts
