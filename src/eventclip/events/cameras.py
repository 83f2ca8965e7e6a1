"""Recordings as cameras write them: ATIS .bin, Prophesee .dat and .raw, iniVation .aedat4.

The errors raised here are what follows the path in a sentence; :func:`eventclip.events.readers.read_events` adds it.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from expelliarmus import Wizard
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE, Events, events_from_columns
from eventclip.events.columns import check_recording
from eventclip.events.kernel import kernel

Recording = tuple[Events, tuple[int, int] | None]

_OVERFLOW_ROW, _OVERFLOW_US = 240, 1 << 13
_DAT_KINDS = ([0, 8], [12, 8])
_HEADER_LINE = re.compile(rb"%([\t\x20-\x7e]*)(\r?\n)?")
_EVT2_KINDS = (0x0, 0x1, 0x8, 0xA, 0xE, 0xF)
_EVT3_KINDS = (0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0xA, 0xE, 0xF)
_TRIGGER, _OTHER = 0xA, 0xE


def read_atis(path: Path) -> Recording:
    """Read the 40-bit events of N-Caltech101 and N-MNIST (Orchard et al., Frontiers in Neuroscience 9:437, 2015).

    Bytes: x, y, then one bit of polarity and 23 bits of time [µs], big-endian. A row of 240, which no ATIS has, is no
    event: it says that the time has run over, and all that follows is 2^13 µs later.

    Args:
        path: the file.

    Returns:
        Events, and None for the sensor, which the format does not know.

    Raises:
        RecordingError: empty, truncated, or time running backwards.
    """
    raw = np.fromfile(path, np.uint8)
    if len(raw) % 5:
        whole = len(raw) // 5 * 5
        raise RecordingError(f"ends in the middle of an event at byte {whole}: expected 5 bytes an event")
    x, y, high, middle, low = raw.reshape(-1, 5).T
    events = np.zeros(len(x), EVENT_DTYPE)
    events["x"], events["y"], events["p"] = x, y, high >> 7
    events["t"] = (high & 0x7F).astype(np.int32) << 16 | middle.astype(np.int32) << 8 | low
    overflow = y == _OVERFLOW_ROW
    if overflow.any():
        events["t"] += np.cumsum(overflow) * _OVERFLOW_US
        events = events[~overflow]
    return check_recording(events), None


def read_dat(path: Path) -> Recording:
    """Read Prophesee's ``.dat``, version 2 (docs.prophesee.ai, "DAT File Format"), as of N-Cars.

    Args:
        path: the file.

    Returns:
        Events, and (height, width) where the header tells it.

    Raises:
        RecordingError: no such header, other than events of 8 bytes, truncated, or time running backwards.
    """
    header, start = _header_of(path)
    if header.get("version", "2") != "2":
        raise RecordingError(f"says in its header that it has version {header['version']}: expected version 2")
    kind = np.fromfile(path, np.uint8, count=2, offset=start).tolist()
    if kind not in _DAT_KINDS:
        kind_told = f"type {kind[0]} and {kind[1]} bytes" if len(kind) == 2 else "no type"
        raise RecordingError(
            f"says at byte {start} that its events have {kind_told}: expected type 0 or 12 with 8 bytes"
        )
    count = _whole_events(path, start + 2, 8)
    events = _decode("dat", path, count=count, copy=None)
    if count and events["t"][-1] >= 1 << 32:  # each step back has been taken for the 32 bits running over
        backwards = np.diff(events["t"]) > 1 << 31
        if backwards.any():
            raise RecordingError(f"runs backwards in time at row {int(backwards.argmax()) + 1}: expected order of time")
    return check_recording(events), _size(header.get("height"), header.get("width"))


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
    header, start = _header_of(path)
    encoding, *details = header.get("format", "").split(";")
    told = {"2.0": "EVT2", "3.0": "EVT3"}.get(header.get("evt", ""), header.get("evt", ""))
    name = (encoding or told).upper()
    if name not in {"EVT2", "EVT3"}:
        raise RecordingError(f"says in its header that its encoding is {name or 'nothing'}: expected EVT2 or EVT3")
    itemsize, shift, kinds = (4, 28, _EVT2_KINDS) if name == "EVT2" else (2, 12, _EVT3_KINDS)
    _whole_events(path, start, itemsize)
    words = np.fromfile(path, f"<u{itemsize}", offset=start)
    tally = np.zeros(16, np.int64)
    unknown = _survey(words, shift, np.array(kinds), tally)
    if unknown >= 0:
        raise RecordingError(
            f"has a word of type {int(words[unknown]) >> shift:#x} at byte {start + unknown * itemsize}: expected the "
            f"types of {name}"
        )
    count = tally[0x0] + tally[0x1] if name == "EVT2" else tally[0x2] + tally[0x4] + tally[0x5]
    copy = _digestible(words, shift, triggers=name == "EVT3" and bool(tally[_TRIGGER]))
    events = _decode(name.lower(), path, count=int(count), copy=copy)
    sizes = dict(detail.split("=", 1) for detail in details if "=" in detail)
    width, _, height = header.get("geometry", "").partition("x")
    return check_recording(events), _size(sizes.get("height", height), sizes.get("width", width))


def read_aedat4(path: Path) -> Recording:
    """Read iniVation's ``.aedat4``.

    Args:
        path: the file.

    Returns:
        Events, and (height, width) of their stream.

    Raises:
        RecordingError: the reader is not installed, not a whole file, or not exactly one stream of events.
    """
    try:
        import aedat
    except ImportError as error:
        raise RecordingError("needs another package to be read: pip install eventclip[aedat]") from error
    try:
        decoder = aedat.Decoder(path)
        streams = {key: stream for key, stream in decoder.id_to_stream().items() if stream["type"] == "events"}
        packets = [packet["events"] for packet in decoder if "events" in packet]
    except BaseException as error:  # a panic of its Rust code is no Exception
        if not isinstance(error, RuntimeError) and type(error).__name__ != "PanicException":
            raise
        raise RecordingError(f"is no whole aedat4 file ({error})") from error
    if len(streams) != 1:
        raise RecordingError(f"holds {len(streams)} streams of events: expected one")
    stream = next(iter(streams.values()))
    columns = [
        np.concatenate([packet[name] for packet in packets]) if packets else np.empty(0)
        for name in ("t", "x", "y", "on")
    ]
    return check_recording(events_from_columns(*columns)), (int(stream["height"]), int(stream["width"]))


def _header_of(path: Path) -> tuple[dict[str, str], int]:
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


def _size(height: str | None, width: str | None) -> tuple[int, int] | None:
    """A sensor's size from a header, None where it is not told."""
    if height and width and height.isdigit() and width.isdigit():
        return int(height), int(width)
    return None


def _whole_events(path: Path, start: int, itemsize: int) -> int:
    """How many events or words of ``itemsize`` bytes there are from a byte on; part of one is refused."""
    count, rest = divmod(path.stat().st_size - start, itemsize)
    if rest:
        whole = start + count * itemsize
        raise RecordingError(f"ends in the middle of an event at byte {whole}: expected {itemsize} bytes an event")
    return count


@kernel
def _survey(words: NDArray[Any], shift: int, kinds: NDArray[np.int64], tally: NDArray[np.int64]) -> int:
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


def _digestible(words: NDArray[Any], shift: int, *, triggers: bool) -> NDArray[Any] | None:
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
