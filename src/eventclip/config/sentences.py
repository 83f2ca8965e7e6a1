"""How a command ends that cannot go on: one sentence for what a user can mend, and a traceback for what we must."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from eventclip.errors import UserError

T = TypeVar("T")

INTERRUPTED = 130
"""Exit status after ctrl-C, as shells count it."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ENTRY = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
_TORCH_CANNOT_WRITE = "PytorchStreamWriter failed writing"


def command(task: Callable[..., T]) -> Callable[..., T]:
    """Wrap a command's task so that a user's mistake ends in one sentence on stderr and exit status 1.

    Errors that are not the user's (anything but :class:`UserError`, OmegaConf's own, and a disk that is full or closed)
    keep their traceback: they are ours to mend.
    """

    @functools.wraps(task)
    def told(*args: Any) -> T:
        if isinstance(sys.stdout, io.TextIOWrapper):  # a name that its encoding lacks is shown escaped
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            done = task(*args)
            sys.stdout.flush()  # what is wrong with it is told here, not by the interpreter as it ends
            return done
        except KeyboardInterrupt:
            interrupted()
        except SystemExit as leaving:
            if isinstance(leaving.__context__, KeyboardInterrupt):  # Lightning says so and leaves with status 1
                interrupted()
            raise
        except Exception as error:
            sentence = sentence_of(error)
            if sentence is None or full_errors():
                raise
            end_with(sentence)

    return told


def sentence_of(error: BaseException) -> str | None:
    """What to tell of an error that a user can mend, in one line; None where it is none."""
    if isinstance(error, UserError):
        return innermost_sentence(str(error))
    if isinstance(error, OSError) or _TORCH_CANNOT_WRITE in str(error):
        return _about_the_disk(error)
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, which need not be imported for it
        return f"the trainer cannot work like that: {one_line(str(error))}"
    from omegaconf.errors import OmegaConfBaseException  # everything above is told without waiting for it

    if isinstance(error, OmegaConfBaseException):
        reason = (str(error.msg or error).splitlines() or [""])[0]
        place = f" at '{error.full_key}'" if error.full_key else ""
        return f"the configuration is wrong{place}: {reason}"
    return None


def end_with(sentence: str) -> NoReturn:
    """End the command with a sentence and exit status 1.

    Raises:
        SystemExit: or, in a job that somebody waits for, what submitit can bring to them.
    """
    try:
        sys.stdout.flush()
    except OSError:  # what is left in its buffer goes nowhere, or the interpreter would try again, and tell, as it ends
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if "SUBMITIT_EXECUTOR" in os.environ:  # an exit would leave the process that waits for this job without a word
        from hydra.errors import CompactHydraException

        raise CompactHydraException(f"eventclip: {sentence}")
    raise SystemExit(f"eventclip: {sentence}")


def interrupted() -> NoReturn:
    """End the command after ctrl-C.

    Raises:
        SystemExit: with status :data:`INTERRUPTED`.
    """
    print("eventclip: interrupted", file=sys.stderr, flush=True)
    raise SystemExit(INTERRUPTED)


def full_errors() -> bool:
    """Whether somebody who looks for the cause wants every traceback, as Hydra's users ask for it."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1"


def innermost_sentence(message: str) -> str:
    """The sentence inside an error message that a data loader's worker may have wrapped in its traceback."""
    lines = [line for line in message.splitlines() if line.strip()]
    line = lines[-1] if lines else message
    kind, _, rest = line.partition(": ")
    return rest if "." in kind and kind.endswith("Error") else line


def one_line(message: str) -> str:
    """A message of several lines as one."""
    return " ".join(message.split())


def _about_the_disk(error: BaseException) -> str | None:
    """A sentence for a disk that is full or may not be written to; None for any other error of the system."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:  # HDF5 tells it in words, torch not at all
        said = re.search(r"errno = (\d+)", str(error))
        number = int(said[1]) if said else errno.ENOSPC if _TORCH_CANNOT_WRITE in str(error) else None
    if number is None:
        return None
    name = getattr(error, "filename", None)
    what = _some_file() if name is None else str(name)
    reason = os.strerror(number)
    if number == errno.EPIPE:
        return f"nobody reads on what this prints ({reason}): let its reader take all of it, or print into a file"
    if number in _NO_ROOM:
        return f"{what} cannot be written ({reason}): make room, then give the same command again"
    if number in _NO_ENTRY:
        return f"{what} cannot be opened or written ({reason}): give a place that you can read and write"
    if number in _NO_PLACE:
        return f"{what} cannot be made or opened ({reason}): give another place, or move away what is in the way"
    return None


def _some_file() -> str:
    """What the system means that names no file: most likely one of the run's folder, where there is one."""
    hydra = sys.modules.get("hydra.core.hydra_config")
    if hydra is None or not hydra.HydraConfig.initialized():
        return "a file"
    run = hydra.HydraConfig.get()
    return "a file" if run.output_subdir is None else f"a file in {run.runtime.output_dir}"
