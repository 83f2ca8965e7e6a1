"""Files appear whole or not at all; small ones are read without trusting what they say of themselves."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

LARGEST_BYTES = 16 << 20
"""Of a text or JSON file, unless its reader says otherwise."""

ODD_NAME = 'no name may be "", "." or "..", or hold a backslash or control character'
"""Why :func:`plain_path` says no, for messages."""

_INT64 = 1 << 63
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\\]|(?:^|/)(?:\.{0,2})(?:/|$)")  # control characters; "", "." and ".." as a name


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it takes the name ``path`` once the block has ended well.

    The bytes are on the disk before the name changes, so neither a kill nor a power cut leaves half a file. Where the
    block fails, the temporary file is removed and an older ``path`` stays as it was. The folder is made.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, as a whole file; names that are no UTF-8 come back from it as they were.

    Raises:
        OSError: as for :func:`whole_file`.
    """
    with whole_file(path) as part:
        # what UTF-8 cannot hold, the bytes of such a name, becomes JSON's own escape
        part.write_bytes((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace"))


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read, and only a file: a pipe would be waited for without end, a device may have no end.

    Raises:
        OSError: it is not there, cannot be read, or is something else; its ``strerror`` says which.
    """
    try:
        _check_regular(path.stat().st_mode, path)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(path, flags)
    except ValueError:
        raise OSError(errno.EINVAL, "its name holds a zero byte") from None
    try:
        _check_regular(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, *, largest: int = LARGEST_BYTES) -> bytes:
    """Read a whole file.

    Args:
        path: the file; as for :func:`open_regular`.
        largest: size that is not exceeded [bytes].

    Raises:
        OSError: as for :func:`open_regular`, or it is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, largest) + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"it has more than {largest:,} bytes")
    return content


def read_text(path: Path, *, largest: int = LARGEST_BYTES) -> str:
    """Read a whole text file in UTF-8, with or without a byte order mark.

    Raises:
        OSError: as for :func:`read_regular`.
        ValueError: it is other text, or no text.
    """
    try:
        return read_regular(path, largest=largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is no UTF-8") from None


def read_json(path: Path, *, largest: int = LARGEST_BYTES) -> Any:
    """Read a whole JSON file, see :func:`parse_json`.

    Raises:
        OSError: as for :func:`read_regular`.
        ValueError: as for :func:`read_text` and :func:`parse_json`.
    """
    return parse_json(read_text(path, largest=largest))


def parse_json(text: str) -> Any:
    """Read JSON, and nothing that programs read differently or that no array holds.

    Numbers that are not finite are left to who looks at them: our own results hold NaN where a run diverged.

    Raises:
        ValueError: it is no JSON, nested without end, or has a name twice or a whole number beyond 64 bits.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_whole)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None


def plain_path(path: str) -> bool:
    """Whether a relative POSIX path, or a name, stays below the folder that it is joined to, whatever the system.

    So it is neither empty nor absolute, has no "." or ".." and no empty name in it, no backslash, and no control
    characters. Bytes that are no UTF-8 may be in it as Python holds them.
    """
    if _ODD.search(path):
        return False
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def plain_name(name: str) -> bool:
    """Whether a name is that of one file or folder, see :func:`plain_path`."""
    return "/" not in name and plain_path(name)


def printable(text: str) -> str:
    r"""Text that every terminal, log and table takes: bytes of a name that are no UTF-8 as ``\udcff``."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _check_regular(mode: int, path: Path) -> None:
    if stat.S_ISREG(mode):
        return
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    raise OSError(errno.EINVAL, f"it is {kinds.get(stat.S_IFMT(mode), 'a device')} and no file", str(path))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the name {twice!r:.80} is there twice")
    return found


def _whole(digits: str) -> int:
    # a number of a million digits takes minutes to read
    number = int(digits) if len(digits) < 21 else _INT64
    if not -_INT64 <= number < _INT64:
        raise ValueError(f"the number {digits[:20]}... is too large")
    return number
