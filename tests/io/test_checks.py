"""An event that no camera can have sent is found wherever it is, and named by its row in the recording."""

import contextlib

import numpy as np
import pytest

from eventclip.errors import UserError
from eventclip.events.array import EVENT_DTYPE
from eventclip.io.checks import check_sound, rows_inside

LENGTH = 33
FLAWS = {
    "x": (-1, "x = -1 at row {row}: expected 0 or more"),
    "y": (-32768, "y = -32768 at row {row}: expected 0 or more"),
    "p": (2, "p = 2 at row {row}: expected 0 or 1"),
    "t": (-(2**60), "backwards in time at row {row}"),
}


def sound():
    events = np.zeros(LENGTH, EVENT_DTYPE)
    events["t"] = np.arange(LENGTH)
    events["x"], events["y"], events["p"] = 239, 179, np.arange(LENGTH) % 2
    return events


def strided(events):
    return np.repeat(events, 2)[::2]


@pytest.mark.parametrize("layout", [np.array, strided])
@pytest.mark.parametrize("sensor", [None, (180, 240), (40_000, 40_000)])
@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_is_found_at_every_row(layout, sensor, flaw):
    check_sound(layout(sound()), sensor, first=100, last=0)
    value, message = FLAWS[flaw]
    for row in (0, 1, LENGTH // 2, LENGTH - 1):
        events = sound()
        events[flaw][row] = value
        with pytest.raises(UserError, match=message.format(row=100 + row)):
            check_sound(layout(events), sensor, first=100, last=0)


@pytest.mark.parametrize("seed", range(4))
def test_any_bytes_pass_as_the_definition_says(seed):
    """Whatever lies between the fields, and at both ends of what a sensor and a coordinate can be."""
    rng, passed = np.random.default_rng(seed), 0
    for _ in range(100):
        height, width = (int(side) for side in rng.choice([1, 2, 180, 32_767, 32_768, 40_000], 2))
        events = np.frombuffer(rng.bytes(16 * 3), EVENT_DTYPE).copy()
        events["t"] = np.sort(events["t"] // 4)
        for name, side in (("x", width), ("y", height)):
            places = np.array([0, side - 1, side - 1, side, -1, -32_768]).clip(-32_768, 32_767)
            events[name] = rng.choice(places, 3, p=[0.3, 0.3, 0.3, 0.04, 0.03, 0.03])
        events["p"] = rng.choice([0, 1, 2, 255], 3, p=[0.45, 0.45, 0.05, 0.05])
        x, y, p = (events[name].astype(int) for name in "xyp")
        sound = bool(((x >= 0) & (x < width) & (y >= 0) & (y < height) & (p < 2)).all())
        with contextlib.nullcontext() if sound else pytest.raises(UserError):
            check_sound(events, (height, width))
        passed += sound
    assert 20 < passed < 80


def test_a_sensor_without_rows_holds_no_event():
    with pytest.raises(UserError, match=r"sensor_hw must be \[height, width\]"):
        check_sound(sound(), (0, 240))


def test_the_first_of_several_flaws_is_told():
    events = sound()
    events["p"][20], events["x"][10], events["t"][15] = 9, 500, -1
    with pytest.raises(UserError, match="backwards in time at row 15"):
        check_sound(events, None)
    with pytest.raises(UserError, match="Event 10 at x=500, y=179 lies outside"):
        check_sound(events, (180, 240))


def test_disorder_is_let_pass_on_request_and_nothing_else():
    events = sound()[::-1].copy()
    check_sound(events, None, in_order=False)
    events["p"][5] = 3
    with pytest.raises(UserError, match="p = 3 at row 5"):
        check_sound(events, None, in_order=False)


def test_rows_that_were_left_out_count():
    events = sound()
    events["x"][[3, 7]] = 240
    events["p"][9] = 2
    rows = rows_inside(events, (180, 240))
    assert rows.tolist() == [row for row in range(LENGTH) if row not in (3, 7)]
    with pytest.raises(UserError, match="p = 2 at row 109"):
        check_sound(events[rows], (180, 240), first=100, rows=rows)
    assert rows_inside(sound(), (180, 240)) is None
    check_sound(sound()[:0], (180, 240))
