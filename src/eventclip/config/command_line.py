"""What is typed -> what Hydra's grammar reads as just that: paths and texts are taken as they stand.

Hydra gives ``= , [ ] ( ) '``, spaces and letters beyond ASCII a meaning of their own, or none, and reads 20240131 as a
number. Here the value of a setting that names a path or holds a text is quoted for it where it would be misread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from eventclip.config.checking import takes_path, takes_text
from eventclip.errors import UserError

_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
_KEY = re.compile(r"(\+\+?)?([\w.$-]+)=(.*)", re.DOTALL)
_SWEEPS = ("-m", "--multirun", "hydra.mode=MULTIRUN")


def quoted(arguments: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Quote what Hydra would read otherwise than it was typed.

    A path that exists exactly as typed is one path, whatever is in its name. Otherwise lists ``[a,b]``, quotes, null,
    ``${...}`` and, where several runs are asked for, commas keep what Hydra makes of them.

    Args:
        arguments: of the command line.
        settings: the command's settings, dotted -> kind.
    """
    sweeping = any(argument in _SWEEPS for argument in arguments)
    return [_quoted_argument(argument, settings, sweeping) for argument in arguments]


def named(arguments: Sequence[str], key: str) -> list[str]:
    """Give a first argument that is the path of a .pth file alone the name of its setting."""
    first, *rest = arguments or [""]
    is_path = first.endswith(".pth") and ("=" not in first or os.path.isfile(first))  # noqa: PTH113
    return [f"{key}={quote(first)}", *rest] if is_path else list(arguments)


def quote(text: str) -> str:
    """A text in quotes, as Hydra's grammar takes it."""
    escaped = re.sub(r"(\\*)('|$)", lambda end: end[1] * 2 + ("\\'" if end[2] else ""), text)
    return f"'{escaped}'"


def value_of(arguments: Sequence[str], key: str, several: str) -> str | None:
    """The text that a setting is given on the command line, None where it is not given or null.

    Args:
        arguments: of the command line, quoted.
        key: full name of the setting.
        several: what several values would be, and why they cannot be.

    Raises:
        UserError: several values are given.
    """
    given = [argument for argument in arguments if argument.startswith(f"{key}=")]
    if not given:
        return None
    parsed = OverridesParser.create().parse_overrides(given)[-1]
    if parsed.is_sweep_override():
        raise UserError(f"{given[-1]} names several {several}: give one after the other")
    return None if parsed.value() is None else str(parsed.value())


def _quoted_argument(argument: str, settings: Mapping[str, Any], sweeping: bool) -> str:
    match = _KEY.fullmatch(argument)
    if match is None:
        return argument
    sign, key, value = match[1] or "", match[2], match[3]
    kind = settings.get(key)
    path = key in _FOLDERS or (kind is not None and takes_path(kind))
    text = key in _FOLDERS or (kind is not None and takes_text(kind))
    if not value or not (path or text or _holds_texts(kind)):
        return argument
    return f"{sign}{key}={_quoted_value(value, path=path, text=text, sweeping=sweeping)}"


def _quoted_value(value: str, *, path: bool, text: bool, sweeping: bool) -> str:
    parsed = _parsed(value)
    there = path and _exists(value)
    if there and (parsed is None or parsed.value() != value):
        return quote(value.replace("${", "\\${"))
    if value.startswith("[") and value.endswith("]"):
        plain = parsed is not None and not (path and _has_numbers(parsed.value()))
        return value if plain else f"[{_each(value[1:-1], exact=path)}]"
    if parsed is None:
        if sweeping and "," in value:
            return _each(value)
        return quote(value) if text or path else value
    if parsed.is_sweep_override():
        several = sweeping or any(_exists(part) for part in value.split(","))
        return value if several or "," not in value or "(" in value or not text else quote(value)
    exact = parsed.value() is None or isinstance(parsed.value(), str | list | dict)
    return value if exact or not text else quote(value)


def _each(values: str, *, exact: bool = False) -> str:
    """Values between commas, each quoted where it must be; where ``exact``, numbers as they were typed."""
    parts = []
    for part in values.split(","):
        parsed = _parsed(part)
        misread = parsed is None or (exact and _has_numbers([parsed.value()]))
        parts.append(quote(part.strip()) if misread else part)
    return ",".join(parts)


def _has_numbers(values: Any) -> bool:
    return isinstance(values, list) and any(isinstance(value, int | float) for value in values)


def _parsed(value: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(f"key={value}")
    except HydraException:
        return None


def _exists(value: str) -> bool:
    try:
        return os.path.lexists(os.path.expanduser(value))  # noqa: PTH111  (a path may not hold what is typed)
    except (OSError, ValueError):
        return False


def _holds_texts(kind: Any) -> bool:
    """Whether a setting is a list of texts, or may be one."""
    return kind is not None and "str" in repr(kind) and "list[" in repr(kind)
