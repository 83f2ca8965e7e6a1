"""A log has a line where a stage ends, and no bar; a terminal has a bar."""

import io
import re
import sys

import pytest

from eventclip import progress
from eventclip.progress import tqdm


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stderr(monkeypatch):
    """What stands in for stderr: a file, or a terminal."""

    def put(stream):
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return put


def test_a_log_has_one_line_where_a_stage_ends(stderr):
    log = stderr(io.StringIO())
    assert list(tqdm(range(1200), "packing", 2000, unit="rec")) == list(range(1200))
    assert re.fullmatch(r"packing: 1,200 of 2,000 rec in 0\.\d s\n", log.getvalue())


def test_what_is_counted_by_hand_has_one_line_too(stderr):
    log = stderr(io.StringIO())
    with tqdm(desc="encoding", total=5, initial=2, unit="rec") as bar:
        for _ in range(3):
            bar.update()
    bar.close()
    assert re.fullmatch(r"encoding: 5 of 5 rec in 0\.\d s\n", log.getvalue())


def test_a_stage_with_nothing_to_do_says_nothing(stderr):
    log = stderr(io.StringIO())
    assert list(tqdm([], "packing", 7, initial=7)) == []
    assert log.getvalue() == ""


def test_a_stage_that_lasts_has_ever_fewer_lines(stderr, monkeypatch):
    log, now = stderr(io.StringIO()), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with tqdm(desc="encoding", unit="rec") as bar:
        for _ in range(3600):
            now[0] += 1
            bar.update()
    lines = log.getvalue().splitlines()
    assert lines[0] == "encoding: 60 rec after 60 s"
    assert lines[-1] == "encoding: 3,600 rec in 3,600.0 s"
    assert len(lines) == 7


def test_a_stage_waits_where_something_else_has_told_of_it(stderr, monkeypatch):
    log, now = stderr(io.StringIO()), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = tqdm(desc="training", unit="batches")
    for _ in range(300):
        now[0] += 1
        bar.postpone()
        bar.update()
    assert log.getvalue() == ""
    bar.close()
    assert log.getvalue() == "training: 300 batches in 300.0 s\n"


def test_an_end_by_an_error_says_how_far_it_came(stderr):
    log = stderr(io.StringIO())

    def some():
        yield from range(3)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(tqdm(some(), "reading", 9, unit="rec"))
    assert log.getvalue().startswith("reading: 3 of 9 rec in ")


def test_who_wants_none_has_neither_bar_nor_line(stderr):
    for stream in (io.StringIO(), Terminal()):
        shown = stderr(stream)
        assert list(tqdm(range(3), "reading", disable=True)) == [0, 1, 2]
        assert shown.getvalue() == ""


def test_a_terminal_has_a_bar(stderr):
    terminal = stderr(Terminal())
    list(tqdm(range(3), "reading", 3))
    assert "100%" in terminal.getvalue()
