"""A file that is, after a kill at any moment, what it was when it was last committed."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from eventclip.errors import UserError
from eventclip.files import whole_file

_PAGE = 4096
_HEAD = struct.Struct("<8sqqI")  # magic, committed size, number of pages, CRC-32 of all that follows
_MAGIC = b"evjrnl01"


class JournaledFile:
    """A file object for h5py, which changes its own file in place and so cannot survive a kill by itself.

    New bytes go to the end of the file at once. Bytes that change what was committed wait in memory until
    :meth:`commit` has written them to a journal beside the file; opening the file again finishes what the journal
    holds and cuts off what came after it.

    An error of the disk is kept in :attr:`failure` and not raised, so that HDF5 can close its file in peace; what is
    written from then on is forgotten, and :meth:`commit` raises it.

    Args:
        path: the file; made if it is not there or was never committed.

    Raises:
        OSError: the file cannot be opened or made.
        UserError: the journal is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.journal = path, journal_of(path)
        self.failure: OSError | None = None
        self._position = 0
        self._changed: dict[int, bytearray] = {}
        if not path.exists():
            self.journal.unlink(missing_ok=True)  # of another file of this name
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self._file = os.open(path, flags, 0o666)
        try:
            self._committed = self._recover()
        except BaseException:
            os.close(self._file)
            raise
        self.size = self._committed

    def _recover(self) -> int:
        """Bring the file to its last commit; gives its size then, 0 where there was none."""
        size = 0
        if self.journal.exists():
            content = self.journal.read_bytes()
            magic, size, pages, checksum = _HEAD.unpack(content[: _HEAD.size].ljust(_HEAD.size, b"\0"))
            if magic != _MAGIC or zlib.crc32(content[_HEAD.size :]) != checksum:
                raise UserError(f"{self.journal} is damaged: remove it and {self.path} to begin anew")
            place = _HEAD.size
            for _ in range(pages):
                number, length = struct.unpack_from("<qi", content, place)
                _write_all(self._file, content[place + 12 : place + 12 + length], number * _PAGE)
                place += 12 + length
        os.ftruncate(self._file, size)
        return size

    def commit(self) -> None:
        """Make the present content the one that survives.

        Raises:
            OSError: the disk is full or failing; the last commit stays.
        """
        if self.failure is not None:
            raise self.failure
        os.fsync(self._file)
        pages = {
            number: bytes(page[: max(self.size - number * _PAGE, 0)]) for number, page in sorted(self._changed.items())
        }
        body = b"".join(struct.pack("<qi", number, len(page)) + page for number, page in pages.items())
        with whole_file(self.journal) as part:
            part.write_bytes(_HEAD.pack(_MAGIC, self.size, len(pages), zlib.crc32(body)) + body)
        self._committed = self._recover()
        self._changed.clear()

    def close(self) -> None:
        """Close the file; what was not committed will not be found again."""
        os.close(self._file)

    # What h5py calls

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a place in the file."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """The place in the file."""
        return self._position

    def read(self, size: int) -> bytes:
        """Read from the present place on."""
        start = self._position
        content = bytearray(os.pread(self._file, max(min(size, self.size - start), 0), start))
        end = start + len(content)
        for number in range(start // _PAGE, -(-end // _PAGE)):
            page, first = self._changed.get(number), number * _PAGE
            if page is not None:
                low, high = max(first, start), min(first + len(page), end)
                content[low - start : high - start] = page[low - first : high - first]
        self._position = end
        return bytes(content)

    def readinto(self, buffer: memoryview) -> int:
        """Read into a buffer."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def write(self, content: bytes | memoryview) -> int:
        """Write at the present place."""
        given = bytes(content)
        if self.failure is None:
            below = max(min(self._committed - self._position, len(given)), 0)
            try:
                self._change(given[:below])
                _write_all(self._file, given[below:], self._position + below)
            except OSError as error:
                self.failure = error
        self._position += len(given)
        self.size = max(self.size, self._position)
        return len(given)

    def _change(self, content: bytes) -> None:
        """Keep a change of committed bytes in memory."""
        place, end = self._position, self._position + len(content)
        while place < end:
            number, within = divmod(place, _PAGE)
            page = self._changed.get(number)
            if page is None:
                length = min(_PAGE, self._committed - number * _PAGE)
                page = self._changed[number] = bytearray(os.pread(self._file, length, number * _PAGE))
            count = min(len(page) - within, end - place)
            page[within : within + count] = content[place - self._position :][:count]
            place += count

    def truncate(self, size: int | None = None) -> int:
        """Change the size; committed bytes stay on the disk until the next commit."""
        self.size = self._position if size is None else size
        if self.failure is None and self.size > self._committed:
            try:
                os.ftruncate(self._file, self.size)
            except OSError as error:
                self.failure = error
        return self.size

    def flush(self) -> None:
        """Nothing waits anywhere that a commit does not reach."""


def journal_of(path: Path) -> Path:
    """Where the journal of a file lies."""
    return path.with_name(f"{path.name}.journal")


def _write_all(file: int, content: bytes, offset: int) -> None:
    """Write everything at an offset, however many calls it takes."""
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written
