"""A window that slides over the events of a recording, by count or by time, without holding all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from eventclip.errors import UserError, whole
from eventclip.events.array import EVENT_DTYPE, Events


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a recording.

    Attributes:
        events: (n,) array of EVENT_DTYPE; without events where nothing happened for a window of time or longer.
        first: number of events of the recording before it.
        start_us: time where it begins [µs], of its first event in a window of so many events.
        end_us: time where it ends [µs], the first one past it in a window of time, of its last event otherwise.
        windows: how many windows it stands for: one, or all in a row that are without events.
    """

    events: Events
    first: int
    start_us: int
    end_us: int
    windows: int = 1


class SlidingWindow:
    """Cut a recording into windows of equally many events, or of equal time.

    Windows begin every ``step``. The last one ends with the recording: by count it is filled up with the events before
    it (a recording shorter than a window is one window), by time it reaches beyond the last event. So every event is
    in some window. Windows of time without events, however many in a row, are given as one, and the next one begins
    where it would have: a clock that jumps by years costs nothing.

    Args:
        events: events in a window; or
        us: time of a window [µs].
        step_events: events from the start of one window to the start of the next; None is ``events``, no overlap.
        step_us: the same for windows of time [µs].

    Raises:
        UserError: none or both of ``events`` and ``us``, a step of the other kind, a number below 1, or a step
            longer than the window, which would leave events out.
    """

    def __init__(
        self,
        *,
        events: int | None = None,
        us: int | None = None,
        step_events: int | None = None,
        step_us: int | None = None,
    ) -> None:
        if (events is None) == (us is None):
            raise UserError("a window slides by count or by time: give one of window_events and window_us")
        if (events is None and step_events is not None) or (us is None and step_us is not None):
            raise UserError(
                "a window and its step are counted alike: give step_events with window_events, step_us with window_us"
            )
        self.by_time = us is not None
        size = us if events is None else events
        step = step_us if self.by_time else step_events
        unit = "us" if self.by_time else "events"
        self.size = whole(size, f"window_{unit}")
        self.step = self.size if step is None else whole(step, f"step_{unit}")
        if self.step > self.size:
            raise UserError(
                f"step_{unit}={self.step} must be no longer than window_{unit}={self.size}, or events would be left out"
            )

    def __call__(self, chunks: Iterable[Events]) -> Iterator[Window]:
        """Slide over a recording given in pieces.

        Args:
            chunks: arrays of EVENT_DTYPE in order of time, one after the other.

        Returns:
            Windows in order of time, each as soon as its events are there; none for a recording without events.
        """
        return self._by_time(chunks) if self.by_time else self._by_count(chunks)

    def _by_count(self, chunks: Iterable[Events]) -> Iterator[Window]:
        held, first, start, covered = _Held(), 0, 0, 0
        for chunk in chunks:
            held.add(chunk)
            end = first + len(held)
            if start + self.size > end:
                continue
            events = held.events()
            while start + self.size <= end:
                yield _window(events[start - first :][: self.size], start)
                covered, start = start + self.size, start + self.step
            # What the next windows need, and what may have to fill up the last one.
            needed = max(min(start, end - self.size), first)
            held.keep(events[needed - first :])
            first = needed
        end = first + len(held)
        if end > covered:
            start = max(end - self.size, 0)
            yield _window(held.events()[start - first :], start)

    def _by_time(self, chunks: Iterable[Events]) -> Iterator[Window]:
        held, first, start = _Held(), 0, None
        for chunk in chunks:
            if not len(chunk):
                continue
            if start is None:
                start = int(chunk["t"][0])
            held.add(chunk)
            last = int(chunk["t"][-1])
            if start + self.size > last:
                continue
            events = held.events()
            times = np.ascontiguousarray(events["t"])
            passed = 0
            while start + self.size <= last:  # the window's last event has been read
                end = int(np.searchsorted(times, start + self.size))
                # Where nothing happened, all windows that end before the next event are one.
                windows = 1 if end > passed else (int(times[end]) - start - self.size) // self.step + 1
                yield Window(
                    events[passed:end], first + passed, start, start + (windows - 1) * self.step + self.size, windows
                )
                start += windows * self.step
                passed = int(np.searchsorted(times, start))
            held.keep(events[passed:])
            first += passed
        if start is not None and len(held):
            yield Window(held.events(), first, start, start + self.size)


class _Held:
    """Events that are still needed; pieces are put together only where they are looked at."""

    def __init__(self) -> None:
        self._pieces: list[Events] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, piece: Events) -> None:
        self._pieces.append(piece)
        self._count += len(piece)

    def keep(self, events: Events) -> None:
        self._pieces, self._count = [events], len(events)

    def events(self) -> Events:
        if len(self._pieces) != 1:
            self._pieces = [np.concatenate([np.empty(0, EVENT_DTYPE), *self._pieces])]
        return self._pieces[0]


def _window(events: Events, first: int) -> Window:
    return Window(events, first, int(events["t"][0]), int(events["t"][-1]))
