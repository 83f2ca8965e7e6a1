"""Many small tasks in several processes or threads, their results in order."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import TypeVar

from eventclip.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 4  # tasks of each worker that may wait for the slowest: bounds the memory of their results


def cores(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Processor cores that this process may use: those it may run on, and no more than its container's share of time.

    Args:
        groups: where the limits of control groups lie.
    """
    return int(max(1, min(_allowed(), math.ceil(min(_quota(groups), 1e6)))))


def _allowed() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota(groups: Path) -> float:
    """Cores' worth of time that a control group grants (cpu.max, or version 1's two files); infinity without one."""
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (groups / "cpu.max").read_text().split()
        return float(quota) / float(period) if quota != "max" else math.inf
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else math.inf
    return math.inf


def share_cores(environment: MutableMapping[str, str] = os.environ, *, groups: Path = Path("/sys/fs/cgroup")) -> None:
    """Let the threads of torch wait asleep, and be no more than the cores; to be called before torch is imported.

    Threads of GNU OpenMP wait for each other awake, by default for milliseconds. Two processes on the same cores then
    wait for threads that cannot run: small steps take twenty times as long. What the user has set stays.

    Args:
        environment: of this process and those it starts.
        groups: where the limits of control groups lie.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", "1000")
    if cores(groups) < _allowed():  # which OpenMP finds by itself
        environment.setdefault("OMP_NUM_THREADS", str(cores(groups)))


def start_plainly() -> None:
    """In a process of joblib's, start others as Python does by itself, which loaders need, and end with the parent."""
    known = multiprocessing.get_all_start_methods()  # the platform's own comes first
    if multiprocessing.get_start_method(allow_none=True) not in (None, *known):
        multiprocessing.set_start_method(known[0], force=True)
        threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


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
