"""What kind of value a setting takes: an annotation of the schema -> a check that converts exactly or refuses.

Nothing is guessed: "no" is a false, 1e5 is a whole number and 20240131 a folder's name, but 1.5 is no whole number and
"180x240" no pair of numbers.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from eventclip.errors import UserError

_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_LARGEST = 2**63 - 1
_SHOWN = 60


@dataclass(frozen=True)
class Between:
    """The range of a number, both ends included unless said otherwise."""

    low: float
    high: float = math.inf
    without_low: bool = False
    without_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range."""
        above = value > self.low if self.without_low else value >= self.low
        return above and (value < self.high if self.without_high else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"above {self.low:g}" if self.without_low else f"of {self.low:g} or more"
        return f"{'above' if self.without_low else 'from'} {self.low:g} to {'below ' * self.without_high}{self._end()}"

    def _end(self) -> str:
        return str(self.high) if isinstance(self.high, int) else f"{self.high:g}"


@dataclass(frozen=True)
class Text:
    """A text that is the name of something.

    Attributes:
        meaning: what it names, for messages.
        path: whether that is a file or a folder.
        empty: whether it may be without a letter.
        plain: whether it must stay within a folder: no separator, and no dot first.
    """

    meaning: str = "a text"
    path: bool = False
    empty: bool = False
    plain: bool = False


@dataclass(frozen=True)
class Exactly:
    """So many items in a list."""

    count: int
    meaning: str


@dataclass(frozen=True)
class Portion:
    """A number of batches where it is whole as written, a fraction of them where it has a point: 1 is not 1.0."""

    def holds(self, value: Any) -> bool:
        """Whether a value is such a number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return 0.0 <= value <= 1.0 if isinstance(value, float) else 0 <= value <= _LARGEST

    def __str__(self) -> str:
        return "from 0.0 to 1.0 (a fraction) or a whole number of 0 or more"


class KindError(UserError):
    """A value of another kind than its key's."""

    def __init__(self, key: str, expected: str, given: Any) -> None:
        super().__init__(f"{key} must be {expected}, got {shown(given)}")
        self.key = key


def convert(value: Any, kind: Any, key: str) -> Any:
    """Bring a plain value to the kind that an annotation names, exactly.

    Args:
        value: plain: None, bool, int, float, str, list or dict of these.
        kind: an annotation: bool, int, float, str, Literal, list[...], dict[str, ...], unions of them, None
            among them, Any; numbers may carry a :class:`Between` or a :class:`Portion`, texts a :class:`Text`, lists an
            :class:`Exactly`.
        key: full name of the setting, for messages.

    Raises:
        KindError: it cannot be that; says the key, what was expected and what was given.
    """
    if kind is Any:
        return value
    if get_origin(kind) in (Union, types.UnionType):
        return _convert_to_one(value, get_args(kind), key)
    if kind is type(None) and value is None:
        return None
    base, mark = _parts(kind)
    if get_origin(base) is list and isinstance(value, list):
        found = [convert(item, get_args(base)[0], f"{key}[{place}]") for place, item in enumerate(value)]
        if isinstance(mark, Exactly) and len(found) != mark.count:
            raise KindError(key, described(kind), value)
        return found
    if get_origin(base) is dict and isinstance(value, Mapping):
        return {_name(name, key): convert(item, get_args(base)[1], f"{key}.{name}") for name, item in value.items()}
    converted = _plain(value, base, mark)
    if converted is None:
        raise KindError(key, described(kind), value)
    return converted


def described(kind: Any) -> str:
    """An annotation in words."""
    if get_origin(kind) in (Union, types.UnionType):
        several = list(dict.fromkeys(described(one) for one in get_args(kind) if one is not type(None)))
        return f"{' or '.join(several)}{', or null' if type(None) in get_args(kind) else ''}"
    base, mark = _parts(kind)
    if isinstance(mark, Text | Exactly):
        return mark.meaning
    if get_origin(base) is Literal:
        choices = [str(choice) for choice in get_args(base)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    words = {
        bool: "true or false",
        int: "a whole number" if mark is not None else "a whole number of 64 bits",
        float: "a number",
        str: "a text",
        list: f"a list [...] of {_several(get_args(base)[0])}" if get_origin(base) is list else "",
        dict: "a map {key: value}",
        type(None): "null",
    }
    return f"{words[get_origin(base) or base]}{f' {mark}' if mark is not None else ''}"


def takes_text(kind: Any) -> bool:
    """Whether a setting of this kind, typed as plain text, is just that text."""
    if get_origin(kind) in (Union, types.UnionType):
        kinds = [_parts(one)[0] for one in get_args(kind)]
        return str in kinds and not any(number in kinds for number in (bool, int, float))
    return _parts(kind)[0] is str


def takes_path(kind: Any) -> bool:
    """Whether a setting of this kind may name a file or a folder, or several."""
    if get_origin(kind) in (Union, types.UnionType):
        return any(takes_path(one) for one in get_args(kind))
    base, mark = _parts(kind)
    if get_origin(base) in (list, dict):
        return takes_path(get_args(base)[-1])
    return isinstance(mark, Text) and mark.path


def shown(value: Any) -> str:
    """A value as one would type it, in one line, not longer than a line."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _parts(kind: Any) -> tuple[Any, Any]:
    """The kind itself, and what an Annotated says of it."""
    if get_origin(kind) is Annotated:
        base, mark, *_ = get_args(kind)
        return base, mark
    return kind, None


def _convert_to_one(value: Any, kinds: tuple[Any, ...], key: str) -> Any:
    """The first of several kinds that takes the value; of refusals, that of the part that is wrong."""
    refusals = []
    for kind in kinds:
        try:
            return convert(value, kind, key)
        except KindError as refused:  # noqa: PERF203  (each kind is tried)
            refusals.append(refused)
    inner = next((refusal for refusal in refusals if refusal.key != key), None)
    if inner is not None:
        raise inner
    raise KindError(key, described(Union[kinds]), value)  # noqa: UP007  (as many as there are)


def _plain(value: Any, base: Any, mark: Any) -> Any:
    """A value as one of the plain kinds, or None where it cannot be one."""
    if get_origin(base) is Literal:
        return next((choice for choice in get_args(base) if choice == value and type(choice) is type(value)), None)
    if isinstance(mark, Portion):
        return value if mark.holds(value) else None
    if base is bool:
        return value if isinstance(value, bool) else _SWITCH.get(value.strip().lower()) if _is_text(value) else None
    if base is str:
        return _text(value, mark if isinstance(mark, Text) else Text())
    number = _whole(value) if base is int else _number(value) if base is float else None
    return None if number is None or (mark is not None and not mark.holds(number)) else number


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> int | None:
    """A number without a fraction that fits into 64 bits, from however it was written."""
    exact = _decimal(value)
    # The exponent is looked at first: 1e999999999 would be written out.
    if exact is None or exact.adjusted() > 19 or exact != exact.to_integral_value():
        return None
    whole = int(exact)
    return whole if -_LARGEST - 1 <= whole <= _LARGEST else None


def _number(value: Any) -> float | None:
    exact = _decimal(value)
    if exact is None:
        return None
    number = float(exact)
    return number if math.isfinite(number) else None


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        exact = Decimal(value.strip() if isinstance(value, str) else value)
    except InvalidOperation:
        return None
    return exact if exact.is_finite() else None


def _text(value: Any, mark: Text) -> str | None:
    """A text, or the digits of a whole number: those of 1.50 or 1e5 are not what was typed."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or "\0" in text or not (mark.empty or text.strip()):
        return None
    return None if mark.plain and (text.startswith(".") or "/" in text or "\\" in text) else text


def _name(name: Any, key: str) -> str:
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise KindError(f"a key of {key}", "a text", name)
    return str(name)


def _several(kind: Any) -> str:
    words = described(kind)
    return f"{words.removeprefix('a ')}s" if words.startswith("a ") and " or " not in words else f"({words})"
