"""Numpy's files and text: whatever their order, unit and polarity coding, the same events, or a refusal that helps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import EVENT_DTYPE, events_from_columns
from eventclip.io.columns import read_table
from eventclip.io.formats import read_events, readable_suffixes
from eventclip.io.names import find_columns

T = np.array([0, 10, 10, 65_600, 300_000])
X, Y, P = np.array([0, 239, 17, 5, 100]), np.array([100, 3, 179, 7, 0]), np.array([1, 0, 0, 1, 1])
EXPECTED = events_from_columns(T, X, Y, P)


def write_text(path, header, rows, delimiter=","):
    lines = [delimiter.join(str(value) for value in row) for row in rows]
    path.write_text("\n".join([*([header] if header else []), *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("header", "columns", "delimiter"),
    [
        ("x,y,t,p", [X, Y, T, P], ","),
        ("t,x,y,p", [T, X, Y, P], ","),
        ("polarity;timestamp;ys;xs", [2 * P - 1, T, Y, X], ";"),
        ("# t x y p", [T / 1e6, X, Y, P], " "),
        ("t [s]\tx\ty\tp", [T / 1e6, X, Y, P], "\t"),
        ("id,x,y,timestamp_ns,on", [range(5), X, Y, T * 1000, P], ","),
        ("Time (ms),X,Y,Pol", [T / 1e3, X, Y, P], ","),
        ("% a comment\n\n% t,x,y,p", [T, X, Y, P], ","),
        (None, [T / 1e6, X, Y, P], " "),
        (None, [X, Y, T, P], ","),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_text_says_what_its_columns_are(tmp_path, header, columns, delimiter, suffix):
    path = write_text(tmp_path / f"a.{suffix}", header, zip(*columns, strict=True), delimiter)
    np.testing.assert_array_equal(read_events(path)[0], EXPECTED)


def test_text_of_unknown_order_names_its_setting(tmp_path):
    path = write_text(tmp_path / "a.csv", None, [(1, 2, 3, 1), (4, 2, 5, 0)])
    with pytest.raises(RecordingError, match=r"both orders fit.*columns=xytp"):
        read_events(path)
    np.testing.assert_array_equal(read_events(path, columns="xytp")[0]["t"], [3, 5])
    np.testing.assert_array_equal(read_events(path, columns="txyp")[0]["t"], [1, 4])
    path = write_text(tmp_path / "b.csv", None, [(1, 2, 3, 1), (0, -2, 1, 0)])
    with pytest.raises(RecordingError, match="neither order fits"):
        read_events(path)


def test_large_times_in_text_keep_their_last_digit(tmp_path):
    path = write_text(tmp_path / "a.csv", "t,x,y,p", [(2**54 + 1, 1, 2, 1)])
    assert read_events(path)[0]["t"][0] == 2**54 + 1


def test_text_may_begin_whole_and_go_on_in_fractions(tmp_path):
    path = write_text(tmp_path / "a.csv", "t,x,y,p", [(0, 1, 2, 1), (0.5, 1, 2, 0)])
    assert read_events(path)[0]["t"].tolist() == [0, 500_000]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("t,x,y\n1,2,3\n", "on line 1: expected numbers, or names"),
        ("t,x,y,p\n1,2,3,1\n1,2,3\n", "from line 2 on: .*changed from 4 to 3"),
        ("t,x,y,p\n1,2,3,1\n1,2,up,0\n", "from line 2 on: .*up"),
        ("t,x,y,p\n1,2,3,1,9\n", "5 values on line 2"),
        ("t,x,y,p\n1,2,3,1\n2000,nan,3,0\n", "x = nan at row 1"),
        ("t,x,y,p\n1,2,3,1\nnan,2,3,0\n", "t = nan at row 1"),
        ("t,ts,x,y,p\n1,1,2,3,1\n", "two columns for t, t and ts"),
        ("1,2,3\n4,5,6\n", r"shape \(2, 3\)"),
        ("# nothing here\n", "no line of numbers and no line of names"),
        ("t,x,y,p\n5,2,3,1\n4,2,3,1\n", "backwards in time at row 1"),
    ],
)
def test_damaged_text_is_told_by_its_line(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(RecordingError, match=message) as caught:
        read_events(tmp_path / "a.csv")
    assert str(tmp_path / "a.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binary_rubbish_called_text_is_told(tmp_path):
    (tmp_path / "a.csv").write_bytes(bytes(range(256)))
    with pytest.raises(RecordingError, match=r"a\.csv"):
        read_events(tmp_path / "a.csv")


def test_whole_tables_without_events_are_no_error(tmp_path):
    (tmp_path / "a.csv").write_text("t,x,y,p\n")
    np.save(tmp_path / "a.npy", np.zeros((0, 4), np.float32))
    np.savez(tmp_path / "a.npz", event_data=np.zeros(0, [("x", "u2"), ("y", "u2"), ("t", "i8"), ("p", "?")]))
    for name in ("a.csv", "a.npy", "a.npz"):
        events, _ = read_events(tmp_path / name)
        assert len(events) == 0
        assert events.dtype == EVENT_DTYPE


@pytest.mark.parametrize("kind", [np.int64, np.uint32, np.float64, np.float32])
def test_an_archive_may_hold_a_matrix_or_a_column_each(tmp_path, kind):
    np.savez(tmp_path / "a.npz", event_data=np.stack([X, Y, T, P], axis=1).astype(kind), other=T)
    np.savez(tmp_path / "b.npz", x=X, y=Y, ts=T.astype(kind), p=P > 0)
    for name in ("a.npz", "b.npz"):
        np.testing.assert_array_equal(read_events(tmp_path / name)[0], EXPECTED)


def test_a_matrix_in_another_order_is_told_or_read_by_request(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([T / 1e6, X, Y, P], axis=1))
    with pytest.raises(RecordingError, match="whose unit cannot be told"):  # rows of the sensor taken for times
        read_events(tmp_path / "a.npy")
    np.testing.assert_array_equal(read_events(tmp_path / "a.npy", columns="txyp")[0], EXPECTED)


def test_the_events_own_layout_comes_in_as_it_is(tmp_path):
    np.save(tmp_path / "a.npy", EXPECTED)
    np.testing.assert_array_equal(read_events(tmp_path / "a.npy")[0], EXPECTED)
    np.testing.assert_array_equal(read_events(tmp_path / "a.npy", time_unit="ms")[0]["t"], T * 1000)
    wrong = EXPECTED.copy()
    wrong["p"][3] = 2
    np.save(tmp_path / "b.npy", wrong)
    with pytest.raises(RecordingError, match="p = 2 at row 3"):
        read_events(tmp_path / "b.npy")


@pytest.mark.parametrize(("unit", "factor"), [("s", 1e6), ("ms", 1e3), ("us", 1.0), ("ns", 1e-3)])
@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_a_given_unit_is_taken(unit, factor, kind):
    times = np.array([0, 1, 5, 4_000]).astype(kind)
    table = {"t": times, "x": np.zeros(4, int), "y": np.zeros(4, int), "p": np.zeros(4, int)}
    told = read_table(table, unit, None)["t"]
    assert np.abs(told - times * factor).max() <= 1
    assert (np.diff(told) >= 0).all()


@pytest.mark.parametrize(
    "times",
    [
        np.array([0.0, 1.0, 2.0]),  # seconds, milliseconds or microseconds
        np.array([0.5, 20_000.25]),  # five hours or fractions of a microsecond
        np.array([1_700_000_000_000_000_000, 1_700_000_000_000_000_001]),  # nanoseconds since 1970
    ],
)
def test_a_unit_that_cannot_be_told_names_its_setting(times):
    zeros = np.zeros(len(times), int)
    with pytest.raises(RecordingError, match="time_unit="):
        read_table({"t": times, "x": zeros, "y": zeros, "p": zeros}, None, None)


@settings(max_examples=50, deadline=None)
@given(
    times=st.lists(st.integers(0, 9 * 10**9), min_size=2, max_size=20).map(sorted),
    signed=st.booleans(),
    seconds=st.booleans(),
)
def test_units_and_polarity_codings_mean_the_same(times, signed, seconds):
    times = np.array(times)
    if seconds:
        times[0] += times[0] % 10**6 == 0  # at least one fraction, or the unit could not be told
        times.sort()
    polarity = np.arange(len(times)) % 2
    table = {
        "t": times / 1e6 if seconds else times,
        "x": np.arange(len(times)),
        "y": np.arange(len(times)),
        "p": 2 * polarity - 1 if signed else polarity,
    }
    events = read_table(table, None, None)
    np.testing.assert_array_equal(events["t"], times)
    np.testing.assert_array_equal(events["p"], polarity)


@pytest.mark.parametrize("coding", [[-1, 0, 1], [0, 2, 1], [-2, -1, 1], [0.5, 1, 1], [np.nan, 1, 1]])
def test_another_coding_of_polarity_is_refused(coding):
    table = {"t": np.arange(3), "x": np.arange(3), "y": np.arange(3), "p": np.array(coding)}
    with pytest.raises(UserError, match="p = "):
        read_table(table, None, None)


def test_names_are_found_in_any_case_and_with_their_unit():
    assert find_columns(["Xs", "YS", "Timestamps", "Polarity"])[1] is None
    assert find_columns(["x", "y", "t_us", "p"]) == ({"x": "x", "y": "y", "t": "t_us", "p": "p"}, "us")
    assert find_columns(["t [µs]"])[1] == "us"
    assert find_columns(["ts"]) == ({"t": "ts"}, None)
    assert find_columns(["texture", "x_offset", "t_offset"]) == ({}, None)


def test_options_that_do_not_apply_are_refused(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"12345")
    np.save(tmp_path / "a.npy", EXPECTED)
    for options in ({"time_unit": "h"}, {"columns": "xyt"}):
        with pytest.raises(UserError, match=next(iter(options))):
            read_events(tmp_path / "a.npy", **options)
    with pytest.raises(UserError, match="for tables"):
        read_events(tmp_path / "a.bin", time_unit="s")
    with pytest.raises(RecordingError, match="does not apply"):
        read_events(tmp_path / "a.npy", columns="xytp")
    with pytest.raises(RecordingError, match="cannot be read"):
        read_events(tmp_path, "npy")


def test_the_suffixes_that_folders_are_searched_for():
    assert set(readable_suffixes()) >= {
        ".npy",
        ".npz",
        ".bin",
        ".dat",
        ".raw",
        ".aedat4",
        ".h5",
        ".hdf5",
        ".csv",
        ".txt",
    }
    assert all(suffix == suffix.lower() for suffix in readable_suffixes())


@pytest.mark.parametrize("kind", [">f4", ">f8", ">i4", "<f2"])
def test_other_byte_orders_and_half_precision_are_read_too(tmp_path, kind):
    table = np.array([[1, 2, 0, 1], [3, 4, 1500, 0], [5, 6, 2000, 1]])
    np.save(tmp_path / "a.npy", table.astype(kind))
    np.savez(tmp_path / "b.npz", **dict(zip("xytp", table.T.astype(kind), strict=True)))
    for name in ("a.npy", "b.npz"):
        assert read_events(tmp_path / name)[0].tolist() == [(0, 1, 2, 1), (1500, 3, 4, 0), (2000, 5, 6, 1)]
