"""What the columns of a table of events are called, and the unit of time that a name tells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from eventclip.errors import RecordingError

COLUMNS_WANTED = "the columns t, x, y and p (or ts, xs, ys, polarity and the like)"
"""For messages."""

_USUAL = {
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "x": ("x", "xs"),
    "y": ("y", "ys"),
    "p": ("p", "ps", "pol", "polarity", "polarities", "on"),
}
_RARE = {  # counted only where none of the usual names is there
    "t": ("stamp", "stamps", "time_stamp", "time_stamps"),
    "x": ("x_addr", "xaddr", "addr_x", "x_address", "x_pos", "col", "cols"),
    "y": ("y_addr", "yaddr", "addr_y", "y_address", "y_pos", "row", "rows"),
    "p": ("is_increase", "is_on", "sign"),
    "xy": ("xy",),  # EVIMO2: one array of two columns
    "secs": ("sec", "secs", "second", "seconds"),  # ROS: whole seconds and the nanoseconds after them
    "nsecs": ("nsec", "nsecs", "nanosec", "nanosecs"),
}
_LETTERS = {alias: (letter, 0) for letter, aliases in _USUAL.items() for alias in aliases}
_LETTERS |= {alias: (letter, 1) for letter, aliases in _RARE.items() for alias in aliases}

_UNITS = {
    "s": ("s", "sec", "secs", "second", "seconds"),
    "ms": ("ms", "msec", "msecs", "millisecond", "milliseconds"),
    "us": ("us", "µs", "μs", "\ufffds", "usec", "usecs", "µsec", "μsec", "microsecond", "microseconds"),
    "ns": ("ns", "nsec", "nsecs", "nanosecond", "nanoseconds"),
}
_WORDS = {word: unit for unit, words in _UNITS.items() for word in words}
_SUFFIX = "|".join(sorted(_WORDS, key=len, reverse=True))
_NAME = re.compile(
    r"(?:\w*_)?(?:events?_)(?P<after>[a-z_]+?)"  # events_x of RPEFlow, dataset_events_t of EVIMO2
    r"|(?P<name>[a-z_]+?)(?:@(?P<size>\d+))?"  # x@346 of faery
    rf"(?:\s*\[\s*(?P<square>[^\]]*?)\s*\]|\s*\(\s*(?P<round>[^)]*?)\s*\)|(?:_|\s*/\s*|\s+in\s+)(?P<suffix>{_SUFFIX}))?"
)


class Name(NamedTuple):
    """What a name says: the column it stands for, how rare it is, the unit and the size of the sensor it tells."""

    letter: str
    rarity: int
    unit: str | None
    size: int | None


@lru_cache(maxsize=256)  # files of a data set have the same ones
def read_name(name: str) -> Name | None:
    """Read the name of a column, such as ``ts``, ``Time [ms]`` or ``x@346``; None where it is no column of events."""
    match = _NAME.fullmatch(name.strip().lower())
    if match is None:
        return None
    letter, rarity = _LETTERS.get(match["name"] or match["after"], (None, 0))
    if letter is None:
        return None
    word = next((part for part in (match["square"], match["round"], match["suffix"]) if part), None)
    return Name(
        letter,
        1 if match["after"] else rarity,
        None if word is None else _WORDS.get(word, word),
        int(match["size"]) if match["size"] and len(match["size"]) < 6 else None,
    )


def find_columns(names: Sequence[str]) -> tuple[dict[str, str], str | None]:
    """Find the columns of events among names such as ``ts``, ``polarity`` or ``t_us``.

    Args:
        names: names of columns, fields or data sets, in any order and case; others may be among them.

    Returns:
        The name of each of "t", "x", "y", "p" that is there ("xy" for an array of both, "secs" and "nsecs" for a time
        in two columns), and the unit of time where its name tells it, as it is written there where it is none of ours.

    Raises:
        RecordingError: two names for one column.
    """
    found: dict[str, str] = {}
    unit = None
    known = [(read, name) for name in names if (read := read_name(name)) is not None]
    for rarity in (0, 1):
        usual = dict(found)
        for read, name in known:
            if read.rarity != rarity or read.letter in usual:
                continue
            if read.letter in found:
                raise RecordingError(
                    f"has two columns for {read.letter}, {found[read.letter]} and {name}: expected one"
                )
            found[read.letter] = name
            if read.letter == "t":
                unit = read.unit
    secs = found.pop("secs", None), found.pop("nsecs", None)
    if "t" not in found and secs[0] is not None:
        if secs[1] is None:
            found["t"], unit = secs[0], "s"
        else:
            found["secs"], found["nsecs"] = secs[0], secs[1]
    if "x" in found or "y" in found:
        found.pop("xy", None)
    return found, unit


def missing_in(found: dict[str, str]) -> list[str]:
    """Which of "t", "x", "y", "p" :func:`find_columns` has not found."""
    there = {*found, *(("x", "y") if "xy" in found else ()), *(("t",) if "secs" in found else ())}
    return [name for name in "txyp" if name not in there]
