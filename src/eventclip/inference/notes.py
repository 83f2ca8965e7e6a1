"""How files were read, where they left it open: said on stderr, once for all that have it in common."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

from eventclip.files import printable

_NUMBER = re.compile(r"\d[\d,.]*")


@dataclass
class _Said:
    name: str
    note: str
    recordings: int = 0


class Notes:
    """Sentences on recordings. Those that differ in their numbers alone are one, told of the first recording."""

    def __init__(self) -> None:
        self._said: dict[str, _Said] = {}

    def add(self, name: str, *notes: str) -> None:
        """Keep what there is to say of a recording."""
        for note in notes:
            self._said.setdefault(_NUMBER.sub("#", note), _Said(name, note)).recordings += 1

    def say(self) -> None:
        """Write a line for each on stderr."""
        for said in self._said.values():
            more = said.recordings - 1
            others = "" if not more else f" (and of {more} other recording{'s' * (more > 1)} alike)"
            print(printable(f"eventclip: {said.name}: {said.note}{others}"), file=sys.stderr)
        self._said.clear()
