"""The files of a data set as events: read one way, and known to lie inside the sensor."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eventclip.datasets.packs import PackedFolders
from eventclip.errors import RecordingError, UserError
from eventclip.events.array import Events, on_sensor, unusable
from eventclip.io.formats import TIME_UNITS, ReadOptions, open_stream, together

REVISION = 2  # of reading: raise it whenever a file would be read as other events

_OPTION = re.compile(r"(?<![\w./-])(?=(?:file_format|time_unit|columns|stream|sort|drop_outside|sensor_hw)=)")


class EventFiles:
    """Read recordings as events that are known to lie inside the sensor.

    Args:
        sensor_hw: sensor height and width [px]; None takes each file's own.
        reading: how files are read that leave it open; None takes them as they are.

    Raises:
        UserError: a sensor or a unit that does not exist.
    """

    def __init__(self, *, sensor_hw: Sequence[int] | None = None, reading: ReadOptions | None = None) -> None:
        if sensor_hw is not None and (len(sensor_hw) != 2 or min(sensor_hw) < 1):
            raise UserError(f"data.sensor_hw must be [height, width] in pixels, got {list(sensor_hw)}")
        self.sensor_hw = None if sensor_hw is None else (int(sensor_hw[0]), int(sensor_hw[1]))
        self.reading = ReadOptions() if reading is None else reading
        unit = self.reading.time_unit
        if unit is not None and unit not in TIME_UNITS:
            raise UserError(f"data.time_unit must be one of {', '.join(TIME_UNITS)}, or null, got {unit!r}")

    def describe(self) -> dict[str, Any]:
        """Plain values that decide how a file is understood; an option that is left as it is has no entry."""
        given = {} if self.sensor_hw is None else {"sensor_hw": list(self.sensor_hw)}
        return {"revision": REVISION, **given, **reading_told(self.reading)}

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

    def __call__(self, path: Path) -> tuple[Events, tuple[int, int]]:
        """Read one file.

        Returns:
            (N,) events of EVENT_DTYPE and the sensor's (height, width).

        Raises:
            RecordingError: unreadable, empty, outside the sensor, or the sensor's size is not known.
        """
        events, own_hw, _ = self._read(path)
        sensor_hw = self.sensor_hw or own_hw
        if sensor_hw is None or not len(events):
            raise unusable(sensor_hw, name=str(path), ask="data.sensor_hw=[H,W]")
        return events, sensor_hw

    def look(self, path: Path) -> tuple[Events, tuple[int, int], list[str]]:
        """Read one file, as :meth:`__call__`, with a sentence for all that was told from its numbers or changed."""
        events, own_hw, notes = self._read(path)
        sensor_hw = self.sensor_hw or own_hw
        if sensor_hw is None or not len(events):
            raise unusable(sensor_hw, name=str(path), ask="data.sensor_hw=[H,W]")
        return events, sensor_hw, [_as_typed(note) for note in notes]

    def read(self, path: Path) -> tuple[Events, tuple[int, int] | None]:
        """Events of one file, which may have none, and the sensor's (height, width) where it is known.

        Raises:
            RecordingError: unreadable, or outside the sensor.
        """
        events, sensor_hw, _ = self._read(path)
        return events, sensor_hw

    def _read(self, path: Path) -> tuple[Events, tuple[int, int] | None, list[str]]:
        try:
            opened = open_stream(path, self.reading, sensor_hw=self.sensor_hw)
            events = together(list(opened.chunks))
        except RecordingError as error:
            raise RecordingError(_as_typed(str(error))) from None
        except UserError as error:
            raise UserError(_as_typed(str(error))) from None
        except MemoryError:
            raise RecordingError(
                f"{path} does not fit into memory: cut it into shorter recordings, or lower data.num_workers"
            ) from None
        return events, opened.sensor_hw, opened.notes


class PackedFiles(EventFiles):
    """Read recordings from packs in place of files.

    Args:
        packs: where they are.
        root: the data set's folder, which need not exist.
        sensor_hw: sensor height and width [px]; None takes what each file said.
        reading: what the files must have been read with when they were packed, as far as it is given.

    Raises:
        UserError: they were read in another way.
    """

    def __init__(
        self,
        packs: PackedFolders,
        root: Path,
        *,
        sensor_hw: Sequence[int] | None = None,
        reading: ReadOptions | None = None,
    ) -> None:
        super().__init__(sensor_hw=sensor_hw, reading=reading)
        self.packs, self.root = packs, root
        for pack in packs.packs:
            for name, value in reading_told(self.reading).items():
                if pack.header.read_as.get(name) != value:
                    raise UserError(
                        f"data.{_typed(name)}={_typed(value)} was not given when {pack.path} was packed, and decides "
                        f"nothing now: leave it out, or pack again with it"
                    )

    def stamp(self, path: Path) -> str:
        """What changes with the content of the packs, whichever of them holds the recording."""
        return self.packs.fingerprint()

    def _read(self, path: Path) -> tuple[Events, tuple[int, int] | None, list[str]]:
        """Events of the recording that was packed from this path below the root."""
        events, packed_hw = self.packs.read(os.fsencode(path.relative_to(self.root).as_posix()))
        if self.sensor_hw not in (None, packed_hw) and len(events):  # which they were not packed with
            on_sensor(events, self.sensor_hw, name=str(path), ask="data.sensor_hw=[H,W]")
        return events, packed_hw, []


def reading_told(reading: ReadOptions) -> dict[str, Any]:
    """What is given of the options, without those left as they are; how much may be unpacked decides nothing."""
    usual = asdict(ReadOptions(largest_bytes=reading.largest_bytes))
    return {name: value for name, value in asdict(reading).items() if value != usual[name]}


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_typed(sentence: str) -> str:
    """A sentence of a reader, with its options as a command with a data set takes them."""
    return _OPTION.sub("data.", sentence)
