"""How a command ends that cannot go on: one sentence for what a user can mend, and a traceback for what we must.

Hydra and OmegaConf, whose several lines become one sentence here, are imported where an error of theirs is at hand:
ctrl-C ends a command in one line from its first moment on.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import functools
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_type_hints

from eventclip.config import CONFIG_DIR
from eventclip.config.renamed import renamed_option, renamed_setting
from eventclip.errors import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from hydra.errors import MissingConfigException

T = TypeVar("T")

INTERRUPTED = 130
"""Exit status after ctrl-C, as shells count it."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_ENTRY = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
_TORCH_CANNOT_WRITE = "PytorchStreamWriter failed writing"
_HYDRAS = ("hydra", "omegaconf", "antlr4", "hydra_plugins", "yaml")
_TAKES_A_PATH = ("recordings", "recording", "images", "checkpoint", "data.root")
_FOREIGN = ("trainer.", "logger.", "callbacks.")


def command(task: Callable[..., T]) -> Callable[..., T]:
    """Wrap a command's task so that a user's mistake ends in one sentence on stderr and exit status 1.

    Errors that are not the user's (anything but :class:`UserError`, OmegaConf's own, and a disk that is full or closed)
    keep their traceback: they are ours to mend.
    """

    @functools.wraps(task)
    def ending(*args: Any) -> T:
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

    return ending


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


def close_to(word: str, words: Iterable[str]) -> str:
    """A hint at what may have been meant, such as ", did you mean adapter?"; empty where nothing is close.

    Dotted names are close where their last parts are, above all below the same section.
    """
    parent, _, last = word.rpartition(".")
    scores = {}
    for one in dict.fromkeys(words):
        section, _, name = one.rpartition(".")
        alike = difflib.SequenceMatcher(None, last, name).ratio()
        if alike >= (0.6 if section == parent else 0.8):
            scores[one] = alike + 0.1 * (section == parent)
    close = sorted(scores, key=lambda one: -scores[one])[:3]
    if word in close:  # it is a setting, of a group that was not chosen
        group = word.partition(".")[0]
        return f" as no {group}= was chosen: give {group}= as well, or +{word}= for the one that is taken anyway"
    return f", did you mean {' or '.join(close)}?" if close else ""


def _about_the_disk(error: BaseException) -> str | None:
    """A sentence for a disk that is full or may not be written to; None for any other error of the system."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:  # HDF5 tells it in words, torch not at all
        code = re.search(r"errno = (\d+)", str(error))
        number = int(code[1]) if code else errno.ENOSPC if _TORCH_CANNOT_WRITE in str(error) else None
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


def hydra_sentence(error: BaseException, known: Iterable[str], task: CodeType | None = None) -> str | None:
    """What to tell of an error that Hydra raised before or beside a command's task; None where it is no user's mistake.

    Args:
        error: as it came.
        known: full names of the settings that may have been meant.
        task: code of the command's own function: what comes out of it is ours.
    """
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException

    if isinstance(error, HydraException) and str(error).startswith("eventclip: "):  # from a job elsewhere
        return str(error).removeprefix("eventclip: ")
    if isinstance(error, MissingConfigException):  # an OSError as well, of which Hydra knows more
        return _missing(error)
    sentence = sentence_of(error)
    if sentence is None and task not in _codes(error.__traceback__):
        if isinstance(error, OverrideParseException):
            sentence = _unreadable(error.override, known)
        elif isinstance(error, ConfigCompositionException) and not str(error) and error.__cause__ is not None:
            sentence = hydra_sentence(error.__cause__, known)
        elif isinstance(error, HydraException) or _came_from_hydra(error.__traceback__):
            sentence = _composing(error, list(known))
    return sentence


def check_choices(overrides: Sequence[Override], options: dict[str, list[str]]) -> None:
    """Refuse a value that cannot name an option of a group, of which Hydra does not tell the group.

    Args:
        overrides: parsed.
        options: group -> its options.

    Raises:
        UserError: names group, value and options.
    """
    for override in overrides:
        group = override.key_or_group
        if group not in options or override.is_sweep_override() or override.is_delete():
            continue
        value = override.value()
        named = value if isinstance(value, list) else [value]
        if not isinstance(value, dict) and not all(isinstance(one, str) for one in named):
            raise UserError(_no_choice(group, override.get_value_element_as_str(), options[group]))


def _composing(error: BaseException, known: list[str]) -> str:
    """Of what Hydra found wrong while it composed."""
    from omegaconf.errors import OmegaConfBaseException

    message = str(error)
    override = re.search(r"Could not override '(.+?)'", message)
    if override is not None:
        return _unknown(override[1], known)
    inside = re.search(r"^In '(.+?)': ConfigKeyError .*\bfull_key: (\S+)", message, re.DOTALL)
    if inside is not None:
        return f"{inside[1]}.yaml cannot be taken here: {_unknown(inside[2], known)}"
    several = re.search(r"Ambiguous value for argument '(.*)'\n", message)
    if several is not None:
        return _several(several[1])
    cause = error.__cause__
    detail = f" ({one_line(str(cause.msg or cause))})" if isinstance(cause, OmegaConfBaseException) else ""
    message = message.partition("\nSee https://")[0].partition("\nConfig search path:")[0]
    return f"the configuration cannot be composed: {one_line(message)}{detail}"


def _no_choice(group: str, value: str, options: Sequence[str]) -> str:
    renamed = renamed_option(group, value, options)
    if renamed is not None:
        return renamed
    hint = close_to(value, options)
    return f"{group}={value} is no choice: expected one of {', '.join(options)}{hint}"


def _missing(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if error.options:
        return _no_choice(group, option, list(error.options))
    return f"there is no configuration {error.missing_cfg_file}: {one_line(str(error).partition('Config search')[0])}"


def _unknown(key: str, known: list[str]) -> str:
    renamed = renamed_setting(key)
    if renamed is not None:
        return renamed
    takers = _takers(key, known)
    if takers and not difflib.get_close_matches(key, known, 1, 0.9):  # show's recording is meant as recordings
        return f"there is no setting {key} in this command: it is one of eventclip {', '.join(takers)}"
    hint = close_to(key, known)
    parents = [one for one in known if one.startswith(f"{key.rpartition('.')[0]}.")] if "." in key else []
    if not hint and parents:
        hint = f"; those of {key.rpartition('.')[0]} are {', '.join(one.rpartition('.')[2] for one in parents[:12])}"
    added = f"; +{key}=... hands it to what is built there" if key.startswith(_FOREIGN) else ""
    return f"there is no setting {key}{hint or ': --cfg job prints all of them'}{added}"


def _takers(key: str, known: Iterable[str]) -> list[str]:
    """The commands that have a setting or its section, where this one has neither."""
    from eventclip.config.schema import COMMANDS

    section = key.partition(".")[0]
    if any(one.partition(".")[0] == section for one in known):
        return []
    return [name for name, schema in COMMANDS.items() if section in get_type_hints(schema)]


def _meant(word: str, known: set[str]) -> list[str]:
    """What may have been meant by a word alone: a file that a command takes, or an option of one of its groups."""
    if os.path.exists(word):  # noqa: PTH110  (a path may not hold what is typed)
        return [f"{key}={word}" for key in _TAKES_A_PATH if key in known]
    groups = {one.partition(".")[0] for one in known}
    groups |= {"experiment"} if "optim" in groups and "split" not in groups else set()
    found = sorted(path.parent.name for path in Path(CONFIG_DIR).glob("*/*.yaml") if path.stem == word)
    return [f"{group}={word}" for group in found if group in groups]


def _unreadable(override: str, known: Iterable[str]) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        hint = next((f", did you mean {one}?" for one in _meant(key, set(known))), "")
        return f"{override} is no setting: expected KEY=VALUE{hint}"
    return (
        f"{key}= cannot be read, got {value}: put a value with spaces, commas, brackets, quotes or letters beyond "
        f"ASCII in quotes twice, once for the shell, such as \"{key}='...'\""
    )


def _several(override: str) -> str:
    key, _, values = override.partition("=")
    return (
        f"{override} may mean several things: write '{key}=[{values}]' for a list, \"{key}='{values}'\" for one text, "
        f"or give -m for one run with each"
    )


def _codes(trace: TracebackType | None) -> list[CodeType]:
    codes = []
    while trace is not None:
        codes.append(trace.tb_frame.f_code)
        trace = trace.tb_next
    return codes


def _came_from_hydra(trace: TracebackType | None) -> bool:
    """Whether the innermost frame is Hydra's or of what it is made of."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0] in _HYDRAS
