"""A composed configuration against the schema: wrong values are refused, what is typed otherwise is converted.

Nothing is guessed: "no" is a false, 1e5 is a whole number and 20240131 a folder's name, but 1.5 is no whole number and
"180x240" no pair of numbers.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from eventclip.config.renamed import renamed_setting
from eventclip.config.schema import COMMANDS, TARGETS, Built, Collected, Exactly, Paths, Portion, Text
from eventclip.config.sentences import close_to
from eventclip.errors import UserError

_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_LARGEST = 2**63 - 1
_SHOWN = 60


def check_config(cfg: DictConfig, command: str, *, resolve: bool = False) -> None:
    """Check a command's configuration, and convert its values in place.

    Args:
        cfg: as composed; keys that are not there, or "???", are left to whoever needs them.
        command: one of :data:`eventclip.schema.COMMANDS`.
        resolve: whether interpolations are checked as well, which some can only be once the run's folder is known.

    Raises:
        UserError: the first value of another kind than its key's; one sentence.
    """
    _check_section(cfg, COMMANDS[command], "", resolve)


@functools.cache
def settings_of(command: str) -> dict[str, Any]:
    """All settings that a command is known to have, dotted -> kind; every option of every group together."""
    return dict(_flat(COMMANDS[command], ""))


def sections_of(schema: type) -> set[str]:
    """Names of what is a section of its own in a section."""
    return {name for name, kind in kinds_of(schema).items() if section_of(kind)[0] is not None}


def _check_section(section: DictConfig, schema: type, prefix: str, resolve: bool) -> None:
    kinds = kinds_of(schema)
    for key in section:
        name = str(key)
        if name in kinds:
            _check(section, name, kinds[name], f"{prefix}{name}", resolve)
            continue
        renamed = renamed_setting(f"{prefix}{name}")
        if renamed is not None:
            raise UserError(renamed)
        target = str(section.get("_target_")) if "_target_" in section and prefix else ""
        whole = not target or (target in TARGETS and target.startswith("eventclip."))  # others take more than is known
        if prefix and schema is not Paths and not name.startswith("_") and whole:
            hint = close_to(f"{prefix}{name}", [f"{prefix}{one}" for one in kinds])
            raise UserError(f"{prefix}{name} is no setting of {prefix[:-1]}{hint or ': --cfg job prints all of them'}")


def _check(section: DictConfig, name: str, kind: Any, key: str, resolve: bool) -> None:
    if OmegaConf.is_missing(section, name) or (OmegaConf.is_interpolation(section, name) and not resolve):
        return
    described, optional = section_of(kind)
    if described is None:
        _check_value(section, name, kind, key, resolve)
        return
    node = section[name]
    if node is None and optional:
        return
    if not isinstance(node, DictConfig):
        choose = f" that {name}=... chooses" if "." not in key else ", or null" if optional else ""
        raise KindError(key, f"a section of settings{choose}", _plain(node))
    if isinstance(described, Collected):
        for part in map(str, node):
            _check(node, part, _ANY_PART, f"{key}.{part}", resolve)
    elif isinstance(described, Built):
        _check_built(node, key, resolve)
    else:
        _check_section(node, described, f"{key}.", resolve)


def _check_built(node: DictConfig, key: str, resolve: bool) -> None:
    for mark, kind in (("_target_", str), ("_partial_", bool)):
        if mark in node:
            _check_value(node, mark, kind, f"{key}.{mark}", resolve)
    schema = None if OmegaConf.is_missing(node, "_target_") else TARGETS.get(str(node.get("_target_")))
    if schema is not None:
        _check_section(node, schema, f"{key}.", resolve)


def _check_value(section: DictConfig, name: str, kind: Any, key: str, resolve: bool) -> None:
    try:
        given = _plain(section._get_node(name), resolve)  # noqa: SLF001  (there is no public way to see a list unresolved)
    except OmegaConfBaseException:
        if resolve:
            raise
        return  # an interpolation inside, which is checked once it can be resolved
    if not resolve and _interpolated(given):
        return
    converted = convert(given, kind, key)
    if repr(converted) != repr(given):  # 1 and True are equal
        with flag_override(section, ["readonly", "struct"], [False, False]):
            section[name] = converted


def _plain(node: Any, resolve: bool = False) -> Any:
    if OmegaConf.is_config(node):
        return OmegaConf.to_container(node, resolve=resolve)
    if resolve and hasattr(node, "_dereference_node"):
        node = node._dereference_node()  # noqa: SLF001
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node._value()  # noqa: SLF001
    return node._value() if hasattr(node, "_value") else node  # noqa: SLF001


def _interpolated(value: Any) -> bool:
    """Whether a plain value holds what is yet to be filled in."""
    if isinstance(value, dict):
        return any(_interpolated(one) for one in value.values())
    if isinstance(value, list):
        return any(_interpolated(one) for one in value)
    return isinstance(value, str) and "${" in value


_ANY_PART = Annotated[Any, Built(())] | None


def section_of(kind: Any) -> tuple[Any, bool]:
    """The section that an annotation describes, None where it is a value, and whether it may be null."""
    parts = [kind] if get_origin(kind) is Annotated or isinstance(kind, type) else list(get_args(kind))
    optional = type(None) in parts
    for part in parts:
        if get_origin(part) is Annotated and isinstance(part.__metadata__[0], Built | Collected):
            return part.__metadata__[0], optional
        if isinstance(part, type) and hasattr(part, "__dataclass_fields__"):
            return part, optional
    return None, optional


@functools.cache
def kinds_of(schema: type) -> dict[str, Any]:
    """What each setting of a section may be."""
    return get_type_hints(schema, include_extras=True)


def _flat(schema: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, kind in kinds_of(schema).items():
        described, _ = section_of(kind)
        key = f"{prefix}{name}"
        if described is None:
            yield key, kind
        elif isinstance(described, Built):
            yield key, Any
            for usual in described.usual:
                yield from _flat(usual, f"{key}.")
        elif isinstance(described, Collected):
            yield key, Any
            for part, usual in described.usual:
                yield from _flat(usual, f"{key}.{part}.")
        else:
            yield key, Any
            yield from _flat(described, f"{key}.")


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
            among them, Any; numbers may carry a Between or a Portion, texts a Text, lists an Exactly.
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
        items = [convert(item, get_args(base)[0], f"{key}[{place}]") for place, item in enumerate(value)]
        if isinstance(mark, Exactly) and len(items) != mark.count:
            raise KindError(key, described(kind), value)
        return items
    if get_origin(base) is dict and isinstance(value, Mapping):
        return {_name(name, key): convert(item, get_args(base)[1], f"{key}.{name}") for name, item in value.items()}
    converted = _of_plain_kind(value, base, mark)
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


def _of_plain_kind(value: Any, base: Any, mark: Any) -> Any:
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
