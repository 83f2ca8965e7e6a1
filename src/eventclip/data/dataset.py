"""One recording on disk -> one sample, the same whoever asks, whenever, in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from eventclip.data.randomness import generator
from eventclip.data.recordings import Recordings
from eventclip.data.view_maker import ViewMaker
from eventclip.errors import RecordingError, UserError
from eventclip.events.columns import TIME_UNITS
from eventclip.events.readers import read_events
from eventclip.events.sensor import on_sensor

Sample = dict[str, Any]
"""views uint8 (V,C,S,S), valid bool (V,), label int, index int; a batch adds B in front."""

_DRAWS = 10
"""Training draws of one recording before giving up: a shift of 20 px empties none that fills a sensor."""


class EventFiles:
    """Read recordings as events that are known to lie inside the sensor.

    Args:
        sensor_hw: sensor height and width [px]; None takes each file's own.
        file_format: format name as in :func:`eventclip.events.readers.read_events`; None tells it by the suffix.
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

    def __call__(self, path: Path) -> tuple[NDArray[np.void], tuple[int, int]]:
        """Read one file.

        Returns:
            (N,) events of EVENT_DTYPE and the sensor's (height, width).

        Raises:
            RecordingError: unreadable, empty, outside the sensor, or the sensor's size is not known.
        """
        events, own_hw = read_events(path, self.file_format, time_unit=self.time_unit)
        sensor_hw = self.sensor_hw or own_hw
        return events, on_sensor(events, sensor_hw, name=str(path), ask="data.sensor_hw=[H,W]")


class RecordingDataset(Dataset[Sample]):
    """Samples of a set of recordings.

    A sample is asked for by ``(epoch, position)``; what is random in it is drawn from a generator keyed by
    (seed, "augment", epoch, position), so it does not depend on workers, ranks, batches or interruptions.

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

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, position = key
        path = self.recordings.path(position)
        events, sensor_hw = self.files(path)
        made = None
        if self.make_views.augmentation is None:
            made = self.make_views(events, sensor_hw)
        else:
            rng = generator(self.seed, "augment", epoch=epoch, index=position)
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
