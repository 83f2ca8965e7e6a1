"""Recordings kept by numpy: ``.npy`` read in pieces, ``.npz`` unpacked whole, both written; nothing pickled is loaded.

Errors are what follows the path in a sentence; :func:`eventclip.io.formats.open_stream` adds it.
"""

from __future__ import annotations

import ast
import errno
import math
import os
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError, reason
from eventclip.io.columns import Piece, Table, refuse_other_arrays, table_in_memory
from eventclip.io.formats import DamageError, Opened, ReadOptions
from eventclip.io.limits import refuse_bomb
from eventclip.io.names import COLUMNS_WANTED, find_columns, missing_in

_MAGIC = b"\x93NUMPY"
_LONGEST_HEADER = 1 << 16
_HEADER = re.compile(
    rb"\{'descr': ('[<|][biuf]\d'|\[(?:\('\w+', '[<|][biuf]\d'\)(?:, )?)+\]), 'fortran_order': False, "
    rb"'shape': \((\d{1,18}),(?: (\d{1,18}))?\), \} *\n"
)
"""As numpy writes it for numbers along one or two axes; read so, it takes a fifth of the time of Python's parser."""

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\x03\x04"
_ARCHIVES = (_LOCAL_MAGIC, b"PK\x05\x06", b"PK\x07\x08")


class Layout(NamedTuple):
    """What the header of an array says.

    Attributes:
        shape: its shape.
        dtype: its type, of plain numbers.
        by_columns: whether it is in Fortran order.
        start: byte where its numbers begin.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    by_columns: bool
    start: int

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_npy(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    """Open an (N, 4) or structured array, to be read in pieces; an archive with this name is read as one.

    Raises:
        RecordingError: not such a file, truncated, pickled, or other columns.
    """
    with path.open("rb") as file:
        if file.peek(4)[:4] in _ARCHIVES:
            return open_npz(path, options, chunk_events)
        layout = _layout(file, os.fstat(file.fileno()).st_size, ".npy file")
        if len(layout.shape) in (1, 2) and layout.shape[0] <= chunk_events:
            whole = _rows(file, layout, 0, layout.shape[0])
            return table_in_memory(whole, chunk_events).opened(options, total=len(whole))
        refuse_other_arrays(layout.shape, layout.dtype)
        rows = layout.shape[0]

    def read() -> Iterator[Piece]:
        with path.open("rb") as file:
            for start in range(0, rows, chunk_events):
                yield _rows(file, layout, start, min(chunk_events, rows - start))

    return Table(read).opened(options, total=rows)


def open_npz(path: Path, options: ReadOptions, chunk_events: int) -> Opened:
    """Open an archive: the array ``event_data`` as in N-ImageNet, else the only array, else one array per column.

    Raises:
        RecordingError: not such a file, damaged, larger than allowed once it is unpacked, or other arrays.
    """
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) == _MAGIC:
            return open_npy(path, options, chunk_events)
        try:
            loaded = _from_archive(zipfile.ZipFile(file), file, options.largest_bytes)
        except (RecordingError, MemoryError):
            raise
        except Exception as error:  # of zipfile, and of what it unpacks with, where a file is damaged
            nowhere = isinstance(error, OSError) and error.errno == errno.EINVAL
            why = "its directory names places where nothing is" if nowhere else reason(error)
            raise RecordingError(f"is no whole .npz file ({why})") from error
    if isinstance(loaded, np.ndarray):
        refuse_other_arrays(loaded.shape, loaded.dtype)
    table = table_in_memory(loaded, chunk_events)
    return table.opened(options, total=len(next(iter(loaded.values())) if isinstance(loaded, dict) else loaded))


def _from_archive(archive: zipfile.ZipFile, file: IO[bytes], largest: int) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """The events of an archive, unpacked."""
    members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
    if "event_data" in members or len(members) == 1:
        name = "event_data" if "event_data" in members else next(iter(members))
        return _member(archive, file, members[name], largest)
    found, _ = find_columns(list(members))
    if missing_in(found):
        raise RecordingError(
            f"holds the arrays {', '.join(members)}: expected one called event_data, or {COLUMNS_WANTED}"
        )
    return {name: _member(archive, file, members[name], largest) for name in found.values()}


def _member(archive: zipfile.ZipFile, file: IO[bytes], member: zipfile.ZipInfo, largest: int) -> NDArray[Any]:
    """One array of an archive."""
    if member.flag_bits & 1:
        raise RecordingError(f"is no whole .npz file ({member.filename} is encrypted)")
    refuse_bomb(member.file_size, member.compress_size, largest)
    data = inflated(file, member)
    return array_in(archive.read(member) if data is None else data, member.filename)


def array_in(data: bytes, name: str = "an array") -> NDArray[Any]:
    """The array of a whole ``.npy`` in memory, read-only.

    Raises:
        RecordingError: not such an array, or one that is pickled.
    """
    layout = _layout(_Memory(data), len(data), f".npz file with {name}")
    flat = np.frombuffer(data, layout.dtype, math.prod(layout.shape), layout.start)
    return flat.reshape(layout.shape, order="F" if layout.by_columns else "C")


class _Memory:
    """Bytes in memory as a file, of which only the header is read: io.BytesIO would copy all of them."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def read(self, size: int) -> bytes:
        """The next bytes."""
        read = self.data[self.place : self.place + size]
        self.place += len(read)
        return read


def inflated(file: IO[bytes], member: zipfile.ZipInfo) -> bytes | None:
    """Inflate a member of an archive in one go: zipfile does so piece by piece, in three times the time.

    Args:
        file: the archive; its position is moved.
        member: what the archive's directory says.

    Returns:
        The bytes, their checksum compared; None where they are not deflated, encrypted, damaged or otherwise unusual.
    """
    from isal import isal_zlib

    if member.compress_type != zipfile.ZIP_DEFLATED or member.flag_bits:
        return None
    try:
        file.seek(member.header_offset)
        magic, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        name = file.read(name_length)
        file.seek(extra_length, os.SEEK_CUR)
        # No more than the directory announces, and a byte that shows whether there is: a few bytes may hold gigabytes.
        data = isal_zlib.decompressobj(-15).decompress(file.read(member.compress_size), member.file_size + 1)
    except (isal_zlib.error, struct.error, ValueError, OverflowError, MemoryError):  # type: ignore[misc]  # its stubs err
        return None
    announced = magic == _LOCAL_MAGIC and name == member.orig_filename.encode() and len(data) == member.file_size
    return data if announced and isal_zlib.crc32(data) == member.CRC else None


def _layout(file: Any, size: int, what: str) -> Layout:
    """Read the header of an array in a file of ``size`` bytes, and make sure that all of its numbers are there."""
    beginning = file.read(len(_MAGIC) + 4)
    version = beginning[len(_MAGIC)] if len(beginning) > len(_MAGIC) + 1 and beginning.startswith(_MAGIC) else 0
    if version not in {1, 2, 3}:
        raise RecordingError(f"is no whole {what} (it does not begin as numpy's arrays do)")
    beginning += file.read(0 if version == 1 else 2)
    count = int.from_bytes(beginning[len(_MAGIC) + 2 :], "little")
    header = file.read(min(count, _LONGEST_HEADER))
    if not count or len(header) < count:
        raise RecordingError(f"is no whole {what} (its header is cut short)")
    start = len(beginning) + count
    plain = _HEADER.fullmatch(header) if version == 1 else None
    if plain is not None and (dtype := _plain_dtype(plain[1])) is not None:
        layout = Layout(tuple(int(axis) for axis in plain.groups()[1:] if axis), dtype, False, start)
    else:
        layout = _described(header, start, "latin1" if version < 3 else "utf-8", what)
    if layout.size > size - start:
        raise RecordingError(
            f"is no whole {what} (its header tells of {layout.size:,} bytes and {size - start:,} are there)"
        )
    return layout


def _described(header: bytes, start: int, encoding: str, what: str) -> Layout:
    """Read a header that is not as numpy writes it today; nothing in it is run."""
    try:
        text = re.sub(r"(?<=\d)L\b", "", header.decode(encoding))  # Python 2 wrote 225000L
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's of what damage looks like, numpy's of names of old types
            said = ast.literal_eval(text.strip())
            dtype = np.lib.format.descr_to_dtype(said["descr"])
        shape, by_columns = said["shape"], said["fortran_order"]
        sound = isinstance(shape, tuple) and isinstance(by_columns, bool)
    except (MemoryError, RecursionError, SyntaxError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise RecordingError(f"is no whole {what} (its header cannot be read)") from error
    if not sound or not all(type(axis) is int and axis >= 0 for axis in shape) or math.prod(shape) >= 1 << 62:
        raise RecordingError(f"is no whole {what} (its header tells of the shape {str(shape)[:60]})")
    if dtype.hasobject or not dtype.itemsize:
        raise RecordingError(f"is no whole {what} (it holds Python objects, which are never read)")
    return Layout(shape, dtype, by_columns, start)


def _rows(file: IO[bytes], layout: Layout, first: int, count: int) -> NDArray[Any]:
    """Rows of an array along one or two axes. Not through a memory map, whose pages count as memory of the process."""
    width = math.prod(layout.shape[1:])
    if not layout.by_columns or width == 1:
        rows: NDArray[Any] = np.empty((count, *layout.shape[1:]), layout.dtype)
        _fill(file, rows, layout.start + first * width * layout.dtype.itemsize)
        return rows
    columns: NDArray[Any] = np.empty((width, count), layout.dtype)
    for number, column in enumerate(columns):
        _fill(file, column, layout.start + (number * layout.shape[0] + first) * layout.dtype.itemsize)
    turned: NDArray[Any] = columns.transpose()
    return turned


def _fill(file: IO[bytes], array: NDArray[Any], place: int) -> None:
    """Read an array's bytes from a place in a file."""
    plain = array.dtype.kind in "biuf"  # of which alone a file takes the array as it is
    file.seek(place)
    if file.readinto(array if plain else array.reshape(-1).view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]  # of all binary files
        raise DamageError("is no whole .npy file (it was cut short while it was read)")


@lru_cache(maxsize=32)  # files of a data set are alike but for their length
def _plain_dtype(described: bytes) -> np.dtype[Any] | None:
    """The type that a header describes; None where there is none such."""
    try:
        dtype: np.dtype[Any] = np.lib.format.descr_to_dtype(ast.literal_eval(described.decode()))
    except (TypeError, ValueError):
        return None
    return dtype if dtype.itemsize else None
