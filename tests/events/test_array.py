"""Moving events about is exact, loses nothing unasked and leaves the argument alone."""

from pathlib import Path

import numpy as np
import pytest

from eventclip.errors import UserError
from eventclip.events.array import (
    EVENT_DTYPE,
    centre,
    check_events,
    events_from_columns,
    flip_time,
    mirror,
    shift,
)

SENSOR = (180, 240)
GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def from_table(table):
    """Events of a float (N, 4) table of x, y, t [s], p of ±1."""
    return events_from_columns(np.rint(table[:, 2].astype(np.float64) * 1e6), table[:, 0], table[:, 1], table[:, 3] > 0)


def assert_same(ours, table):
    theirs = from_table(table)
    for name in ("x", "y", "p"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert np.abs(ours["t"] - theirs["t"]).max() <= 1


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "augment.npz"))


def test_the_dtype_is_the_decoders_and_nothing_is_copied():
    assert EVENT_DTYPE.itemsize == 16
    assert EVENT_DTYPE.names == ("t", "x", "y", "p")


def test_time_flip_mirror_and_shift_are_golden(golden):
    events = from_table(golden["events"])
    before = events.copy()
    assert_same(flip_time(events), golden["time_flip"])
    assert_same(mirror(events, SENSOR[1]), golden["horizontal_flip"])
    for number in (0, 1):
        dx, dy = golden[f"shift_{number}/offset"].tolist()
        assert_same(shift(events, dx, dy, SENSOR), golden[f"shift_{number}/after"])
    np.testing.assert_array_equal(events, before)


def test_centring_is_golden():
    golden = np.load(GOLDEN / "frames.npz")
    for number in range(4):
        before = from_table(golden[f"center_{number}/before"])
        assert_same(centre(before, SENSOR), golden[f"center_{number}/after"])


@pytest.mark.parametrize("width", [9, 10])
@pytest.mark.parametrize("x", [[0, 3], [0, 4], [5, 9], [7], [0, 20]])
def test_centring_leaves_equal_margins_or_one_more_on_the_left(x, width):
    events = events_from_columns(range(5, 5 + len(x)), x, x, [1] * len(x))
    centred = centre(events, (width, width))
    left, right = centred["x"].min(), width - 1 - centred["x"].max()
    assert right - left in {0, -1}
    np.testing.assert_array_equal(centred["x"], centred["y"])
    assert centred["t"][0] == 0
    np.testing.assert_array_equal(centre(centred, (width, width)), centred)


def test_mirror_and_time_flip_undo_themselves(golden):
    events = from_table(golden["events"])
    np.testing.assert_array_equal(mirror(mirror(events, 240), 240), events)
    started = events.copy()
    started["t"] -= events["t"].min()
    np.testing.assert_array_equal(flip_time(flip_time(events)), started)


def test_no_events_stay_no_events():
    nothing = np.zeros(0, EVENT_DTYPE)
    for moved in (centre(nothing, SENSOR), mirror(nothing, 240), shift(nothing, 3, 3, SENSOR), flip_time(nothing)):
        assert len(moved) == 0
        assert moved.dtype == EVENT_DTYPE


def test_an_event_outside_the_sensor_is_named():
    events = events_from_columns([0, 1], [5, 240], [5, 9], [1, 0])
    check_events(events, (180, 241))
    with pytest.raises(UserError, match="Event 1 at x=240, y=9 lies outside the sensor of 180 rows and 240 columns"):
        check_events(events, SENSOR)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0], [1], [2], [3]), "p = 3"),
        (([0], [1.5], [2], [1]), "x = 1.5"),
        (([np.nan], [1], [2], [1]), "t = nan"),
        (([0, 1], [1], [2], [1]), "equally long"),
    ],
)
def test_columns_that_are_no_events_are_refused(columns, message):
    with pytest.raises(UserError, match=message):
        events_from_columns(*columns)


def test_shifting_drops_what_leaves_and_wraps_nothing():
    events = events_from_columns(range(4), [0, 1, 238, 239], [0, 1, 178, 179], [1, 0, 1, 0])
    moved = shift(events, 2, -1, SENSOR)
    np.testing.assert_array_equal(moved["x"], [3])
    np.testing.assert_array_equal(moved["t"], [1])
    for far in (32_767, -32_768, 100_000):
        assert len(shift(events, far, 0, SENSOR)) == 0
    inside = events[1:3]
    np.testing.assert_array_equal(shift(shift(inside, 1, 1, SENSOR), -1, -1, SENSOR), inside)


def test_no_step_changes_its_argument_or_hands_it_back():
    events = events_from_columns(range(4), [0, 1, 238, 239], [0, 1, 178, 179], [1, 0, 1, 0])
    before = events.copy()
    events.setflags(write=False)
    for moved in (centre(events, SENSOR), mirror(events, 240), shift(events, 0, 0, SENSOR), flip_time(events)):
        assert not np.shares_memory(moved, events)
        moved["t"] += 1
    np.testing.assert_array_equal(events, before)


@pytest.mark.parametrize("other", [np.zeros(3), np.zeros((2, 2), EVENT_DTYPE), [1, 2]])
def test_what_is_no_event_array_is_refused(other):
    with pytest.raises(UserError, match="EVENT_DTYPE"):
        check_events(other, SENSOR)


@pytest.mark.parametrize("value", [70_000.0, -40_000.0, 1e20, np.inf, 32_768.0, 2**40])
def test_a_coordinate_beyond_the_field_never_wraps_round(value):
    with pytest.raises(UserError, match=r"x = .* at row 1"):
        events_from_columns([0, 1], np.array([3, value]), [2, 2], [1, 1])


def test_an_impossible_sensor_is_refused():
    with pytest.raises(UserError, match=r"sensor_hw must be \[height, width\]"):
        check_events(np.zeros(0, EVENT_DTYPE), (0, 5))
