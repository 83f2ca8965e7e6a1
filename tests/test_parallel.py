"""Whatever works on the items, results come in order, and no more of them wait than shall."""

import math
import threading
import time
from collections.abc import Iterator

import pytest

from eventclip.errors import UserError
from eventclip.parallel import map_ordered


def square(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number * number


@pytest.mark.parametrize(("workers", "threads"), [(1, False), (1, True), (3, True)])
def test_results_come_in_order(workers, threads):
    assert list(map_ordered(square, range(20), workers, threads=threads)) == [n * n for n in range(20)]


def test_processes_give_what_threads_give():
    assert list(map_ordered(math.sqrt, range(40), 2)) == [math.sqrt(n) for n in range(40)]


def test_no_more_is_begun_than_shall_wait():
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = map_ordered(square, items(), 2, threads=True, ahead=5)
    assert next(results) == 0
    assert len(taken) == 6
    results.close()
    assert threading.active_count() < 10


def test_an_error_is_raised_in_its_place():
    def odd(number):
        if number == 2:
            raise UserError("two")
        return number

    results = map_ordered(odd, range(5), 2, threads=True)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(UserError, match="two"):
        next(results)


def test_no_worker_is_refused():
    with pytest.raises(UserError, match="workers must be a whole number of at least 1, got 0"):
        list(map_ordered(square, [1], 0))
