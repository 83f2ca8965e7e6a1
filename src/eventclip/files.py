"""Files appear whole or not at all, from one writer at a time; small ones are read without trusting what they say."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from eventclip.errors import UserError

NAMES = "surrogateescape"
"""How text files hold names of files that are no UTF-8: byte for byte."""

LARGEST_BYTES = 16 << 20
"""Of a text or JSON file, unless its reader says otherwise."""

ODD_NAME = 'no name may be "", "." or "..", or hold a backslash or control character'
"""Why :func:`plain_path` says no, for messages."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
_INT64 = 1 << 63
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\\]|(?:^|/)(?:\.{0,2})(?:/|$)")  # control characters; "", "." and ".." as a name


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to; it takes the name ``path`` once the block has ended well.

    The bytes are on the disk before the name changes, so neither a kill nor a power cut leaves half a file. Where the
    block fails, the temporary file is removed and an older ``path`` stays as it was. The folder is made.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is full; it names ``path``, also where a library
            that wrote the temporary file has put the system's error into one of its own.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        system = next((e for e in (error, error.__cause__, error.__context__) if isinstance(e, OSError)), None)
        ours = (None, *map(os.fspath, (part, path, *path.parents)))
        if system is None or system.filename not in ours:
            raise
        raise _about(path, system) from error
    finally:
        with contextlib.suppress(OSError):  # a read-only file system refuses even to remove what is not there
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` to fill; it takes the name ``path`` once the block has ended well.

    Where the block fails nothing is left of it. An empty folder ``path`` is replaced.

    Raises:
        OSError: the folder cannot be made, or ``path`` is there and not empty.
    """
    path = path.absolute()
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _about(path: Path, error: OSError) -> OSError:
    """The same error, of the file that was to be written."""
    if error.errno is not None:
        return OSError(error.errno, error.strerror or os.strerror(error.errno), str(path))
    if re.fullmatch(r"\d+ requested and \d+ written", str(error)):  # numpy's word for a write that came to an end
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    return OSError(errno.EIO, str(error), str(path))


def fingerprint(value: Any, *, length: int = 16) -> str:
    """Hexadecimal digits that change with anything in plain values: what made a file decides its name.

    Args:
        value: what JSON holds; the order of names in objects decides nothing.
        length: number of digits, at most 64.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def check_out(out: Path) -> None:
    """Tell before long work that its result could not be written.

    Args:
        out: the file to write, given as ``out=``; its folder is made.

    Raises:
        UserError: it is a folder, or lies where nothing can be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error.strerror or error}): give another place") from None
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise UserError(f"out={out} cannot be written: give a file in a folder that you can write to")


@contextlib.contextmanager
def held(path: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Keep other processes from writing ``path`` meanwhile, by a lock beside it that dies with its owner.

    Args:
        path: what is to be written.
        waiting: called twice a second while another process holds it; None does not wait.

    Raises:
        UserError: another process holds it.
        OSError: the folder cannot be made or written to.
    """
    lock = path.with_name(f".{path.name}.lock")
    handle = None
    while handle is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = _locked(lock)
        except BlockingIOError:  # noqa: PERF203  (it costs nothing where a process waits)
            if waiting is None:
                raise UserError(f"another process is writing {path}: wait for it, or give another out=") from None
            waiting()
            time.sleep(0.5)
        except OSError as error:
            raise _about(path, error) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink(missing_ok=True)
        os.close(handle)


def _locked(lock: Path) -> int:
    """Open and lock a file; its last owner may have removed it in between, and then another one bears the name."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _NO_LOCKS:  # some network file systems: nothing there can tell two writers apart
                return handle
            os.close(handle)
            raise
        os.close(handle)


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
