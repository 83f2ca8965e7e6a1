"""A recording, wherever it comes from -> the views that CLIP looks at, and what there is to say of how it was read."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError, printable
from eventclip.events.array import EVENT_DTYPE, Events, check_sensor
from eventclip.events.frames import FrameRenderer, events_per_frame_for
from eventclip.inference.result import RecordingViews
from eventclip.io.columns import table_in_memory
from eventclip.io.formats import (
    CHUNK_EVENTS,
    EventStream,
    Naming,
    ReadOptions,
    applies,
    check_options,
    checked_stream,
    open_stream,
    together,
)
from eventclip.views.transform import ViewTransform

Recording: TypeAlias = str | os.PathLike[str] | NDArray[Any]
"""A file in any readable format; or events: structured with fields t, x, y, p (t in µs, p 0 and 1 or -1 and 1), or
(N, 4) numbers x, y, t, p as in the EST releases."""

_ASK = "such as sensor_hw=[480,640]"

_NUMBER = re.compile(r"\d[\d,.]*")


@dataclass(frozen=True, kw_only=True)
class SensorViews:
    """Views for whatever sensor comes: its size -> the :class:`ViewTransform` for it.

    Attributes:
        image_size: side S of CLIP's input [px].
        events_per_frame: N, events in a view. None chooses by each recording's sensor, see
            :func:`eventclip.events.frames.events_per_frame_for`. Too few and an object is dust, too many and it is
            smeared; slow or faint scenes want fewer.
        max_views: most views of a recording; a longer one is looked at in so many places, evenly spread.
        resize_mode: how a frame becomes square: "crop" cuts off what is beyond the middle square, as CLIP's own
            preprocessing and the paper do; "pad" shows all of a wide sensor; "stretch" distorts it.
        color: "gray", or "rgb" with ON red and OFF blue.
        white_background: False is black.
        hot_pixel_std: counts so many standard deviations above the mean are hot pixels and left out; 0 keeps all.

    Raises:
        UserError: an option outside its range.
    """

    image_size: int
    events_per_frame: int | None = None
    max_views: int = 10
    resize_mode: str = "crop"
    color: str = "gray"
    white_background: bool = True
    hot_pixel_std: float = 10.0

    def __post_init__(self) -> None:
        self._transform(1 if self.events_per_frame is None else self.events_per_frame)  # a wrong option is told now

    def __call__(self, sensor_hw: tuple[int, int]) -> ViewTransform:
        """The transform for a sensor's (height, width) [px]."""
        return self._transform(self.events_per_frame or events_per_frame_for(sensor_hw))

    def _transform(self, events_per_frame: int) -> ViewTransform:
        renderer = FrameRenderer(
            events_per_frame,
            color=self.color,
            white_background=self.white_background,
            hot_pixel_std=self.hot_pixel_std,
        )
        return ViewTransform(
            renderer, image_size=self.image_size, max_views=self.max_views, resize_mode=self.resize_mode
        )


class RecordingReader:
    """Read recordings and make their views.

    Args:
        transform_for: gives what makes the views for a sensor's (height, width).
        reading: how files are read.
        trained_hw: sensor that the model was trained on; it is taken where a file tells none, and recordings of
            another one are refused.
        other_sensors: let recordings of other sensors pass.
        trained_unit: unit of time in the tables that the model was trained on; it holds where ``reading`` leaves it
            open.
        checkpoint: where the model was trained, for messages.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(
        self,
        transform_for: Callable[[tuple[int, int]], ViewTransform],
        *,
        reading: ReadOptions | None = None,
        trained_hw: tuple[int, int] | None = None,
        other_sensors: bool = False,
        trained_unit: str | None = None,
        checkpoint: str | Path = "",
    ) -> None:
        self._transform_for, self.reading = transform_for, reading or ReadOptions()
        self._transforms: dict[tuple[int, int], ViewTransform] = {}  # one for each sensor that came so far
        check_options(self.reading)
        self.trained_hw, self.other_sensors, self.trained_unit = trained_hw, other_sensors, trained_unit
        self.checkpoint = f"the checkpoint {checkpoint}".strip()

    def views(
        self, recording: Recording, sensor_hw: Sequence[int] | None = None, reading: ReadOptions | None = None
    ) -> RecordingViews:
        """Read a recording and render what CLIP gets of it.

        Args:
            recording: a file, or events.
            sensor_hw: height and width of the sensor [px]; None takes what the file tells, or the sensor that the
                model was trained on.
            reading: how to read it, where not as all.

        Raises:
            RecordingError: unreadable, empty, its sensor not known or not the one the model was trained on, or
                events outside it.
        """
        name, hw, stream = self.stream(recording, sensor_hw, reading)
        events = together(list(stream.chunks))
        if not len(events):
            raise RecordingError(f"{name} holds no events: remove it or record it again")
        return self.views_of(events, hw, name=name, notes=tuple(stream.notes))

    def stream(
        self, recording: Recording, sensor_hw: Sequence[int] | None = None, reading: ReadOptions | None = None
    ) -> tuple[str, tuple[int, int], EventStream]:
        """Open a recording, to be read in pieces: its name for messages, its sensor, and the stream.

        The sensor is as given, else the recording's own, else the one trained on.

        Raises:
            RecordingError: as for :meth:`views`; what is wrong with events is raised where they are reached.
        """
        check_sensor(sensor_hw)
        options = reading or self.reading
        if isinstance(recording, np.ndarray):
            name = "the events array"
            if recording.dtype == EVENT_DTYPE:  # whose unit is known
                options = replace(options, time_unit=None)
            with Naming(name):
                opened = table_in_memory(recording, CHUNK_EVENTS).opened(options)
            stream = checked_stream(name, opened, options, sensor_hw=sensor_hw, fallback_hw=self.trained_hw)
        elif not isinstance(recording, str | os.PathLike):
            raise RecordingError(
                f"a {type(recording).__name__} is no recording: give a path, or events as a numpy array (np.asarray "
                f"makes one of a tensor or of rows), or a list of either"
            )
        else:
            name, path = str(recording), Path(recording).expanduser()
            if options.time_unit is None and self.trained_unit is not None and applies("time_unit", path, options):
                options = replace(options, time_unit=self.trained_unit)
            stream = open_stream(path, options, sensor_hw=sensor_hw, fallback_hw=self.trained_hw)
        if stream.sensor_hw is None:
            raise RecordingError(f"{name} does not say how large its sensor is: give the height and width, {_ASK}")
        if self.trained_hw not in (None, stream.sensor_hw) and not self.other_sensors:
            (rows, columns), (trained_rows, trained_columns) = stream.sensor_hw, self.trained_hw
            raise RecordingError(
                f"{name} comes from a sensor of {rows}x{columns} pixels and {self.checkpoint} was trained on "
                f"{trained_rows}x{trained_columns}, where frames look different: give other_sensors=True to classify "
                f"it all the same, or train on this sensor"
            )
        return name, stream.sensor_hw, stream

    def views_of(
        self, events: Events, sensor_hw: tuple[int, int], *, name: str, notes: tuple[str, ...] = ()
    ) -> RecordingViews:
        """Views of (N,) events of EVENT_DTYPE that lie on the sensor, N >= 1."""
        transform = self._transforms.get(sensor_hw) or self._transform_for(sensor_hw)
        self._transforms[sensor_hw] = transform
        views = transform(events, sensor_hw)
        events_per_frame = transform.renderer.events_per_frame
        return RecordingViews(
            name, views.pixels, views.spans, views.times, len(events), sensor_hw, events_per_frame, notes
        )


@dataclass
class _Said:
    name: str
    note: str
    recordings: int = 0


class Notes:
    """Sentences on how recordings were read. Those that differ in their numbers alone are one, told of the first."""

    def __init__(self) -> None:
        self._said: dict[str, _Said] = {}

    def add(self, name: str, *notes: str) -> None:
        """Keep what there is to say of a recording."""
        for note in notes:
            self._said.setdefault(_NUMBER.sub("#", note), _Said(name, note)).recordings += 1

    def say(self) -> None:
        """Write a line for each on stderr."""
        for said in self._said.values():
            more = said.recordings - 1
            others = "" if not more else f" (and of {more} other recording{'s' * (more > 1)} alike)"
            print(printable(f"eventclip: {said.name}: {said.note}{others}"), file=sys.stderr)
        self._said.clear()
