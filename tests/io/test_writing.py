"""What is written is read back exactly, or nothing is there."""

import numpy as np
import pytest

from eventclip.errors import UserError
from eventclip.events.array import EVENT_DTYPE
from eventclip.io.formats import open_stream
from eventclip.io.writing import write_events

SUFFIXES = (".npy", ".npz", ".h5", ".csv")
SENSOR = (480, 640)


def made(count, *, first=0, last=10**15):
    rng = np.random.default_rng(count)
    events = np.zeros(count, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(first, last, count))
    events["x"], events["y"] = rng.integers(0, 640, count), rng.integers(0, 480, count)
    events["p"] = rng.integers(0, 2, count)
    return events


def read(path):
    stream = open_stream(path)
    return np.concatenate([np.zeros(0, EVENT_DTYPE), *stream.chunks]), stream.sensor_hw, stream.notes


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_what_is_written_comes_back_to_the_microsecond(tmp_path, suffix, count):
    events = made(count)
    write_events(tmp_path / f"a{suffix}", events)
    found, sensor_hw, notes = read(tmp_path / f"a{suffix}")
    assert np.array_equal(found, events)
    assert (sensor_hw, notes) == (None, [])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("polarity", [0, 1])
def test_odd_but_possible_recordings_come_back(tmp_path, suffix, polarity):
    for events in (made(50, first=-(10**6), last=-5), made(50, first=2**60, last=2**61), made(50, last=1)):
        events["p"] = polarity
        write_events(tmp_path / f"a{suffix}", events)
        assert np.array_equal(read(tmp_path / f"a{suffix}")[0], events)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_sensor_comes_back_where_a_format_keeps_it(tmp_path, suffix):
    events = made(100)
    write_events(tmp_path / f"a{suffix}", events, SENSOR)
    found, sensor_hw, _ = read(tmp_path / f"a{suffix}")
    assert np.array_equal(found, events)
    assert sensor_hw == (SENSOR if suffix in (".h5", ".csv") else None)


def test_what_cannot_be_written_is_told(tmp_path):
    events = made(2)
    (tmp_path / "file").touch()
    back, outside, odd = events[::-1].copy(), events.copy(), events.copy()
    outside["x"], odd["p"] = 640, 2
    for path, array, message in [
        ("a.txt", events, r"must end in \.npy, \.npz, \.h5, \.csv"),
        ("a.npy", np.zeros((2, 4)), "events of EVENT_DTYPE only"),
        ("a.npy", back, r"a\.npy is not written: what it is to hold is out of order"),
        ("a.npy", odd, "has p = 2 at row 0"),
        ("a.h5", outside, "at x=640, .* lies outside the sensor"),
        ("file/a.npy", events, "cannot be written"),
    ]:
        with pytest.raises(UserError, match=message):
            write_events(tmp_path / path, array, SENSOR)
    with pytest.raises(UserError, match="sensor_hw must be"):
        write_events(tmp_path / "a.npy", events, (0, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
