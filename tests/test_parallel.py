"""Whatever works on the items, results come in order, and no more of them wait than shall."""

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from eventclip.errors import UserError
from eventclip.parallel import cores, map_ordered, share_cores


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


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "990000000 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "100000 0"}, None),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_a_containers_share_of_time_is_heeded(tmp_path, files, expected):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    allowed = len(os.sched_getaffinity(0))
    assert cores(tmp_path) == min(expected or allowed, allowed)
    environment: dict[str, str] = {}
    share_cores(environment, groups=tmp_path)
    assert environment.get("OMP_NUM_THREADS") == (None if expected in (None, allowed) else str(expected))
    assert environment["GOMP_SPINCOUNT"] == "1000"


def test_what_the_user_set_of_threads_stays():
    environment = {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "3"}
    share_cores(environment)
    assert environment == {"OMP_WAIT_POLICY": "active", "OMP_NUM_THREADS": "3"}


def test_a_command_shares_cores_before_torch_is_imported():
    script = (
        "import os, sys, builtins\n"
        "sys.argv = ['eventclip', 'train', 'experiment=demo', 'adapter=text', '--cfg', 'job']\n"
        "from eventclip.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "1000 False"
