"""Times of several pieces of work, taken in turns so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any


def medians(
    work: Sequence[Callable[[], object]],
    runs: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    warm: bool = False,
    turn_s: float = 0.0,
) -> list[float]:
    """Median time of each piece of work [s], after one round that compiles and warms up.

    Args:
        work: calls without arguments, in turns.
        runs: rounds that count.
        clock: seconds; ``time.thread_time`` for what runs in this thread alone, whatever else the machine does.
        warm: whether the first round counts as well.
        turn_s: a turn calls its work again until this much time has passed, as a loop over recordings would, and counts
            the mean; otherwise the other works' data would fill the caches before each call.
    """
    taken: list[list[float]] = [[] for _ in work]
    for _ in range(runs if warm else runs + 1):
        for own, task in zip(taken, work, strict=True):
            start, calls = clock(), 0
            while not calls or clock() - start < turn_s:
                task()
                calls += 1
            own.append((clock() - start) / calls)
    return [statistics.median(own[-runs:]) for own in taken]


def seconds(work: Callable[[], Any], *, clock: Callable[[], float] = time.perf_counter) -> tuple[float, Any]:
    """Time of one call [s], and its result."""
    start = clock()
    result = work()
    return clock() - start, result


class DifferError(SystemExit):
    """Ours and the comparator's results differ, so their times mean nothing."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: the results differ from the comparator's, so the times mean nothing")
