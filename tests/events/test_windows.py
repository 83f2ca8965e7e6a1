"""A sliding window sees every event, in order, whatever the pieces the recording comes in."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventclip.errors import UserError
from eventclip.events.array import EVENT_DTYPE
from eventclip.events.windows import SlidingWindow


def recording(times):
    events = np.zeros(len(times), EVENT_DTYPE)
    events["t"] = np.sort(times)
    events["x"] = np.arange(len(times)) % 300
    return events


def in_pieces(events, size):
    return [events[start : start + size] for start in range(0, len(events), size)]


TIMES = st.lists(st.integers(0, 200), max_size=60)
WINDOWS = st.tuples(st.booleans(), st.integers(1, 30), st.integers(1, 30))


def sliding(by_time, size, step):
    unit = "us" if by_time else "events"
    return SlidingWindow(**{unit: size, f"step_{unit}": min(size, step)})


@settings(max_examples=200, deadline=None)
@given(TIMES, WINDOWS, st.integers(1, 20))
def test_windows_do_not_depend_on_pieces_nor_leave_events_out(times, window, piece):
    events, slide = recording(times), sliding(*window)
    whole = list(slide([events]))
    pieces = list(slide(in_pieces(events, piece)))
    assert [(w.first, w.start_us, w.end_us) for w in whole] == [(w.first, w.start_us, w.end_us) for w in pieces]
    seen = set()
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(a.events, b.events)
        np.testing.assert_array_equal(a.events, events[a.first : a.first + len(a.events)])
        seen |= set(range(a.first, a.first + len(a.events)))
    assert seen == set(range(len(events)))


@settings(max_examples=100, deadline=None)
@given(TIMES.filter(bool), st.integers(1, 30), st.integers(1, 30))
def test_windows_of_time_hold_what_happened_in_them(times, size, step):
    step = min(size, step)
    events = recording(times)
    windows = list(SlidingWindow(us=size, step_us=step)([events]))
    number = 0
    for window in windows:
        assert window.start_us == events["t"][0] + number * step
        assert window.end_us == window.start_us + (window.windows - 1) * step + size
        inside = (events["t"] >= window.start_us) & (events["t"] < window.end_us)
        np.testing.assert_array_equal(window.events, events[inside])
        assert window.windows == 1 or not len(window.events)
        number += window.windows
    assert windows[-1].end_us > events["t"][-1]
    assert not any(not len(a.events) and not len(b.events) for a, b in itertools.pairwise(windows))


YEAR_US = 365 * 24 * 3_600 * 1_000_000


@pytest.mark.parametrize(
    ("times", "size", "step", "spans"),
    [
        ([0, 1_461_581_614_000_137], 100_000, 100_000, [(0, 1), (100_000, 0), (1_461_581_614_000_000, 1)]),
        ([5, 25, 3_600_000_000], 10_000, 10_000, [(5, 2), (10_005, 0), (3_599_990_005, 1)]),
        ([0, YEAR_US, 2 * YEAR_US], 1, 1, [(0, 1), (1, 0), (YEAR_US, 1), (YEAR_US + 1, 0), (2 * YEAR_US, 1)]),
        ([0, 100], 10, 3, [(0, 1), (3, 0), (93, 1)]),
    ],
)
@pytest.mark.parametrize("piece", [1, 10])
def test_a_silence_of_any_length_is_one_window(times, size, step, spans, piece):
    windows = list(SlidingWindow(us=size, step_us=step)(in_pieces(recording(times), piece)))
    assert [(window.start_us, len(window.events)) for window in windows] == spans
    for window, following in itertools.pairwise(windows):
        assert following.start_us == window.start_us + window.windows * step


def test_pieces_are_put_together_once_for_a_window_of_many(monkeypatch):
    copied = []
    concatenate = np.concatenate
    monkeypatch.setattr(np, "concatenate", lambda parts: copied.append(sum(map(len, parts))) or concatenate(parts))
    for options in ({"us": 10_000}, {"events": 10_000}):
        copied.clear()
        list(SlidingWindow(**options)(in_pieces(recording(range(10_000)), 10)))
        assert sum(copied) <= 2 * 10_000


def test_the_last_window_is_filled_with_the_events_before_it():
    windows = list(SlidingWindow(events=4, step_events=3)([recording(range(12))]))
    assert [(w.first, len(w.events)) for w in windows] == [(0, 4), (3, 4), (6, 4), (8, 4)]
    assert [(w.first, len(w.events)) for w in SlidingWindow(events=20)([recording(range(12))])] == [(0, 12)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "give one of window_events and window_us"),
        ({"events": 1, "us": 1}, "give one of window_events and window_us"),
        ({"events": 5, "step_us": 1}, "give step_events with window_events"),
        ({"us": 5, "step_events": 1}, "give step_events with window_events"),
        ({"events": 0}, "window_events must be a whole number of 1 or more, got 0"),
        ({"us": 5, "step_us": 6}, "step_us=6 must be no longer than window_us=5"),
        ({"us": 5, "step_us": 0}, "step_us must be a whole number of 1 or more, got 0"),
    ],
)
def test_an_impossible_window_is_told(options, told):
    with pytest.raises(UserError, match=told):
        SlidingWindow(**options)
