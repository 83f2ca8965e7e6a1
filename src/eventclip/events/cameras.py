"""Recordings as cameras write them: ATIS ``.bin`` (40 bits an event) and Prophesee ``.dat``."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from expelliarmus import Wizard

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE, Events

_OVERFLOW_ROW = 240
_OVERFLOW_US = 1 << 13
_DAT_CD_TYPES = (0, 12)


def read_atis_bin(path: Path) -> tuple[Events, None]:
    """Read the 40-bit events of N-Caltech101 and N-MNIST (Orchard et al. 2015).

    Byte 0 is x, byte 1 y; of the 24 bits that follow, the highest is the polarity (1 = ON) and the rest the time
    [µs]. An entry with y = 240, below the sensor's last row, is no event: it says that the clock ran on by 2^13 µs.

    Raises:
        RecordingError: the file does not end with a whole event.
    """
    raw = np.fromfile(path, np.uint8)
    if len(raw) % 5:
        whole = len(raw) // 5 * 5
        raise RecordingError(
            f"{path} ends in the middle of an event at byte {whole}: expected 5 bytes an event, got {len(raw)} bytes"
        )
    fields = raw.reshape(-1, 5)
    events: Events = np.zeros(len(fields), EVENT_DTYPE)
    events["x"], events["y"] = fields[:, 0], fields[:, 1]
    events["p"] = fields[:, 2] >> 7
    high = (fields[:, 2] & 0x7F).astype(np.int64)
    events["t"] = (high << 16) | (fields[:, 3].astype(np.int64) << 8) | fields[:, 4]
    overflow = events["y"] == _OVERFLOW_ROW
    if overflow.any():
        events["t"] += _OVERFLOW_US * np.cumsum(overflow)
        events = events[~overflow]
    return events, None


def read_prophesee_dat(path: Path) -> tuple[Events, tuple[int, int] | None]:
    """Read Prophesee's ``.dat``: text header lines beginning with %, two bytes of type and size, 8 bytes an event.

    Raises:
        RecordingError: no such header, events of another type, or a file that does not end with a whole event.
    """
    if path.suffix.lower() != ".dat":
        raise RecordingError(f"{path} is to be read as Prophesee .dat, whose decoder expects a name that ends in .dat")
    content = path.read_bytes()
    start, header = 0, ""
    while content[start : start + 1] == b"%":
        end = content.find(b"\n", start)
        if end < 0:
            raise RecordingError(f"{path} ends inside its header at byte {start}: expected events after the % lines")
        header += content[start:end].decode("ascii", "replace") + "\n"
        start = end + 1
    if not header:
        raise RecordingError(f"{path} does not begin with a % line: expected the header of a Prophesee .dat file")
    kind, size = (*content[start : start + 2], 0, 0)[:2]
    if kind not in _DAT_CD_TYPES or size != 8:
        raise RecordingError(
            f"{path} says at byte {start} that its events have type {kind} and {size} bytes: expected type 0 or 12 "
            f"with 8 bytes"
        )
    start += 2
    if (len(content) - start) % 8:
        whole = start + (len(content) - start) // 8 * 8
        raise RecordingError(f"{path} ends in the middle of an event at byte {whole}: expected 8 bytes an event")
    if start == len(content):
        return np.zeros(0, EVENT_DTYPE), _sensor(header)
    events: Events = Wizard(encoding="dat").read(path).astype(EVENT_DTYPE, copy=False)
    if len(events) != (len(content) - start) // 8:
        raise RecordingError(
            f"{path} has room for {(len(content) - start) // 8} events after its header and {len(events)} could be "
            f"read: expected a whole Prophesee .dat file"
        )
    return events, _sensor(header)


def _sensor(header: str) -> tuple[int, int] | None:
    """Height and width where the header has them; older files have not."""
    height = re.search(r"^%\s*height\s+(\d+)", header, re.IGNORECASE | re.MULTILINE)
    width = re.search(r"^%\s*width\s+(\d+)", header, re.IGNORECASE | re.MULTILINE)
    return (int(height[1]), int(width[1])) if height and width else None
