"""Many small tasks in several processes or threads, their results in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
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


def map_ordered(
    task: Callable[[T], R], items: Iterable[T], workers: int, *, threads: bool = False, ahead: int | None = None
) -> Iterator[R]:
    """Like ``map``, in order, but a few items are worked on before their results are asked for.

    No more than so many results wait, so that a long list takes no more memory than a short one.

    Args:
        task: what to do; for processes picklable, and so are the items and the results.
        items: what to do it on; looked at no further ahead than needed.
        workers: number of processes or threads; one process is this one, and then nothing is done ahead.
        threads: threads instead of processes, for tasks that release the interpreter, as readers and kernels do.
        ahead: most tasks begun and not yet asked for; None is four for each worker.

    Raises:
        UserError: no worker, or a process was killed from outside, for lack of memory as a rule.
    """
    if workers < 1:
        raise UserError(f"workers must be a whole number of at least 1, got {workers}")
    if workers == 1 and not threads:
        yield from map(task, items)
        return
    pool: Executor
    if threads:
        pool = ThreadPoolExecutor(workers)
    else:  # Spawned, not forked: a fork inherits whatever locks other threads hold.
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    most = workers * _AHEAD if ahead is None else ahead
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(task, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            f"one of the {workers} worker processes was killed, for lack of memory as a rule: give fewer workers="
        ) from None
    finally:  # also when nobody wants the rest
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed, and let the parent alone hear an interruption."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()
