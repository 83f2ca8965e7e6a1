"""An event that no camera can have sent is found wherever it is, and named by its row in the recording."""

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
