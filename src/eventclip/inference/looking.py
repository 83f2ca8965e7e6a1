"""A recording, wherever it comes from -> the views that CLIP looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.events.frames import FrameRenderer, events_per_frame_for
from eventclip.events.sensor import on_sensor
from eventclip.inference.result import Views
from eventclip.io.columns import table_in_memory
from eventclip.io.formats import (
    CHUNK_EVENTS,
    EventStream,
    ReadOptions,
    applies,
    check_options,
    check_sensor,
    checked_stream,
    naming,
    open_stream,
    together,
)
from eventclip.views.square import FITS
from eventclip.views.transform import ViewMaker

Recording: TypeAlias = str | Path | NDArray[Any]
"""A file in any readable format; or events: structured with fields t, x, y, p (t in µs, p 0 and 1 or -1 and 1), or
(N, 4) numbers x, y, t, p as in the EST releases."""

ASK = "such as sensor_hw=[480,640]"


class SensorRenderer:
    """Frames for whatever sensor comes.

    Args:
        events_per_frame: N, events in a view. None chooses by each recording's sensor, see
            :func:`eventclip.events.frames.events_per_frame_for`. Too few and an object is dust, too many and it is
            smeared; slow or faint scenes want fewer.
        color: "gray", or "rgb" with ON red and OFF blue.
        white_background: False is black.
        hot_pixel_std: counts so many standard deviations above the mean are hot pixels and left out; 0 keeps all.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(
        self,
        events_per_frame: int | None = None,
        *,
        color: str = "gray",
        white_background: bool = True,
        hot_pixel_std: float = 10.0,
    ) -> None:
        self.events_per_frame = events_per_frame
        self.color, self.white_background, self.hot_pixel_std = color, white_background, hot_pixel_std
        self._renderer(1 if events_per_frame is None else events_per_frame)  # a wrong option is told now

    def __call__(self, sensor_hw: tuple[int, int]) -> FrameRenderer:
        """The renderer for a sensor."""
        return self._renderer(self.events_per_frame or events_per_frame_for(sensor_hw))

    def _renderer(self, events_per_frame: int) -> FrameRenderer:
        return FrameRenderer(
            events_per_frame,
            color=self.color,
            white_background=self.white_background,
            hot_pixel_std=self.hot_pixel_std,
        )


class Looking:
    """How recordings become views.

    Args:
        image_size: side S of CLIP's input [px].
        renderer_for: gives the renderer for a sensor's (height, width).
        max_views: most views of a recording; a longer one is looked at in so many places, evenly spread.
        fit: how a frame becomes square: "crop" cuts off what is beyond the middle square, as CLIP's own
            preprocessing and the paper do; "pad" shows all of a wide sensor; "stretch" distorts it.
        trained_hw: sensor that the model was trained on; it is taken where a file tells none, and recordings of
            another one are refused.
        other_sensors: let recordings of other sensors pass.
        reading: how files are read.
        trained_unit: unit of time in the tables that the model was trained on; it holds where ``reading`` leaves it
            open.

    Raises:
        UserError: an option outside its range.
    """

    def __init__(
        self,
        *,
        image_size: int,
        renderer_for: Callable[[tuple[int, int]], FrameRenderer],
        max_views: int = 10,
        fit: str = "crop",
        trained_hw: tuple[int, int] | None = None,
        other_sensors: bool = False,
        reading: ReadOptions | None = None,
        trained_unit: str | None = None,
    ) -> None:
        self.reading = reading or ReadOptions()
        check_options(self.reading)
        if max_views < 1:
            raise UserError(f"max_views must be 1 or more, got {max_views}")
        if fit not in FITS:
            raise UserError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
        self.image_size, self.renderer_for, self.max_views, self.fit = image_size, renderer_for, max_views, fit
        self.trained_hw, self.other_sensors, self.trained_unit = trained_hw, other_sensors, trained_unit

    def views(
        self, recording: Recording, sensor_hw: Sequence[int] | None = None, reading: ReadOptions | None = None
    ) -> Views:
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
        name, stream = self.stream(recording, sensor_hw, reading)
        events = together(list(stream.chunks))
        return replace(self.views_of(events, stream.sensor_hw, name=name), notes=tuple(stream.notes))

    def stream(
        self, recording: Recording, sensor_hw: Sequence[int] | None = None, reading: ReadOptions | None = None
    ) -> tuple[str, EventStream]:
        """Open a recording, to be read in pieces; gives its name for messages as well.

        The stream's sensor is as given, else the recording's own, else the one trained on; None where nobody tells it.

        Raises:
            RecordingError: as for :meth:`views`; what is wrong with events is raised where they are reached.
        """
        check_sensor(sensor_hw)
        options = reading or self.reading
        if isinstance(recording, np.ndarray):
            name = "the events array"
            if recording.dtype == EVENT_DTYPE:  # whose unit is known
                options = replace(options, time_unit=None)
            with naming(name):
                opened = table_in_memory(recording, CHUNK_EVENTS).opened(options)
            stream = checked_stream(name, opened, options, sensor_hw=sensor_hw or self.trained_hw)
        else:
            name, path = str(recording), Path(recording).expanduser()
            if options.time_unit is None and self.trained_unit is not None and applies("time_unit", path, options):
                options = replace(options, time_unit=self.trained_unit)
            stream = open_stream(path, options, sensor_hw=sensor_hw)
            if stream.sensor_hw is None and options.drop_outside and self.trained_hw is not None:
                stream = open_stream(path, options, sensor_hw=self.trained_hw)
        self._check_trained(name, stream.sensor_hw)
        stream.sensor_hw = stream.sensor_hw or self.trained_hw
        return name, stream

    def _check_trained(self, name: str, sensor_hw: tuple[int, int] | None) -> None:
        trained = self.trained_hw
        if sensor_hw is None or trained is None or sensor_hw == trained or self.other_sensors:
            return
        raise RecordingError(
            f"{name} comes from a sensor of {sensor_hw[0]}x{sensor_hw[1]} pixels and the checkpoint was trained on "
            f"{trained[0]}x{trained[1]}, where frames look different: give other_sensors=True to classify it all the "
            f"same, or train on this sensor"
        )

    def views_of(self, events: Events, sensor_hw: tuple[int, int] | None, *, name: str) -> Views:
        """Views of (N,) events of EVENT_DTYPE; RecordingError as for :meth:`views`."""
        hw = on_sensor(events, sensor_hw, name=name, ask=ASK)
        maker = ViewMaker(self.renderer_for(hw), image_size=self.image_size, max_views=self.max_views, fit=self.fit)
        made = maker(events, hw)
        if made is None:
            raise RecordingError(f"{name} holds no events: remove it or record it again")
        frames, valid = made
        spans = maker.windows(len(events))
        times = np.stack([events["t"][spans[:, 0]], events["t"][spans[:, 1] - 1]], axis=1)
        frames = frames[: int(valid.sum())]
        return Views(name, frames, spans, times, len(events), hw, maker.renderer.events_per_frame)
