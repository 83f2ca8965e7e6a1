"""Class names that can be meant: each a text, and no two the same to CLIP's tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eventclip.errors import UserError


def check_class_names(names: Any, key: str) -> list[str]:
    """Class names as a list, spaces at their ends cut off.

    Args:
        names: what was given for them, of any kind.
        key: what they were given as, for messages ("classes", "data.class_names").

    Raises:
        UserError: not a list of texts, an empty list or name, or two names that CLIP reads alike: its tokenizer knows
            no capital letters, and takes any white space for one space.
    """
    if isinstance(names, str):
        raise UserError(f"{key}={names!r} is one name: give a list of names, such as [{names!r}, 'background']")
    if isinstance(names, Mapping) or not isinstance(names, Iterable):
        raise UserError(f"{key} must be a list of names, such as [mug,scissors], got {names!r}")
    listed = list(names)
    if not listed:
        raise UserError(f"{key} is an empty list: give the names to choose from, such as ['mug', 'scissors']")
    for place, name in enumerate(listed, 1):
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise UserError(f"{key} holds {name!r} at place {place} of {len(listed)}, which is no name: give a text")
    found = [str(name).strip() for name in listed]
    if "" in found:
        raise UserError(f"class {found.index('') + 1} of {len(found)} has an empty name: give each class a name")
    read: dict[str, str] = {}
    for name in found:
        if as_clip_reads(name) in read:
            one = read[as_clip_reads(name)]
            alike = f"{one!r} twice" if one == name else f"{one!r} and {name!r}, which CLIP reads alike"
            raise UserError(f"{key} names {alike}: give each class once, as no prompt can tell two apart")
        read[as_clip_reads(name)] = name
    return found


def as_clip_reads(name: str) -> str:
    """A name as CLIP's tokenizer sees it: without capitals, white space folded."""
    return " ".join(name.split()).lower()
