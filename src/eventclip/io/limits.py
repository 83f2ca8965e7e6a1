"""Small files that would unpack to more than the memory there is, told before anything is unpacked.

How much LZ4 and Zstandard frames may unpack to is told from their block headers, written from the "LZ4 Frame Format
Description" and RFC 8878 (Zstandard): a damaged frame of a few bytes can state blocks of any size, and decoders take
the room as they go.
"""

from __future__ import annotations

from eventclip.errors import RecordingError

_SMALL = 1 << 26
_MOST_TIMES = 200  # events of a camera compress to a third, those of a made-up recording to a tenth

_LZ4_MAGIC, _ZSTD_MAGIC = 0x184D2204, 0xFD2FB528
_LZ4_MOST = 255  # bytes out of one
_ZSTD_BLOCK = 1 << 17


def refuse_bomb(unpacked: int, stored: int, largest: int) -> None:
    """Refuse what unpacks to more than is allowed, or than events in so few bytes can.

    Args:
        unpacked: bytes once it is unpacked.
        stored: bytes that it takes in the file.
        largest: most bytes that are allowed.

    Raises:
        RecordingError: told before anything is unpacked.
    """
    if unpacked > largest:
        raise RecordingError(
            f"would unpack to {unpacked:,} bytes, more than the {largest:,} that are allowed: unpack it, and give its "
            f"events as a .npy, which is read in pieces"
        )
    if unpacked > _SMALL and unpacked > _MOST_TIMES * stored:
        raise RecordingError(
            f"would unpack from {stored:,} to {unpacked:,} bytes, which events do not: it is damaged or made to fill "
            f"the memory"
        )


class NoFrameError(ValueError):
    """The bytes are no whole frame of this kind."""


def lz4_unpacked(packed: bytes) -> int:
    """The most bytes that LZ4 frames can unpack to.

    Args:
        packed: whole frames, one after the other.

    Raises:
        NoFrameError: they are not.
    """
    place = most = 0
    while place < len(packed):
        flags, block = _number(packed, place + 4, 1), _number(packed, place + 5, 1) >> 4 & 7
        if _number(packed, place, 4) != _LZ4_MAGIC or flags >> 6 != 1 or block < 4:
            raise NoFrameError
        largest = 1 << 8 + 2 * block
        place += 7 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)
        while size := _number(packed, place, 4):
            stored, size = size >> 31, size & 0x7FFFFFFF
            most += min(largest, size if stored else _LZ4_MOST * size)
            place += 4 + size + (4 if flags & 0x10 else 0)
        place += 4 + (4 if flags & 0x04 else 0)
    if place > len(packed):
        raise NoFrameError
    return most


def zstd_unpacked(packed: bytes) -> int:
    """The most bytes that Zstandard frames can unpack to, as :func:`lz4_unpacked` tells it of LZ4's."""
    place = most = 0
    while place < len(packed):
        flags = _number(packed, place + 4, 1)
        if _number(packed, place, 4) != _ZSTD_MAGIC:
            raise NoFrameError
        single = flags >> 5 & 1
        place += 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
        last = False
        while not last:
            header = _number(packed, place, 3)
            last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            most += _ZSTD_BLOCK if kind >= 2 else size
            place += 3 + (1 if kind == 1 else size)
        place += 4 if flags & 0x04 else 0
    if place > len(packed):
        raise NoFrameError
    return most


def _number(packed: bytes, place: int, size: int) -> int:
    if place + size > len(packed):
        raise NoFrameError
    return int.from_bytes(packed[place : place + size], "little")
