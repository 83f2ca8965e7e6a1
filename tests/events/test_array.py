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


def test_the_dtype_is_that_of_the_decoder_so_that_nothing_is_copied():
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


def test_centring_is_golden(shared):
    golden = np.load(shared / "golden" / "frames.npz")
    cases = [name.split("/")[0] for name in golden.files if name.startswith("center_") and name.endswith("/before")]
    assert cases
    for case in cases:
        assert_same(centre(from_table(golden[f"{case}/before"]), SENSOR), golden[f"{case}/after"])


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
