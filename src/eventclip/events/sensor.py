"""What a recording must have before anything can look at it: events, and a sensor that they lie on."""

from __future__ import annotations

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import Events, check_events


def on_sensor(events: Events, sensor_hw: tuple[int, int] | None, *, name: str, ask: str) -> tuple[int, int]:
    """Refuse a recording without events, without a known sensor, or with events outside it.

    Args:
        events: (N,) array of EVENT_DTYPE.
        sensor_hw: height and width of the sensor [px], None where nobody has told it.
        name: of the recording, for messages.
        ask: the argument that tells the sensor, for messages ("sensor_hw=[H,W]").

    Returns:
        The sensor's height and width.

    Raises:
        RecordingError: one of the three.
    """
    if sensor_hw is None:
        raise RecordingError(f"{name} does not say how large its sensor is: give the height and width, {ask}")
    if len(events) == 0:
        raise RecordingError(f"{name} holds no events: remove it or record it again")
    try:
        check_events(events, sensor_hw)
    except UserError as error:
        raise RecordingError(f"{name}: {error}") from None
    return sensor_hw
