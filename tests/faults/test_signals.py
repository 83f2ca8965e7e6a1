"""Ended at any moment by any signal: nothing half under a final name, and the same command ends as if undisturbed."""

import random
import signal
import time

import pytest

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
JOBS = ("timeline", "pseudo_label", "pack", "simulate", "pairs", "align")
TRIES = 2
TELL_WHEN = ("p.json", "results.json", "starts.json", ".ckpt", ".log", "metrics.csv", ".yaml")
"""Files that tell times, turns and places, and those that a run writes into as it goes."""


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize("name", JOBS)
def test_a_command_that_is_ended_goes_on_to_the_same_end(jobs, tmp_path, name, number):
    job = jobs[name]
    started = time.monotonic()
    whole = tmp_path / "whole"
    whole.mkdir()
    assert job.run(whole, tmp_path / "here").status == 0
    took = time.monotonic() - started
    expected = job.left(whole)
    chance = random.Random(f"{name} {number}")
    for attempt in range(TRIES):
        place = tmp_path / f"place{attempt}"
        place.mkdir()
        running = job.start(place, tmp_path / "here")
        time.sleep(chance.uniform(0.2, 0.9) * took)
        running.send(number)
        ended = running.wait()
        if number == signal.SIGINT and ended.status:
            assert ended.status == 130, ended.err
            assert "Traceback" not in ended.err
            assert ended.err.rstrip().endswith("eventclip: interrupted")
        for file, content in job.left(place).items():
            if not file.endswith(TELL_WHEN):
                assert content == expected[file], file
        if job.is_whole(place):
            continue
        again = job.run(place, tmp_path / "here")
        assert again.status == 0, again.err
        left = job.left(place)
        assert set(left) >= set(expected)
        for file in expected:
            if not file.endswith(TELL_WHEN):
                assert left[file] == expected[file], file
