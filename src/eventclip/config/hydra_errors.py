"""What Hydra says in several lines -> one sentence with the setting, what was wrong, and what may have been meant."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from types import CodeType, TracebackType

from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from eventclip.config.checking import close_to
from eventclip.config.sentences import one_line, sentence_of
from eventclip.errors import UserError

_HYDRAS = ("hydra", "omegaconf", "antlr4", "hydra_plugins", "yaml")
_FOREIGN = ("trainer.", "logger.", "callbacks.")


def hydra_sentence(error: BaseException, known: Iterable[str], task: CodeType | None = None) -> str | None:
    """What to tell of an error that Hydra raised before or beside a command's task; None where it is no user's mistake.

    Args:
        error: as it came.
        known: full names of the settings that may have been meant.
        task: code of the command's own function: what comes out of it is ours.
    """
    if isinstance(error, HydraException) and str(error).startswith("eventclip: "):  # from a job elsewhere
        return str(error).removeprefix("eventclip: ")
    if isinstance(error, MissingConfigException):  # an OSError as well, of which Hydra knows more
        return _missing(error)
    told = sentence_of(error)
    if told is None and task not in _codes(error.__traceback__):
        if isinstance(error, OverrideParseException):
            told = _unreadable(error.override)
        elif isinstance(error, ConfigCompositionException) and not str(error) and error.__cause__ is not None:
            told = hydra_sentence(error.__cause__, known)
        elif isinstance(error, HydraException) or _came_from_hydra(error.__traceback__):
            told = _composing(error, list(known))
    return told


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
    message = str(error)
    override = re.search(r"Could not override '(.+?)'", message)
    if override is not None:
        return _unknown(override[1], known)
    several = re.search(r"Ambiguous value for argument '(.*)'\n", message)
    if several is not None:
        return _several(several[1])
    cause = error.__cause__
    detail = f" ({one_line(str(cause.msg or cause))})" if isinstance(cause, OmegaConfBaseException) else ""
    message = message.partition("\nSee https://")[0].partition("\nConfig search path:")[0]
    return f"the configuration cannot be composed: {one_line(message)}{detail}"


def _no_choice(group: str, value: str, options: Sequence[str]) -> str:
    hint = close_to(value, options)
    return f"{group}={value} is no choice: expected one of {', '.join(options)}{hint}"


def _missing(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    if error.options:
        return _no_choice(group, option, list(error.options))
    return f"there is no configuration {error.missing_cfg_file}: {one_line(str(error).partition('Config search')[0])}"


def _unknown(key: str, known: list[str]) -> str:
    hint = close_to(key, known)
    parents = [one for one in known if one.startswith(f"{key.rpartition('.')[0]}.")] if "." in key else []
    if not hint and parents:
        hint = f"; those of {key.rpartition('.')[0]} are {', '.join(one.rpartition('.')[2] for one in parents[:12])}"
    added = f"; +{key}=... hands it to what is built there" if key.startswith(_FOREIGN) else ""
    return f"there is no setting {key}{hint or ': --cfg job prints all of them'}{added}"


def _unreadable(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override} is no setting: expected KEY=VALUE"
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
