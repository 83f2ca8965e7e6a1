"""Every format gives the same events, and a damaged file says what is wrong with it and where."""

import numpy as np
import pytest

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import EVENT_DTYPE
from eventclip.io.formats import read_events

T = np.array([0, 10, 10, 65_600, 300_000])
X = np.array([0, 239, 17, 5, 100])
Y = np.array([0, 179, 3, 99, 7])
P = np.array([1, 0, 0, 1, 1])


def expected():
    events = np.zeros(5, EVENT_DTYPE)
    events["t"], events["x"], events["y"], events["p"] = T, X, Y, P
    return events


def write_est(path, *, dtype=np.float64, t=T / 1e6, x=X, p=2 * P - 1):
    np.save(path, np.stack([x, Y, t, p], axis=1).astype(dtype))
    return path


def write_bin(path, entries):
    raw = bytearray()
    for t, x, y, p in entries:
        raw += bytes([x, y, (p << 7) | (t >> 16), (t >> 8) & 255, t & 255])
    path.write_bytes(bytes(raw))
    return path


def write_dat(path, header="% Data file\n% Height 180\n% Width 240\n"):
    words = np.stack([T, X | (Y << 14) | (P << 28)], axis=1).astype("<u4")
    path.write_bytes(header.encode() + bytes([12, 8]) + words.tobytes())
    return path


def structured(names=("x", "y", "t", "p"), p=P):
    columns = dict(zip(("x", "y", "t", "p"), (X, Y, T, p), strict=True))
    array = np.zeros(5, [(name, columns[key].dtype) for name, key in zip(names, columns, strict=True)])
    for name, key in zip(names, columns, strict=True):
        array[name] = columns[key]
    return array


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("polarity", [2 * P - 1, P])
def test_est_npy_is_seconds_and_either_polarity_coding(tmp_path, dtype, polarity):
    events, sensor = read_events(write_est(tmp_path / "a.npy", dtype=dtype, p=polarity))
    assert sensor is None
    np.testing.assert_array_equal(events, expected())


def test_est_npy_in_microseconds_is_told_from_seconds(tmp_path):
    np.testing.assert_array_equal(read_events(write_est(tmp_path / "a.npy", t=T))[0], expected())


def test_a_unit_that_cannot_be_told_names_its_setting(tmp_path):
    path = write_est(tmp_path / "a.npy", t=np.arange(5))
    with pytest.raises(RecordingError, match="time_unit"):
        read_events(path)
    np.testing.assert_array_equal(read_events(path, time_unit="ms")[0]["t"], 1000 * np.arange(5))


@pytest.mark.parametrize("names", [("x", "y", "t", "p"), ("x", "y", "timestamp", "polarity")])
@pytest.mark.parametrize("polarity", [P, 2 * P - 1, P.astype(bool)])
def test_structured_npy_and_nimagenet_npz(tmp_path, names, polarity):
    array = structured(names, polarity)
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", event_data=array)
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(read_events(tmp_path / name)[0], expected())


def test_atis_bin(tmp_path):
    path = write_bin(tmp_path / "a.bin", zip(T, X, Y, P, strict=True))
    np.testing.assert_array_equal(read_events(path)[0], expected())


def test_an_overflow_of_atis_moves_the_clock_on(tmp_path):
    path = write_bin(tmp_path / "a.bin", [(5, 1, 2, 1), (0, 0, 240, 0), (7, 3, 4, 0), (0, 0, 240, 0), (9, 5, 6, 1)])
    events, _ = read_events(path)
    np.testing.assert_array_equal(events["t"], [5, 7 + 8192, 9 + 2 * 8192])
    np.testing.assert_array_equal(events["x"], [1, 3, 5])


def test_prophesee_dat_with_and_without_a_sensor_in_its_header(tmp_path):
    events, sensor = read_events(write_dat(tmp_path / "a.dat"))
    np.testing.assert_array_equal(events, expected())
    assert sensor == (180, 240)
    assert read_events(write_dat(tmp_path / "b.dat", "% Version 2\n"))[1] is None


def test_the_format_can_be_told_by_name(tmp_path):
    path = tmp_path / "a.events"
    path.write_bytes(write_bin(tmp_path / "a.bin", zip(T, X, Y, P, strict=True)).read_bytes())
    with pytest.raises(RecordingError, match="suffix of no known format"):
        read_events(path)
    np.testing.assert_array_equal(read_events(path, "bin")[0], expected())
    with pytest.raises(UserError, match="one of npy"):
        read_events(path, "avi")


def nan_time(path):
    write_est(path, t=np.array([0.0, 0.1, np.nan, 0.3, 0.4]))


def backwards(path):
    write_est(path, t=np.array([0.0, 0.2, 0.1, 0.3, 0.4]))


def fraction_of_a_pixel(path):
    write_est(path, x=X + np.array([0, 0, 0.5, 0, 0]))


def negative(path):
    write_est(path, x=X - np.array([0, 0, 30, 0, 0]))


def polarity_of_two(path):
    write_est(path, p=np.array([1, 0, 2, 1, 1]))


def three_columns(path):
    np.save(path, np.zeros((5, 3)))


def missing_field(path):
    np.save(path, structured()[["x", "y", "t"]])


def cut_short(path):
    write_est(path)
    path.write_bytes(path.read_bytes()[:-20])


def pickled(path):
    np.save(path, np.array([{"x": 1}], dtype=object), allow_pickle=True)


def empty(path):
    path.touch()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (nan_time, "t = nan at row 2"),
        (backwards, "backwards in time at row 2"),
        (fraction_of_a_pixel, "x = 17.5 at row 2"),
        (negative, "x = -13"),
        (polarity_of_two, "p = 2.0 at row 2"),
        (three_columns, r"shape \(5, 3\)"),
        (missing_field, "none for p"),
        (cut_short, "no whole .npy file"),
        (pickled, "no whole .npy file"),
        (empty, "empty file"),
    ],
)
def test_a_damaged_npy_is_told_with_path_and_cause(tmp_path, damage, message):
    path = tmp_path / "a.npy"
    damage(path)
    with pytest.raises(RecordingError, match=message) as caught:
        read_events(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_told_with_path_and_byte(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", event_data=structured())
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-40])
    np.savez(tmp_path / "two.npz", a=T, b=T)
    (tmp_path / "cut.bin").write_bytes(b"1234567")
    dat = write_dat(tmp_path / "a.dat").read_bytes()
    (tmp_path / "cut.dat").write_bytes(dat[:-3])
    (tmp_path / "rubbish.dat").write_bytes(b"\x00\x01 rubbish")
    (tmp_path / "header.dat").write_bytes(b"% only a header")
    (tmp_path / "type.dat").write_bytes(b"% x\n\x0e\x04" + b"0" * 8)
    for name, message in {
        "cut.npz": "no whole .npz file",
        "two.npz": "expected one called event_data",
        "cut.bin": "at byte 5",
        "cut.dat": "in the middle of an event at byte",
        "rubbish.dat": "does not begin with a %",
        "header.dat": "inside its header",
        "type.dat": "type 14 and 4 bytes",
        "absent.bin": "No such file",
    }.items():
        with pytest.raises(RecordingError, match=message) as caught:
            read_events(tmp_path / name)
        assert name in str(caught.value)


@pytest.mark.shared
def test_the_shared_recordings_decode_to_their_known_counts(shared):
    recordings = shared / "data" / "recordings"
    face, _ = read_events(recordings / "n-caltech101" / "Faces_easy" / "image_0001.bin")
    assert len(face) == 67_445
    assert face["x"].max() < 240
    assert face["y"].max() < 180
    car, sensor = read_events(recordings / "n-cars" / "cars" / "obj_004415_td.dat")
    assert (len(car), sensor) == (4_977, None)
    assert 90_000 < car["t"][-1] - car["t"][0] <= 100_000
