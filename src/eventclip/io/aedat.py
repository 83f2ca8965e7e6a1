"""iniVation's .aedat4, unpacked and decoded by the package `aedat` (docs.inivation.com, "AEDAT 4.0").

A file is a line, a header, and packets, each with the number of its stream, its size and a packed FlatBuffer. The
package takes room for whatever size a damaged file states, which can end the process; so sizes are looked at here, and
it is handed the packets of the one stream that is asked for, some at a time, as a file in memory of its own.

The errors raised here are what follows the path in a sentence; :func:`eventclip.io.formats.open_stream` adds it.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np

from eventclip.errors import RecordingError, said
from eventclip.events.array import EVENT_DTYPE, Events
from eventclip.io.formats import Opened, ReadOptions, together
from eventclip.io.limits import NoFrameError, lz4_unpacked, zstd_unpacked

_MAGIC = b"#!AER-DAT4.0\r\n"
_LARGEST_HEADER = 1 << 20
_BATCH_BYTES = 1 << 20
_UNPACKED_BYTES = 64 << 20  # of a packet: four million events, where cameras write some thousand
_UNPACKED_RATIO = 16  # and more in a file that is large itself
_COMPRESSIONS = range(5)
_NONE, _LZ4 = (0,), (1, 2)
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_SIZE = re.compile(r"0*[1-9]\d{0,4}", re.ASCII)


class _Stream(NamedTuple):
    """A stream of events: what it can be called by, and (height, width) of its camera where it is told."""

    number: str
    name: str
    source: str
    sensor_hw: tuple[int, int] | None


class _Layout(NamedTuple):
    """What the header says: the bytes that packets begin at and end before, how they are packed, streams of events."""

    start: int
    end: int
    compression: int
    streams: list[_Stream]


def open_aedat4(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    """Read one stream of events of an ``.aedat4``.

    Args:
        path: the file.
        options: ``stream`` names or numbers the stream where there are several.
        chunk_events: events in a piece, about; packets stay whole.

    Returns:
        Pieces, and (height, width) of the stream's camera where it is told.

    Raises:
        RecordingError: the package is not installed, another version of AEDAT, no stream of events or several of which
            none is chosen, or not a whole file.
    """
    try:
        import aedat
    except ImportError as error:
        raise RecordingError("needs another package to be read: pip install eventclip[aedat]") from error
    layout = _read_layout(path)
    stream = _chosen(layout.streams, options.stream)

    def pieces() -> Iterator[Events]:
        waiting: list[Events] = []
        batches = _batches(path, layout, stream.number)
        while True:
            try:
                batch = next(batches, None)
                events = None if batch is None else _decode(aedat, _head(layout.compression), batch)
            except RecordingError:
                yield from waiting  # so that what is wrong before the damage is told first, whatever a piece's size
                raise
            if events is None:
                break
            waiting.append(events)
            if sum(map(len, waiting)) >= chunk_events:
                yield together(waiting)
                waiting = []
        yield from waiting

    return Opened(pieces(), stream.sensor_hw)


def _damaged(what: str) -> RecordingError:
    return RecordingError(f"is no whole aedat4 file, as {what}: copy it again or record it again")


def _read_layout(path: Path) -> _Layout:
    """Read and verify the header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(len(_MAGIC))
        if magic != _MAGIC:
            version = re.match(rb"#!AER-DAT([123]\.\d)", magic)
            if version:
                raise RecordingError(
                    f"is a recording of AEDAT {version[1].decode()}: expected AEDAT 4.0, to which DV converts"
                )
            raise _damaged("it does not begin with #!AER-DAT4.0")
        length = int.from_bytes(file.read(4), "little")
        start = len(_MAGIC) + 4 + length
        if start > size or length > _LARGEST_HEADER:
            raise _damaged(f"its header is said to have {length} bytes and the file has {size}")
        compression, end, description = _header_fields(file.read(length))
    if compression not in _COMPRESSIONS:
        raise _damaged(f"its header names the compression {compression}, which there is not")
    if end in {0, -1}:  # the recorder was stopped before it wrote the place
        end = size
    if not start <= end <= size:
        raise _damaged(f"its header says that the packets end at byte {end} and the file has {size}")
    return _Layout(start, end, compression, _streams(description))


def _header_fields(buffer: bytes) -> tuple[int, int, str]:
    """Compression, end of the packets and description in a header's FlatBuffer, whose places must lie within it."""

    def number(kind: str, place: int) -> int:
        if not 0 <= place <= len(buffer) - struct.calcsize(kind):
            raise _damaged("its header points beyond itself")
        value: int = struct.unpack_from(kind, buffer, place)[0]
        return value

    table = number("<I", 0)
    vtable = table - number("<i", table)
    slots = (number("<H", vtable) - 4) // 2
    compression, end, text = (number("<H", vtable + 4 + 2 * slot) if slot < slots else 0 for slot in range(3))
    if not text:
        raise _damaged("its header does not describe its streams")
    text += table + number("<I", table + text)
    length = number("<I", text)
    if text + 4 + length > len(buffer):
        raise _damaged("its header points beyond itself")
    return (
        number("<i", table + compression) if compression else 0,
        number("<q", table + end) if end else -1,
        buffer[text + 4 : text + 4 + length].decode("utf-8", "replace"),
    )


def _streams(description: str) -> list[_Stream]:
    """The streams of events that the XML of a header describes."""
    if "<!" in description.replace("<!--", ""):
        raise _damaged("the description of its streams defines entities")
    try:
        root = ET.fromstring(description)  # noqa: S314  (no entities)
    except ET.ParseError as error:
        raise _damaged(f"the description of its streams is no XML ({error})") from error
    outputs = next((node for node in root.iter("node") if node.get("name") == "outInfo"), root)
    nodes = [node for node in outputs.findall("node") if _attributes(node).get("typeIdentifier") == "EVTS"]
    return [_stream(node) for node in nodes]


def _stream(node: ET.Element) -> _Stream:
    """What a node of the description says of a stream."""
    number = node.get("name", "")
    if not _NUMBER.fullmatch(number):
        raise _damaged(f"a stream has the number {said(number, 40)}")
    info = next((child for child in node.findall("node") if child.get("name") == "info"), None)
    camera = {} if info is None else _attributes(info)
    width, height = camera.get("sizeX", ""), camera.get("sizeY", "")
    sensor_hw = (int(height), int(width)) if _SIZE.fullmatch(width) and _SIZE.fullmatch(height) else None
    return _Stream(number, _attributes(node).get("originalOutputName", ""), camera.get("source", ""), sensor_hw)


def _attributes(node: ET.Element) -> dict[str, str]:
    return {child.get("key", ""): child.text or "" for child in node.findall("attr")}


def _chosen(streams: list[_Stream], wanted: str | None) -> _Stream:
    """The stream that is asked for, or the only one."""
    if not streams:
        raise RecordingError("holds no stream of events: expected one, as of an event camera")
    if wanted is None and len(streams) == 1:
        return streams[0]
    for label in range(3):
        fitting = [stream for stream in streams if stream[label] == str(wanted)]
        if len(fitting) == 1:
            return fitting[0]
    names = [said(stream.name, 40) if stream.name else "without a name" for stream in streams]
    listed = ", ".join(f"{stream.number} ({name})" for stream, name in zip(streams, names, strict=True))
    found = (
        f"holds {len(streams)} streams of events" if wanted is None else f"has no one stream called {said(wanted, 40)}"
    )
    raise RecordingError(f"{found}: choose one of {listed} by its number or name, such as stream={streams[0].number}")


def _batches(path: Path, layout: _Layout, number: str) -> Iterator[bytes]:
    """Packets of a stream, some at a time; each is known to unpack to no more than it may."""
    batch, unpacked = bytearray(), 0
    with path.open("rb") as file:
        for place, packet in _packets(file, layout, int(number)):
            most = _unpacked(layout.compression, place, packet)
            if batch and (len(batch) + len(packet) > _BATCH_BYTES or unpacked + most > _UNPACKED_BYTES):
                yield bytes(batch)
                batch, unpacked = bytearray(), 0
            batch += struct.pack("<II", 0, len(packet)) + packet
            unpacked += most
    if batch:
        yield bytes(batch)


def _packets(file: BinaryIO, layout: _Layout, number: int) -> Iterator[tuple[int, bytes]]:
    """The byte and the content of each packet of a stream."""
    place = layout.start
    while place < layout.end:
        file.seek(place)
        head = file.read(8)
        stream, length = struct.unpack("<II", head) if len(head) == 8 else (0, 0)
        behind = place + 8 + length
        if len(head) < 8 or behind > layout.end:
            raise _damaged(f"its packet at byte {place} has {length} bytes and the packets end at byte {layout.end}")
        if stream == number:
            yield place, file.read(length)
        place = behind


def _unpacked(compression: int, place: int, packet: bytes) -> int:
    """The most bytes that a packet can unpack to, refused where no camera writes such packets."""
    try:
        most = len(packet) if compression in _NONE else (lz4_unpacked if compression in _LZ4 else zstd_unpacked)(packet)
    except NoFrameError as error:
        raise _damaged(f"its packet at byte {place} is not packed as its header says") from error
    if most > _UNPACKED_BYTES + _UNPACKED_RATIO * len(packet):
        raise _damaged(f"its packet at byte {place} of {len(packet)} bytes would unpack to {most}")
    return most


def _head(compression: int) -> bytes:
    """The head of a file with the one stream of events that packets are handed to the package as, number 0."""
    text = (
        '<dv version="2.0"><node name="outInfo"><node name="0"><attr key="typeIdentifier">EVTS</attr><node name="info">'
        '<attr key="sizeX">32767</attr><attr key="sizeY">32767</attr></node></node></node></dv>'
    ).encode("ascii")
    # FlatBuffer: place of the table, its identifier, places of its three fields, the fields, the text.
    header = struct.pack("<I4s5H2xiiIqI", 20, b"IOHE", 10, 20, 4, 12, 8, 12, compression, 12, -1, len(text)) + text
    header += bytes(4 - len(header) % 4)
    return _MAGIC + struct.pack("<I", len(header)) + header


def _decode(aedat: Any, head: bytes, packets: bytes) -> Events:
    """Decode packets of events, (n,) of EVENT_DTYPE."""
    with os.fdopen(os.memfd_create("aedat4"), "wb", buffering=0) as memory, _panics():
        memory.write(head + packets)
        found = [packet["events"] for packet in aedat.Decoder(f"/proc/self/fd/{memory.fileno()}")]
    events = np.zeros(sum(map(len, found)), EVENT_DTYPE)
    if len(events):
        for name, column in (("t", "t"), ("x", "x"), ("y", "y"), ("p", "on")):
            # Signed, as the file has them: what does not fit a sensor is found and told with its row later.
            np.concatenate([packet[column].view(EVENT_DTYPE[name]) for packet in found], out=events[name])
    return events


@contextlib.contextmanager
def _panics() -> Iterator[None]:
    """Tell what goes wrong in aedat; a panic of its Rust code is no Exception."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, RuntimeError) and type(error).__name__ != "PanicException":
            raise
        raise _damaged(f"its packets cannot be decoded ({error})") from error
