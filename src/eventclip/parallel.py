"""Many small tasks in several processes, their results in order."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from eventclip.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 4  # tasks of each worker that may wait for the slowest: bounds the memory of their results


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(task: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Do ``task`` on all items; a generator that works no more than a few items ahead of its reader.

    Args:
        task: what to do, picklable where there is more than one worker; so are the items and the results.
        items: what to do it on.
        workers: number of processes; 1 works in this one.

    Raises:
        UserError: a worker was killed from outside, for lack of memory as a rule.
    """
    if workers < 1:
        raise UserError(f"workers must be a whole number of at least 1, got {workers}")
    if workers == 1:
        yield from map(task, items)
        return
    rest = iter(items)
    # Spawned, not forked: a fork inherits whatever locks other threads hold.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    try:
        waiting: deque[Future[R]] = deque(pool.submit(task, item) for item in itertools.islice(rest, workers * _AHEAD))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(task, item) for item in itertools.islice(rest, 1))
    except BrokenProcessPool:
        raise UserError(
            f"one of the {workers} worker processes was killed, for lack of memory as a rule: give fewer workers="
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed, and let the parent alone hear an interruption."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
