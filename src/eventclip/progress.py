"""Bars where stderr is a terminal; in a log a line when a stage ends, and few while it lasts long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm as terminal_bar

FIRST_LINE_S = 60.0
"""Time [s] after which a stage that still lasts has its first line in a log; each further one takes twice as long."""


def is_terminal() -> bool:
    """Whether somebody watches: stderr is a terminal, on which a bar can move."""
    return sys.stderr is not None and sys.stderr.isatty()


class tqdm(terminal_bar):  # type: ignore[misc]  # noqa: N801  (it takes what tqdm takes, in its place)
    """A bar as tqdm draws it on a terminal; elsewhere a line like "packing: 1,200 of 1,200 rec in 35 s" at its end.

    Args:
        arguments: of tqdm.
        disable: neither bar nor line.
        options: of tqdm.
    """

    def __init__(self, *arguments: Any, disable: bool = False, **options: Any) -> None:
        self._logs = not disable and not is_terminal()
        super().__init__(*arguments, disable=disable or self._logs, **options)
        self._title = arguments[1] if len(arguments) > 1 else options.get("desc", "done")
        self._unit = options.get("unit", "it")
        self._first, self._start, self._next_s = self.n, time.monotonic(), FIRST_LINE_S

    def __iter__(self) -> Iterator[Any]:
        """Items of what was given, counted."""
        if not self._logs:
            yield from super().__iter__()
            return
        try:
            for item in self.iterable:
                yield item
                self.update()
        finally:
            self.close()

    def update(self, n: float | None = 1) -> bool | None:
        """Count further items, and say so where the stage has lasted long since the last line."""
        if not self._logs:
            return super().update(n)  # type: ignore[no-any-return]
        self.n += n or 0
        seconds = time.monotonic() - self._start
        if seconds >= self._next_s:
            self._next_s = 2 * seconds
            self._say(f"after {seconds:,.0f} s")
        return None

    def postpone(self) -> None:
        """Say nothing for a while: something else has just told how far the stage is."""
        self._next_s = time.monotonic() - self._start + FIRST_LINE_S

    def close(self) -> None:
        """Take the bar away, or say how far the stage came and how long it took."""
        if self._logs and self.n > self._first:
            self._say(f"in {time.monotonic() - self._start:,.1f} s")
        self._logs = False
        super().close()

    def _say(self, when: str) -> None:
        total = "" if self.total is None else f" of {self.total:,}"
        print(f"{self._title}: {self.n:,}{total} {self._unit} {when}", file=sys.stderr, flush=True)
