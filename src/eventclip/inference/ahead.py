"""Prepare what comes next while the model works on what is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def map_ahead(function: Callable[[A], B], items: Iterable[A], *, workers: int = 2, ahead: int = 8) -> Iterator[B]:
    """Like ``map``, in order, but a few items are worked on before they are asked for.

    Threads serve, since readers and kernels release the interpreter; no more than ``ahead`` results wait, so that a
    long list takes no more memory than a short one.
    """
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also when nobody wants the rest
            pool.shutdown(wait=True, cancel_futures=True)
