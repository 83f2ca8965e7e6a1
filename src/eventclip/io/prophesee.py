"""Prophesee's recordings: .dat, and .raw with EVT2, EVT2.1 or EVT3 (docs.prophesee.ai, "DAT File Format" and on).

Their clocks are exact, also where they run over; see :mod:`eventclip.io.evt_kernels`. As in Prophesee's own decoder,
events before the first time word of a .raw are left out, as nobody can tell their time, and words of types that the
encoding does not name (reserved, a vendor's, padding) are passed over; a note counts both.

The errors raised here are what follows the path in a sentence; :func:`eventclip.io.formats.open_stream` adds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError, said
from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.io.evt_kernels import (
    FURTHEST,
    HIGH,
    UNKNOWN,
    UNTIMED,
    decode_dat,
    decode_evt2,
    decode_evt3,
    decode_evt21,
    fresh_state,
    halves,
)
from eventclip.io.formats import Opened, ReadOptions

Decode = Callable[[NDArray[Any], NDArray[np.int64], NDArray[np.int64]], tuple[int, int]]

_LONGEST_HEADER = 1 << 20
_PIECE_BYTES = 1 << 20
_DAT_KINDS = ([0, 8], [12, 8])
_ENCODINGS: dict[str, tuple[str, Decode, int]] = {  # type of a word, its kernel, the most events of a word
    "EVT2": ("<u4", decode_evt2, 1),
    "EVT21": ("<u8", decode_evt21, 32),
    "EVT3": ("<u2", decode_evt3, 12),
}
_VERSIONS = {"2": "EVT2", "2.0": "EVT2", "2.1": "EVT21", "3": "EVT3", "3.0": "EVT3"}
_LARGEST_SENSOR = 1 << 15

_END = re.compile(rb"%[ \t]*end[ \t\r]*", re.IGNORECASE)
_KEY_AND_VALUE = re.compile(r"%\s*([^\s:=]+)[\s:=]*(.*)", re.DOTALL)
_KEYWORD = re.compile(rb"%[ \t]+[A-Za-z][A-Za-z_]+[ \t]")
_PLAIN = re.compile(rb"%([ \t\r]|$|[A-Za-z_]{3})")
_CONTROL = re.compile(r"[^\t\r\x20-\x7e\xa0-\U0010ffff]")
_GEOMETRY = re.compile(r"(\d{1,9})\s*[xX×,*]\s*(\d{1,9})", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)


def open_dat(path: Path, options: ReadOptions, chunk_events: int) -> Opened:  # noqa: ARG001
    """Read Prophesee's ``.dat``, version 2, as of N-Cars.

    The 32 bits of its clock [µs] run over after 71 minutes, which is told from a step back of more than half of that.

    Args:
        path: the file.
        options: none applies.
        chunk_events: events in a piece.

    Returns:
        Pieces, (height, width) where the header tells it, and the number of events.

    Raises:
        RecordingError: no such header, another version, other than events of 8 bytes, or a truncated file.
    """
    header, start = read_header(path, text_only=False)
    version = header.get("version", "2")
    if version not in {"2", "2.0"}:
        raise RecordingError(f"says in its header that it has version {said(version, 40)}: expected version 2")
    kind = np.fromfile(path, np.uint8, count=2, offset=start).tolist()
    if kind not in _DAT_KINDS:
        told = f"type {kind[0]} and {kind[1]} bytes" if len(kind) == 2 else "no type"
        raise RecordingError(f"says at byte {start} that its events have {told}: expected type 0 or 12 with 8 bytes")
    count = _whole_words(path, start + 2, 8)
    notes: list[str] = []
    sensor_hw = _sensor_size(header, notes)

    def pieces() -> Iterator[Events]:
        state = fresh_state()
        for words in _pieces_of(path, "<u4", start + 2, 2 * min(chunk_events, count)):
            events: Events = np.empty(len(words) // 2, EVENT_DTYPE)
            decode_dat(words.reshape(-1, 2), state, halves(events))
            yield events

    return Opened(pieces(), sensor_hw, count, notes)


def open_raw(path: Path, options: ReadOptions, chunk_events: int) -> Opened:  # noqa: ARG001
    """Read Prophesee's ``.raw`` with EVT2, EVT2.1 or EVT3 words.

    Args:
        path: the file.
        options: none applies.
        chunk_events: events in a piece, and at most 31 more.

    Returns:
        Pieces, and (height, width) where the header tells it; how many events there are shows at the end.

    Raises:
        RecordingError: no such header, another encoding, truncated; at the end of the pieces, that most of the words
            are of unknown types or that no event has a time.
    """
    header, start = read_header(path, text_only=True)
    encoding, *details = header.get("format", "").split(";")
    version = header.get("evt", "")
    name = (encoding.strip() or _VERSIONS.get(version, version)).upper().replace("EVT2.1", "EVT21")
    if name not in _ENCODINGS:
        raise RecordingError(
            f"says in its header that its encoding is {said(name, 40) if name else 'nothing'}: expected EVT2, EVT2.1 "
            f"or EVT3"
        )
    sizes = {key.strip().lower(): value.strip() for key, _, value in (detail.partition("=") for detail in details)}
    notes: list[str] = []
    sensor_hw = _sensor_size(header | sizes, notes)
    kind, decode, most = _ENCODINGS[name]
    count = _whole_words(path, start, np.dtype(kind).itemsize)
    # The IMX636 sends the upper half of a word first; it is the camera of the years when headers had no format= line.
    swapped = name == "EVT21" and sizes.get("endianness", "little" if encoding else "legacy") == "legacy"

    def pieces() -> Iterator[Events]:
        state = fresh_state()
        words = _pieces_of(path, kind, start, min(count, _PIECE_BYTES // np.dtype(kind).itemsize))
        if swapped:
            words = (piece << 32 | piece >> 32 for piece in words)
        yield from _decoded(words, decode, state, min(chunk_events, most * count))
        if 2 * state[UNKNOWN] > count:
            raise RecordingError(
                f"has {state[UNKNOWN]} words of types that {name} does not have among {count}: "
                f"expected a {name} recording that is not damaged"
            )
        if state[UNTIMED] and state[HIGH] < 0:
            raise RecordingError(
                f"has {state[UNTIMED]} events and no word that tells the time: expected an undamaged {name} recording"
            )
        if state[UNTIMED]:
            notes.append(f"{state[UNTIMED]} events before the first word that tells the time were left out")
        if state[UNKNOWN]:
            notes.append(f"{state[UNKNOWN]} words of types that {name} does not have were passed over")

    return Opened(pieces(), sensor_hw, None, notes)


def read_header(path: Path, *, text_only: bool) -> tuple[dict[str, str], int]:
    """Read the lines that begin with ``%`` before the binary part.

    A line may hold any bytes. The line ``% end`` ends the header; older files lack it. There the header ends at the
    first line that does not begin with ``%``, or that begins with it by chance as words of a .raw may: such a line is
    no text and does not begin with a keyword.

    Args:
        path: the file.
        text_only: whether binary data may begin with the byte of ``%``, so that without ``% end`` a line must be text.

    Returns:
        Values by keyword in lower case, the last one where it is repeated, and the byte where the binary part begins.

    Raises:
        RecordingError: no header, one that ends with the file, or one of more than 1 MiB.
    """
    with path.open("rb") as file:
        raw = file.read(_LONGEST_HEADER + 1)
    lines = list(_lines(raw))
    end = next((place for place, line in enumerate(lines) if _END.fullmatch(line)), None)
    if end is not None:
        lines = lines[: end + 1]
    elif text_only:
        lines = lines[: next((place for place, line in enumerate(lines) if not _is_text(line)), len(lines))]
    start = sum(len(line) + 1 for line in lines)
    if start > _LONGEST_HEADER:
        raise RecordingError("has a header of more than 1 MiB: expected events after the % lines")
    if start > len(raw) and end is None:
        begin = start - len(lines[-1]) - 1
        raise RecordingError(f"ends inside its header at byte {begin}: expected events after the % lines")
    if start == 0:
        raise RecordingError("does not begin with a % line: expected the header of a Prophesee recording")
    header = {}
    for line in lines:
        match = _KEY_AND_VALUE.match(_text(line).strip())
        if match:
            header[match[1].lower()] = match[2].strip()
    return header, min(start, len(raw))


def _lines(raw: bytes) -> Iterator[bytes]:
    """The lines, without their ends, from the start on that begin with ``%``."""
    start = 0
    while raw.startswith(b"%", start):
        end = raw.find(b"\n", start)
        end = len(raw) if end < 0 else end
        yield raw[start:end]
        start = end + 1


def _is_text(line: bytes) -> bool:
    """Whether a line that begins with ``%`` is one of a header, not words of a recording."""
    return bool(_KEYWORD.match(line) or (_PLAIN.match(line) and not _CONTROL.search(_text(line))))


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _sensor_size(header: dict[str, str], notes: list[str]) -> tuple[int, int] | None:
    """The sensor's (height, width), None where the header does not tell it or tells what no sensor has."""
    geometry = _GEOMETRY.match(header.get("geometry", ""))
    height, width = header.get("height", ""), header.get("width", "")
    if not (_NUMBER.fullmatch(height) and _NUMBER.fullmatch(width)):
        if not geometry:
            return None
        width, height = geometry.groups()
    sensor_hw = int(height), int(width)
    if not all(1 <= size <= _LARGEST_SENSOR for size in sensor_hw):
        notes.append(f"the header tells a sensor of {height} rows and {width} columns, which none has: not believed")
        return None
    return sensor_hw


def _whole_words(path: Path, start: int, itemsize: int) -> int:
    """How many events or words of ``itemsize`` bytes there are from a byte on; part of one is refused."""
    count, rest = divmod(path.stat().st_size - start, itemsize)
    if rest:
        whole = start + count * itemsize
        raise RecordingError(
            f"ends in the middle of an event at byte {whole}: expected {itemsize} bytes each, as of a file copied whole"
        )
    return count


def _pieces_of(path: Path, kind: str, start: int, count: int) -> Iterator[NDArray[Any]]:
    """Words of a type from a byte on, ``count`` at a time."""
    with path.open("rb") as file:
        file.seek(start)
        while len(words := np.fromfile(file, kind, count)):
            yield words


def _decoded(
    pieces: Iterator[NDArray[Any]], decode: Decode, state: NDArray[np.int64], chunk_events: int
) -> Iterator[Events]:
    """Events of all pieces of words, ``chunk_events`` at a time and at most 31 more."""
    room = chunk_events + 31
    events: Events = np.empty(room, EVENT_DTYPE)
    made = before = 0
    for piece in pieces:
        words = piece
        while len(words):
            used, more = decode(words, state, halves(events[made:]))
            words, made = words[used:], made + more
            if len(words) and made:  # no more room
                yield events[:made]
                events, made, before = np.empty(room, EVENT_DTYPE), 0, before + made
            elif len(words) and not used:
                raise RecordingError(
                    f"has vectors of events that go on beyond column {FURTHEST} after event {before}: expected a word "
                    f"that tells where each row of them begins, as in a recording that is not damaged"
                )
    if made:
        yield events[:made]
