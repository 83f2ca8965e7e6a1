"""What a file leaves open is told by an option, and every sentence names the one that helps."""

import re

import h5py
import numpy as np
import pytest

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import EVENT_DTYPE
from eventclip.io.formats import Opened, ReadOptions, open_stream, read_events, register_format, together

COUNT = 60
SENSOR = (180, 240)


@pytest.fixture(scope="module")
def events():
    """60 events, as many programs would write them, the first (3811, 201, 172, 1)."""
    rng = np.random.default_rng(3)
    made = np.zeros(COUNT, EVENT_DTYPE)
    made["t"] = 3811 + 137 * np.arange(COUNT)
    made["x"], made["y"] = rng.integers(0, 240, COUNT), rng.integers(0, 180, COUNT)
    made["p"] = rng.integers(0, 2, COUNT)
    made[0] = (3811, 201, 172, 1)
    return made


def rows(events, order, seconds=False):
    columns = {"t": events["t"] / 1e6 if seconds else events["t"], **{name: events[name] for name in "xyp"}}
    return np.stack([columns[name] for name in order], axis=1)


def write(path, table, form="%d", delimiter=" ", header=""):
    np.savetxt(path, table, form, delimiter, header=header, comments="")
    return path


def read(path, sensor_hw=None, **options):
    stream = open_stream(path, ReadOptions(**options), sensor_hw=sensor_hw, chunk_events=7)
    return together(list(stream.chunks)), stream.sensor_hw, stream.notes


def remedies(sentence):
    """Options that a sentence gives, as they would be typed."""
    found = re.findall(r"\b(time_unit|columns|sort|stream|drop_outside|file_format)=([\w/]+)", sentence)
    return {name: value == "true" if name in {"sort", "drop_outside"} else value for name, value in found}


@pytest.mark.parametrize("order", ["xytp", "txyp", "xypt"])
@pytest.mark.parametrize("delimiter", [" ", ",", "\t", ";"])
def test_the_usual_orders_of_text_without_names_are_told(tmp_path, events, order, delimiter):
    path = write(tmp_path / "a.txt", rows(events, order), delimiter=delimiter)
    found, _, notes = read(path)
    np.testing.assert_array_equal(found, events)
    assert any(f"columns are taken for {', '.join(order)}" in note and "columns=" in note for note in notes)


@pytest.mark.parametrize("order", ["xypt", "txyp", "ptxy", "yxpt", "ytxp"])
@pytest.mark.parametrize("suffix", ["txt", "npy", "npz", "h5"])
def test_any_order_of_columns_can_be_given(tmp_path, events, order, suffix):
    path, table = tmp_path / f"a.{suffix}", rows(events, order)
    if suffix == "txt":
        write(path, table)
    elif suffix == "npy":
        np.save(path, table)
    elif suffix == "npz":
        np.savez(path, event_data=table)
    else:
        with h5py.File(path, "w") as file:
            file["events"] = table
    np.testing.assert_array_equal(read(path, columns=order)[0], events)
    np.testing.assert_array_equal(read_events(path, columns=order)[0], events)


def test_a_column_can_be_left_out(tmp_path, events):
    five = np.insert(rows(events, "yxpt"), 2, 9, axis=1)
    path = write(tmp_path / "a.txt", five)
    with pytest.raises(RecordingError, match=r"5 columns without names.*columns=txyp_") as caught:
        read(path)
    with pytest.raises(RecordingError, match=re.escape(str(caught.value))):
        read_events(path)
    np.testing.assert_array_equal(read(path, columns="yx_pt")[0], events)
    with pytest.raises(RecordingError, match="5 columns without names, and columns=xytp names 4"):
        read(path, columns="xytp")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("columns", "xyzt"),
        ("columns", "xyt"),
        ("columns", ["x", "y", "t", "p"]),
        ("time_unit", "h"),
        ("time_unit", 5),
        ("file_format", "avi"),
        ("stream", 0),
        ("sort", "false"),
        ("drop_outside", 1),
        ("largest_bytes", True),
        ("largest_bytes", 0),
        ("sensor_hw", 180),
        ("sensor_hw", [180.5, 240]),
        ("sensor_hw", [0, 240]),
        ("sensor_hw", [1, 2, 3]),
        ("sensor_hw", "ab"),
    ],
)
def test_an_option_that_cannot_be_is_the_users_mistake(tmp_path, events, option, value):
    np.save(tmp_path / "a.npy", events)
    name = "format" if option == "file_format" else option
    with pytest.raises(UserError, match=f"^{option} must") as caught:
        read_events(tmp_path / "a.npy", **{name: value})
    assert not isinstance(caught.value, RecordingError)


@pytest.mark.parametrize("kind", ["npy", "npy of floats", "h5"])
def test_an_array_in_another_order_is_told_and_the_remedy_works(tmp_path, events, kind):
    path = tmp_path / f"a.{kind[:3].strip()}"
    if kind == "h5":
        with h5py.File(path, "w") as file:
            file["events"] = rows(events, "txyp").astype(np.uint32)
    else:
        np.save(path, rows(events, "txyp", seconds="floats" in kind))
    for options in ({}, {"sort": True}):
        with pytest.raises(RecordingError, match="numbers look like t, x, y, p, so give columns=txyp") as caught:
            read(path, **options)
    np.testing.assert_array_equal(read(path, columns=remedies(str(caught.value))["columns"])[0], events)


@pytest.mark.parametrize("suffix", ["txt", "csv", "npy", "npz", "h5", "own.npy"])
def test_disorder_is_named_and_sorted_on_request(tmp_path, events, suffix):
    path, swapped = tmp_path / f"a.{suffix}", events.copy()
    swapped[[20, 21]] = swapped[[21, 20]]
    table = rows(swapped, "txyp", seconds=True)
    if suffix == "txt":
        write(path, table, ["%.6f", "%d", "%d", "%d"])
    elif suffix == "csv":
        write(path, rows(swapped, "txyp"), delimiter=",", header="t,x,y,p")
    elif suffix == "own.npy":
        np.save(path, swapped)
    elif suffix == "npy":
        np.save(path, rows(swapped, "xytp", seconds=True))
    elif suffix == "npz":
        np.savez(path, event_data=swapped)
    else:
        with h5py.File(path, "w") as file:
            for name in "txyp":
                file[f"events/{name}"] = swapped[name]
    with pytest.raises(RecordingError, match=r"out of order.*backwards in time at row 21.*give sort=true") as caught:
        read(path)
    with pytest.raises(RecordingError, match=re.escape(str(caught.value))):
        read_events(path)
    found, _, notes = read(path, sort=remedies(str(caught.value))["sort"])
    np.testing.assert_array_equal(found, events)
    assert "1 of 60 events were out of order and were sorted by time" in notes


def test_events_of_one_time_stay_in_the_order_of_the_file(tmp_path):
    times = np.array([5, 1, 5, 1, 5])
    write(tmp_path / "a.csv", np.stack([times, np.arange(5), np.zeros(5), np.ones(5)], axis=1), header="t x y p")
    events, _ = read_events(tmp_path / "a.csv", sort=True)
    assert events["x"].tolist() == [1, 3, 0, 2, 4]


def test_an_event_outside_the_sensor_is_told_left_out_or_let_in(tmp_path, events):
    path, far = tmp_path / "a.h5", events.copy()
    far["x"][7] = 300
    with h5py.File(path, "w") as file:
        for name in "txyp":
            file[f"events/{name}"] = far[name]
        file["events"].attrs.update({"height": 180, "width": 240})
    with pytest.raises(RecordingError, match=r"Event 7 at x=300, .*give sensor_hw=\[H,W\].*drop_outside=true"):
        read(path)
    found, sensor, notes = read(path, drop_outside=True)
    np.testing.assert_array_equal(found, np.delete(events, 7))
    assert sensor == SENSOR
    assert notes[-1] == "1 of 60 events lie outside the sensor and were left out"
    found, sensor, _ = read(path, sensor_hw=[180, 301])
    np.testing.assert_array_equal(found, far)
    assert sensor == (180, 301)


@pytest.mark.parametrize("wrong", [-5, 40_000, 65_535])
def test_what_no_sensor_has_is_left_out_too(tmp_path, events, wrong):
    table = rows(events, "txyp")
    table[7, 1] = wrong
    path = write(tmp_path / "a.csv", table, header="t x y p")
    with pytest.raises(RecordingError, match=f"x = {wrong} at row 7"):
        read(path)
    np.testing.assert_array_equal(read(path, SENSOR, drop_outside=True)[0], np.delete(events, 7))


@pytest.mark.parametrize(("unit", "factor"), [("s", 1e-6), ("ms", 1e-3)])
def test_a_unit_told_from_the_numbers_is_noted(tmp_path, events, unit, factor):
    table = rows(events, "xytp").astype(float)
    table[:, 2] *= factor
    np.save(tmp_path / "a.npy", table)
    found, _, notes = read(tmp_path / "a.npy")
    assert len(notes) == 1
    assert notes[0].startswith("times are taken for seconds, as their fractions tell: give time_unit=ms")
    assert read(tmp_path / "a.npy", time_unit=unit)[2] == []
    np.testing.assert_array_equal(read(tmp_path / "a.npy", time_unit=unit)[0], events)
    assert (found["t"] == events["t"]).all() == (unit == "s")


def test_whole_times_and_named_units_are_noted_or_not(tmp_path, events):
    whole = write(tmp_path / "a.csv", rows(events, "txyp"), header="t x y p")
    assert "taken for microseconds" in read(whole)[2][0]
    named = write(tmp_path / "b.csv", rows(events, "txyp"), header="t_us x y p")
    assert read(named)[2] == []
    assert read(whole, time_unit="us")[2] == []


def test_streams_of_hdf5_are_chosen_by_name_part_or_number(tmp_path, events):
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        file["davis/left/events"] = rows(events, "xytp")
        file["davis/right/events"] = rows(events[::2], "xytp")
    with pytest.raises(RecordingError, match="holds 2 tables of events, davis/left/events, davis/right/") as caught:
        read(path)
    np.testing.assert_array_equal(read(path, stream=remedies(str(caught.value))["stream"])[0], events)
    for stream in ("left", "davis/left", "/davis/left/events", "0"):
        np.testing.assert_array_equal(read(path, stream=stream)[0], events)
    for stream in ("right", "davis/right/events", "1"):
        np.testing.assert_array_equal(read(path, stream=stream)[0], events[::2])
    for stream in ("top", "davis", "2", "events"):
        with pytest.raises(UserError, match=f"davis/left/events, davis/right/events, and stream={stream} names"):
            read(path, stream=stream)


def test_stream_is_for_files_that_may_hold_several(tmp_path, events):
    np.save(tmp_path / "a.npy", events)
    with pytest.raises(RecordingError, match="stream= is for HDF5 and aedat4"):
        read(tmp_path / "a.npy", stream="left")


def test_an_unknown_suffix_is_read_by_the_format_that_is_given(tmp_path, events):
    path = write(tmp_path / "a.dvs", rows(events, "txyp"), header="t x y p")
    with pytest.raises(RecordingError, match=r"\.csv.*give file_format=.*csv"):
        read(path)
    np.testing.assert_array_equal(read(path, file_format="csv")[0], events)


@pytest.mark.parametrize("make", ["mkdir", "fifo", "absent"])
def test_what_is_no_file_is_told_at_once(tmp_path, make):
    path = tmp_path / "a.csv"
    if make == "mkdir":
        path.mkdir()
    elif make == "fifo":
        import os

        os.mkfifo(path)
    with pytest.raises(RecordingError, match=r"a\.csv cannot be read"):
        read(path)


class Panic(BaseException):
    """As Rust code raises it: no Exception."""


Panic.__name__ = "PanicException"


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("by\nzero"), KeyError("x"), Panic("at the disco")])
@pytest.mark.parametrize("late", [False, True])
def test_whatever_a_format_raises_is_one_sentence_with_the_path(tmp_path, events, error, late):
    def chunks():
        yield events
        raise error

    def broken(path, options, chunk_events):
        if late:
            return Opened(chunks())
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eventclip.io.formats._FORMATS", {})
        register_format("broken", [".broken"], broken)
        (tmp_path / "a.broken").write_bytes(b"x")
        with pytest.raises(RecordingError, match=r"a\.broken cannot be read \(") as caught:
            read_events(tmp_path / "a.broken")
    assert "\n" not in str(caught.value)


def test_a_format_of_ones_own_is_read_like_the_others(tmp_path, events):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eventclip.io.formats._FORMATS", {})
        register_format("mine", [".mine"], lambda path, options, chunk_events: Opened(iter([events]), SENSOR))
        (tmp_path / "a.mine").write_bytes(b"x")
        found, sensor = read_events(tmp_path / "a.mine")
        np.testing.assert_array_equal(found, events)
        assert sensor == SENSOR
        with pytest.raises(UserError, match="mine is there already"):
            register_format("mine", [".mine"], None)
    with pytest.raises(UserError, match="suffixes such as"):
        register_format("other", ["other"], None)
