"""A composed configuration against the schema: wrong values are refused, what is typed otherwise is converted."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from eventclip.config.kinds import KindError, convert
from eventclip.config.schema import COMMANDS, TARGETS, Built, Collected, Paths
from eventclip.errors import UserError


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
    return f", did you mean {' or '.join(close)}?" if close else ""


def _check_section(section: DictConfig, schema: type, prefix: str, resolve: bool) -> None:
    kinds = kinds_of(schema)
    for key in section:
        name = str(key)
        if name in kinds:
            _check(section, name, kinds[name], f"{prefix}{name}", resolve)
        elif prefix and schema is not Paths and not name.startswith("_") and "_target_" not in section:
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
    for own, kind in (("_target_", str), ("_partial_", bool)):
        if own in node:
            _check_value(node, own, kind, f"{key}.{own}", resolve)
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
