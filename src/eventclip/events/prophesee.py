"""Prophesee's .dat and .raw recordings, decoded by expelliarmus.

The errors raised here are what follows the path in a sentence; :func:`eventclip.events.readers.read_events` adds it.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from expelliarmus import Wizard
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.events.columns import check_recording
from eventclip.events.kernel import kernel

Recording = tuple[Events, tuple[int, int] | None]

_DAT_KINDS = ([0, 8], [12, 8])
_HEADER_LINE = re.compile(rb"%([\t\x20-\x7e]*)(\r?\n)?")
_EVT2_KINDS = (0x0, 0x1, 0x8, 0xA, 0xE, 0xF)
_EVT3_KINDS = (0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0xA, 0xE, 0xF)
_TRIGGER, _OTHER = 0xA, 0xE


def read_dat(path: Path) -> Recording:
    """Read Prophesee's ``.dat``, version 2 (docs.prophesee.ai, "DAT File Format"), as of N-Cars.

    Args:
        path: the file.

    Returns:
        Events, and (height, width) where the header tells it.

    Raises:
        RecordingError: no such header, other than events of 8 bytes, truncated, or time running backwards.
    """
    start, sensor_hw = dat_layout(path)
    count = whole_events(path, start, 8)
    events = _decode("dat", path, count=count, copy=None)
    check_dat_clock(events)
    return check_recording(events), sensor_hw


def dat_layout(path: Path) -> tuple[int, tuple[int, int] | None]:
    """The byte where the events of a ``.dat`` begin, and (height, width) where its header tells it."""
    header, start = header_of(path)
    if header.get("version", "2") != "2":
        raise RecordingError(f"says in its header that it has version {header['version']}: expected version 2")
    kind = np.fromfile(path, np.uint8, count=2, offset=start).tolist()
    if kind not in _DAT_KINDS:
        kind_told = f"type {kind[0]} and {kind[1]} bytes" if len(kind) == 2 else "no type"
        raise RecordingError(
            f"says at byte {start} that its events have {kind_told}: expected type 0 or 12 with 8 bytes"
        )
    return start + 2, sensor_size(header.get("height"), header.get("width"))


def check_dat_clock(events: Events) -> None:
    """Refuse steps back in time, which expelliarmus has taken for the 32 bits of the clock running over."""
    if len(events) and events["t"][-1] >= 1 << 32:
        backwards = np.diff(events["t"]) > 1 << 31
        if backwards.any():
            raise RecordingError(f"runs backwards in time at row {int(backwards.argmax()) + 1}: expected order of time")


def read_raw(path: Path) -> Recording:
    """Read Prophesee's ``.raw`` with EVT2 or EVT3 events (docs.prophesee.ai, "RAW File Format").

    expelliarmus decodes. It takes every step back of EVT3's time words for a run-over, so that durations can come out
    too long; the order of events, which is all that frames need, is right.

    Args:
        path: the file.

    Returns:
        Events, and (height, width) where the header tells it.

    Raises:
        RecordingError: no such header, another encoding, truncated, or words that the encoding does not have.
    """
    layout = raw_layout(path)
    words = np.fromfile(path, layout.word, offset=layout.start)
    tally = np.zeros(16, np.int64)
    layout.tally(words, 0, tally)
    copy = digestible(words, layout.shift, triggers=layout.stumbles_over_triggers(tally))
    events = _decode(layout.encoding, path, count=layout.events(tally), copy=copy)
    return check_recording(events), layout.sensor_hw


class RawLayout(NamedTuple):
    """What the header of a ``.raw`` says of its words.

    Attributes:
        encoding: "evt2" or "evt3".
        start: byte of the first word.
        sensor_hw: height and width where they are told.
    """

    encoding: str
    start: int
    sensor_hw: tuple[int, int] | None

    @property
    def word(self) -> np.dtype[Any]:
        """Type of a word."""
        return np.dtype("<u4" if self.encoding == "evt2" else "<u2")

    @property
    def shift(self) -> int:
        """Bits below the type of a word."""
        return 8 * self.word.itemsize - 4

    def tally(self, words: NDArray[Any], before: int, tally: NDArray[np.int64]) -> None:
        """Add ``words``, ``before`` words after the first, to the tally (16,) of types; RecordingError if unknown."""
        kinds = _EVT2_KINDS if self.encoding == "evt2" else _EVT3_KINDS
        unknown = survey(words, self.shift, np.array(kinds), tally)
        if unknown >= 0:
            raise RecordingError(
                f"has a word of type {int(words[unknown]) >> self.shift:#x} at byte "
                f"{self.start + (before + unknown) * self.word.itemsize}: expected the types of {self.encoding.upper()}"
            )

    def events(self, tally: NDArray[np.int64]) -> int:
        """How many events the tallied words hold."""
        return int(tally[[0x0, 0x1] if self.encoding == "evt2" else [0x2, 0x4, 0x5]].sum())

    def stumbles_over_triggers(self, tally: NDArray[np.int64]) -> bool:
        """Whether there are trigger words that expelliarmus does not know."""
        return self.encoding == "evt3" and bool(tally[_TRIGGER])


def raw_layout(path: Path) -> RawLayout:
    """Read the header of a ``.raw``; RecordingError for another encoding or a truncated file."""
    header, start = header_of(path)
    encoding, *details = header.get("format", "").split(";")
    told = {"2.0": "EVT2", "3.0": "EVT3"}.get(header.get("evt", ""), header.get("evt", ""))
    name = (encoding or told).upper()
    if name not in {"EVT2", "EVT3"}:
        raise RecordingError(f"says in its header that its encoding is {name or 'nothing'}: expected EVT2 or EVT3")
    sizes = dict(detail.split("=", 1) for detail in details if "=" in detail)
    width, _, height = header.get("geometry", "").partition("x")
    sensor_hw = sensor_size(sizes.get("height", height), sizes.get("width", width))
    layout = RawLayout(name.lower(), start, sensor_hw)
    whole_events(path, start, layout.word.itemsize)
    return layout


def header_of(path: Path) -> tuple[dict[str, str], int]:
    """Keywords in lower case and values of Prophesee's header, and the byte where it ends."""
    header: dict[str, str] = {}
    start = 0
    with path.open("rb") as file:
        while match := _HEADER_LINE.fullmatch(line := file.readline(4096)):
            if not match[2]:
                raise RecordingError(f"ends inside its header at byte {start}: expected events after the % lines")
            start += len(line)
            keyword, _, value = match[1].decode("ascii").strip().partition(" ")
            if keyword == "end":
                break
            header[keyword.lower()] = value.strip()
    if start == 0:
        raise RecordingError("does not begin with a % line: expected the header of a Prophesee recording")
    return header, start


def sensor_size(height: str | None, width: str | None) -> tuple[int, int] | None:
    """A sensor's size from a header, None where it is not told."""
    if height and width and height.isdigit() and width.isdigit():
        return int(height), int(width)
    return None


def whole_events(path: Path, start: int, itemsize: int) -> int:
    """How many events or words of ``itemsize`` bytes there are from a byte on; part of one is refused."""
    count, rest = divmod(path.stat().st_size - start, itemsize)
    if rest:
        whole = start + count * itemsize
        raise RecordingError(f"ends in the middle of an event at byte {whole}: expected {itemsize} bytes an event")
    return count


@kernel
def survey(words: NDArray[Any], shift: int, kinds: NDArray[np.int64], tally: NDArray[np.int64]) -> int:
    """Tally the types of words, vectors of events by their bits; the first of a type not in ``kinds``, −1 if none."""
    for i in range(len(words)):
        kind = np.int64(words[i]) >> shift
        if kind not in kinds:
            return i
        ones = 1
        if shift == 12 and kind in (0x4, 0x5):
            ones, bits = 0, np.int64(words[i]) & (0xFFF if kind == 0x4 else 0xFF)
            while bits:
                bits &= bits - 1
                ones += 1
        tally[kind] += ones
    return -1


def digestible(words: NDArray[Any], shift: int, *, triggers: bool) -> NDArray[Any] | None:
    """Words without events put where expelliarmus would stumble, None where it does not.

    It takes a first byte of '%' for another line of the header, and does not know the trigger words of EVT3.
    """
    if not triggers and not (len(words) and words[0] & 0xFF == ord("%")):
        return None
    filler = words.dtype.type(_OTHER << shift)
    copy = np.concatenate([[filler], words])
    if triggers:
        copy[copy >> shift == _TRIGGER] = filler
    return copy


def _decode(encoding: str, path: Path, *, count: int, copy: NDArray[Any] | None) -> Events:
    """Decode with expelliarmus, which insists on its suffix, and make sure that no event got lost."""
    if count == 0:
        return np.empty(0, EVENT_DTYPE)
    suffix = ".dat" if encoding == "dat" else ".raw"
    try:
        if copy is None and path.suffix == suffix:
            events = Wizard(encoding).read(path)
        else:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "copy" + suffix)
                file.write_bytes(path.read_bytes() if copy is None else b"% end\n" + copy.tobytes())
                events = Wizard(encoding).read(file)
    except (RuntimeError, TypeError, ValueError) as error:
        raise RecordingError(f"cannot be decoded by expelliarmus as {encoding} ({error})") from error
    if events is None or len(events) != count:
        decoded = 0 if events is None else len(events)
        raise RecordingError(
            f"has {count} events of which expelliarmus decoded {decoded}: expected a whole {encoding} file"
        )
    array: Events = events
    return array
