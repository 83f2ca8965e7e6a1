"""Prophesee's, ATIS's and iniVation's own files: known words decode to known events, and damage is told by its byte."""

import contextlib
import sys

import numpy as np
import pytest
from eventclip.events.readers import read_events

from eventclip.errors import RecordingError
from eventclip.events.array import events_from_columns

T = [100_000, 100_005, 100_005, 104_200, 110_000]
X = [3, 639, 200, 201, 0]
Y = [7, 479, 100, 100, 0]
P = [1, 0, 1, 1, 0]
EXPECTED = events_from_columns(T, X, Y, P)
HEADER_2 = b"% camera_integrator_name Prophesee\n% evt 2.0\n% format EVT2;height=480;width=640\n% end\n"
HEADER_3 = b"% evt 3.0\n% geometry 640x480\n"


def evt2_words():
    words = []
    for t, x, y, p in zip(T, X, Y, P, strict=True):
        words += [0x8 << 28 | t >> 6, p << 28 | (t & 63) << 22 | x << 11 | y]
    return words


def evt3_words():
    """The same events; the two on one row as a vector with two bits, the rest one by one."""
    words, high = [], None
    for t, x, y, p in zip(T, X, Y, P, strict=True):
        if t >> 12 != high:
            high = t >> 12
            words.append(0x8000 | high)
        words += [0x6000 | t & 0xFFF, y, 0x2000 | p << 11 | x]
    return words


def write_raw(path, header, words, kind):
    path.write_bytes(header + np.array(words, kind).tobytes())
    return path


def test_evt2(tmp_path):
    events, sensor = read_events(write_raw(tmp_path / "a.raw", HEADER_2, evt2_words(), "<u4"))
    np.testing.assert_array_equal(events, EXPECTED)
    assert sensor == (480, 640)
    assert read_events(write_raw(tmp_path / "b.raw", b"% evt 2.0\n", evt2_words(), "<u4"))[1] is None


def test_evt3_events_one_by_one(tmp_path):
    events, sensor = read_events(write_raw(tmp_path / "a.raw", HEADER_3, evt3_words(), "<u2"))
    for name in ("x", "y", "p"):
        np.testing.assert_array_equal(events[name], EXPECTED[name])
    np.testing.assert_array_equal(events["t"][:3], T[:3])
    assert sensor == (480, 640)


def test_evt3_vectors_hold_one_event_a_bit(tmp_path):
    words = [0x8018, 0x6006, 0x0064, 0x3800 | 40, 0x4000 | 0b1000_0000_0001, 0x5000 | 0b0000_0110, 0x3000 | 5, 0x5001]
    events, _ = read_events(write_raw(tmp_path / "a.raw", HEADER_3, words, "<u2"))
    np.testing.assert_array_equal(events["x"], [40, 51, 53, 54, 5])
    np.testing.assert_array_equal(events["p"], [1, 1, 1, 1, 0])
    assert set(events["y"].tolist()) == {100}


def test_triggers_are_no_events_and_no_obstacle(tmp_path):
    words = evt3_words()
    with_trigger = [*words[:4], 0xA001, *words[4:]]
    plain, _ = read_events(write_raw(tmp_path / "a.raw", HEADER_3, words, "<u2"))
    np.testing.assert_array_equal(read_events(write_raw(tmp_path / "b.raw", HEADER_3, with_trigger, "<u2"))[0], plain)


@pytest.mark.parametrize(("header", "kind", "filler"), [(HEADER_2, "<u4", 0xE0000025), (HEADER_3, "<u2", 0xE025)])
def test_data_that_begin_like_a_header_line_lose_nothing(tmp_path, header, kind, filler):
    words = evt2_words() if kind == "<u4" else evt3_words()
    plain, _ = read_events(write_raw(tmp_path / "a.raw", header, words, kind))
    assert len(plain) == 5
    np.testing.assert_array_equal(read_events(write_raw(tmp_path / "b.raw", header, [filler, *words], kind))[0], plain)


@pytest.mark.parametrize("name", ["a.RAW", "a.events"])
def test_the_decoder_does_not_insist_on_its_suffix(tmp_path, name):
    events, _ = read_events(write_raw(tmp_path / name, HEADER_2, evt2_words(), "<u4"), "raw")
    np.testing.assert_array_equal(events, EXPECTED)


def test_a_whole_file_without_events_is_no_error(tmp_path):
    events, sensor = read_events(write_raw(tmp_path / "a.raw", HEADER_2, [0x80000001], "<u4"))
    assert (len(events), sensor) == (0, (480, 640))
    (tmp_path / "a.dat").write_bytes(b"% Version 2\n\x0c\x08")
    assert len(read_events(tmp_path / "a.dat")[0]) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\x01\x02\x03", "does not begin with a %"),
        (b"% evt 2.1\n" + bytes(8), "encoding is 2.1: expected EVT2 or EVT3"),
        (b"% Date 2020\n" + bytes(8), "encoding is nothing"),
        (b"% evt 2.0", "inside its header"),
        (HEADER_2 + bytes(6), f"in the middle of an event at byte {len(HEADER_2) + 4}"),
        (HEADER_3 + bytes(5), f"in the middle of an event at byte {len(HEADER_3) + 4}"),
        (HEADER_2 + bytes(4) + b"\0\0\0\x50", f"type 0x5 at byte {len(HEADER_2) + 4}"),
        (HEADER_3 + b"\0\0\0\x10", f"type 0x1 at byte {len(HEADER_3) + 2}"),
        (HEADER_2 + np.array(evt2_words()[::-1], "<u4").tobytes(), "backwards in time at row"),
        (HEADER_2 + np.array([0x80000001, 700 << 11], "<u4").tobytes(), "x=700, y=0 lies outside the sensor of 480"),
    ],
)
def test_a_damaged_raw_is_told(tmp_path, content, message):
    (tmp_path / "a.raw").write_bytes(content)
    with pytest.raises(RecordingError, match=message) as caught:
        read_events(tmp_path / "a.raw")
    assert str(tmp_path / "a.raw") in str(caught.value)


def write_dat(path, t, header=b"% Data file containing CD events\n% Version 2\n"):
    words = np.stack([t, np.arange(len(t))], axis=1).astype("<u4")
    path.write_bytes(header + bytes([12, 8]) + words.tobytes())
    return path


def test_a_dat_runs_over_after_32_bits_but_not_backwards(tmp_path):
    events, _ = read_events(write_dat(tmp_path / "a.dat", [2**32 - 10, 2**32 - 1, 5]))
    np.testing.assert_array_equal(np.diff(events["t"]), [9, 6])
    with pytest.raises(RecordingError, match="backwards in time at row 2"):
        read_events(write_dat(tmp_path / "b.dat", [10, 20, 15, 30]))
    with pytest.raises(RecordingError, match="version 1: expected version 2"):
        read_events(write_dat(tmp_path / "c.dat", [1, 2], b"% Version 1\n"))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["raw2", "raw3", "dat", "bin"])
def test_rubbish_is_read_or_told_but_never_escapes(tmp_path, kind, seed):
    rng = np.random.default_rng(seed)
    header = {"raw2": HEADER_2, "raw3": HEADER_3, "dat": b"% Version 2\n\x0c\x08", "bin": b""}[kind]
    for size in (0, 1, 7, 40, 400):
        path = tmp_path / f"a.{kind[:3]}"
        path.write_bytes(header + rng.integers(0, 256, size, dtype=np.uint8).tobytes())
        with contextlib.suppress(RecordingError):
            events, _ = read_events(path)
            assert (np.diff(events["t"]) >= 0).all()


def test_the_shared_raw_recordings_are_decoded_whole(shared):
    folder = shared / "data" / "recordings" / "prophesee"
    evt3, _ = read_events(folder / "evt3_sample.raw")
    decoded, _ = read_events(folder / "evt3_sample.npy")
    assert len(evt3) == 219_596
    np.testing.assert_array_equal(evt3, decoded)
    assert len(read_events(folder / "evt2_sample.raw")[0]) == 539_481


def test_the_shared_aedat4_is_read_with_its_sensor(shared, tmp_path):
    pytest.importorskip("aedat", reason="the extra `aedat` is not installed")
    path = shared / "data" / "recordings" / "aedat4" / "sample.aedat4"
    events, sensor = read_events(path)
    assert (len(events), sensor) == (6_676, (260, 346))
    assert events["t"][0] == 1_589_163_147_368_868
    for size, message in ((200_000, "no whole aedat4 file"), (5, "no whole aedat4 file"), (0, "empty file")):
        (tmp_path / "cut.aedat4").write_bytes(path.read_bytes()[:size])
        with pytest.raises(RecordingError, match=message):
            read_events(tmp_path / "cut.aedat4")


def test_aedat4_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aedat", None)
    (tmp_path / "a.aedat4").write_bytes(b"#!AER-DAT4.0\r\n")
    with pytest.raises(RecordingError, match=r"pip install eventclip\[aedat\]"):
        read_events(tmp_path / "a.aedat4")
