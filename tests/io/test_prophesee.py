"""Prophesee's own files: known words decode to known events and times, and damage is told by its byte."""

import numpy as np
import pytest

from eventclip.errors import RecordingError
from eventclip.events.array import events_from_columns
from eventclip.io.formats import ReadOptions, open_stream, read_events

T = [100_000, 100_005, 100_005, 104_200, 110_000]
X = [3, 639, 200, 201, 0]
Y = [7, 479, 100, 100, 0]
P = [1, 0, 1, 1, 0]
EXPECTED = events_from_columns(T, X, Y, P)
EVT2, EVT3 = b"% evt 2.0\n% end\n", b"% evt 3.0\n% end\n"
ENCODINGS = ["evt2", "evt3"]


@pytest.fixture
def read(tmp_path):
    """Write a file, read it whole and in pieces of 40, which must be the same; gives events and notes."""

    def read_both(content, name="a.raw", **options):
        path = tmp_path / name
        path.write_bytes(content)
        sensor_hw = options.pop("sensor_hw", None)
        stream = open_stream(path, ReadOptions(**options), sensor_hw=sensor_hw, chunk_events=40)
        pieces = list(stream.chunks)
        assert all(0 < len(piece) <= 40 + 31 for piece in pieces)
        kind = options.pop("file_format", None)
        events, sensor = read_events(path, kind, sensor_hw=sensor_hw, **options)
        assert stream.sensor_hw == sensor
        if pieces:
            np.testing.assert_array_equal(np.concatenate(pieces), events)
        return events, sensor, stream.notes

    return read_both


def words(*values, kind="<u2", header=None):
    return (header or {"<u2": EVT3, "<u4": EVT2}[kind]) + np.array(values, kind).tobytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_words_decode_to_their_events(read, encoders, encoding):
    events, sensor, notes = read(encoders.raw(getattr(encoders, encoding)(EXPECTED)))
    np.testing.assert_array_equal(events, EXPECTED)
    assert (sensor, notes) == ((480, 640), [])
    silent = {"evt2": EVT2, "evt3": EVT3}[encoding]
    assert read(encoders.raw(getattr(encoders, encoding)(EXPECTED), silent))[1] is None


@pytest.mark.parametrize("details", ["", ";endianness=little", ";endianness=legacy"])
def test_evt21_has_a_bit_for_each_of_32_columns(read, encoders, details):
    vector = 1 << 60 | 63 << 54 | 64 << 43 | 9 << 32 | 0x80000003
    plain = np.concatenate([encoders.evt21(EXPECTED), np.array([vector], "<u8")])
    laid = plain << np.uint64(32) | plain >> np.uint64(32) if "legacy" in details else plain
    events, _, _ = read(f"% format EVT21;height=480;width=640{details}\n% end\n".encode() + laid.tobytes())
    np.testing.assert_array_equal(events[:5], EXPECTED)
    base = T[-1] // 64 * 64
    assert events[5:].tolist() == [(base + 63, 64, 9, 1), (base + 63, 65, 9, 1), (base + 63, 95, 9, 1)]


def test_evt21_without_a_format_line_has_the_upper_half_first(read, encoders):
    plain = encoders.evt21(EXPECTED)
    swapped = plain << np.uint64(32) | plain >> np.uint64(32)
    np.testing.assert_array_equal(read(b"% evt 2.1\n% end\n" + swapped.tobytes())[0], EXPECTED)


@pytest.mark.parametrize(("encoding", "bits"), [("evt2", 34), ("evt3", 24)])
def test_a_second_across_the_clocks_run_over_is_exact(read, encoders, encoding, bits):
    made = encoders.made(3000, sensor_hw=(480, 640), start=2**bits - 500_000, duration=1_000_000)
    assert made["t"][0] < 2**bits < made["t"][-1]
    np.testing.assert_array_equal(read(encoders.raw(getattr(encoders, encoding)(made)))[0], made)


def test_evt3_runs_over_as_often_as_a_recording_needs(read, encoders):
    made = encoders.made(2000, sensor_hw=(480, 640), start=100, duration=80_000_000)
    np.testing.assert_array_equal(read(encoders.raw(encoders.evt3(made)))[0], made)


def test_a_long_pause_is_no_run_over(read, encoders):
    made = EXPECTED.copy()
    made["t"][3:] += 10_000_000  # more than half of the 16.8 s that EVT3 counts
    np.testing.assert_array_equal(read(encoders.raw(encoders.evt3(made)))[0], made)


@pytest.mark.parametrize("start", [50, 4095])
def test_a_small_step_back_of_the_clock_is_no_run_over(read, start):
    steps = [(start + step) & 0xFFF for step in (0, 1, 0, 1, 2)]  # from 4095 on, back over the point of running over
    content = words(*(word for high in steps for word in (0x8000 | high, 0x6005, 7, 0x2003)))
    with pytest.raises(RecordingError, match=r"backwards in time at row 2.*sort=true"):
        read(content)
    events, _, notes = read(content, sort=True)
    np.testing.assert_array_equal(events["t"], (start + np.array([0, 0, 1, 1, 2])) * 4096 + 5)
    assert "1 of 5" in notes[0]


def test_a_new_upper_half_takes_the_lower_back_to_0(read):
    events, _, _ = read(words(0x8001, 0x6FFF, 5, 0x2001, 0x8001, 0x2002, 0x8002, 0x2003, 0x6001, 0x2004))
    assert events["t"].tolist() == [8191, 8191, 8192, 8193]


def test_vectors_hold_one_event_a_bit(read):
    content = words(0x8018, 0x6006, 0x64, 0x3800 | 40, 0x4801, 0x5006, 0x3000 | 5, 0x5001)
    events, _, _ = read(content)
    assert events["x"].tolist() == [40, 51, 53, 54, 5]
    assert events["p"].tolist() == [1, 1, 1, 1, 0]
    assert set(events["y"].tolist()) == {100}


def test_the_base_moves_on_by_12_12_and_8(read):
    events, _, _ = read(words(0x8000, 0x6001, 5, 0x3000 | 32, 0x4001, 0x4001, 0x5001, 0x4001, 0x4000, 0x5080))
    assert events["x"].tolist() == [32, 44, 56, 64, 64 + 12 + 12 + 7]


def test_a_single_event_leaves_the_vector_alone(read):
    events, _, _ = read(words(0x8000, 0x6001, 5, 0x3800 | 100, 0x2007, 0x4003))
    assert events.tolist() == [(1, 7, 5, 0), (1, 100, 5, 1), (1, 101, 5, 1)]


def test_a_vector_beyond_the_sensor_is_told(read, encoders):
    content = encoders.raw(np.array([0x8000, 0x6001, 5, 0x3000 | 636, 0x4FFF], "<u2"))
    with pytest.raises(RecordingError, match="x=640, y=5 lies outside the sensor of 480 rows and 640"):
        read(content)
    assert read(content, sensor_hw=(480, 648))[0]["x"].tolist() == list(range(636, 648))
    events, _, notes = read(content, drop_outside=True)
    assert events["x"].tolist() == [636, 637, 638, 639]
    assert "8 of 12" in notes[0]


def test_vectors_without_an_end_are_told(read):
    with pytest.raises(RecordingError, match="beyond column 32767 after event 2"):
        read(words(0x8000, 5, 0x2001, 0x3000, *[0x4000] * 2729, 0x4800, *[0x4FFF] * 3))


@pytest.mark.parametrize("other", [0x9999, 0x1000, 0x7005, 0x9123, 0xA001, 0xB000, 0xC000, 0xD000, 0xE025, 0xF000])
def test_words_that_are_no_events_are_passed_over_in_evt3(read, encoders, other):
    plain = encoders.evt3(EXPECTED)
    events, _, notes = read(encoders.raw(np.insert(plain, [0, 4, 9], other)))
    np.testing.assert_array_equal(events, EXPECTED)
    assert (notes == []) == (other == 0x9999 or other >> 12 in (0x7, 0xA, 0xE, 0xF))
    assert notes == [] or "3 words of types that EVT3 does not have" in notes[0]


@pytest.mark.parametrize("kind", [0x2, 0x9, 0xA, 0xB, 0xE, 0xF])
def test_words_that_are_no_events_are_passed_over_in_evt2(read, encoders, kind):
    plain = encoders.evt2(EXPECTED)
    events, _, notes = read(encoders.raw(np.insert(plain, [0, 4, 6], kind << 28 | 37)))
    np.testing.assert_array_equal(events, EXPECTED)
    assert (notes == []) == (kind in (0xA, 0xE, 0xF))


@pytest.mark.parametrize("kind", ["<u2", "<u4"])
def test_a_file_of_unknown_words_is_damaged(read, kind):
    bits = np.dtype(kind).itemsize * 8 - 4
    with pytest.raises(RecordingError, match=r"has 3 words of types that EVT[23] does not have among 5"):
        read(words(0x8 << bits, 5 << (bits - 4), *[0xB << bits] * 3, kind=kind))


def test_padding_may_be_most_of_a_file(read):
    assert read(words(0x8000, 0x6001, 5, 0x2007, *[0x9999] * 100))[0].tolist() == [(1, 7, 5, 0)]


def test_events_before_the_first_time_are_left_out_and_counted(read):
    events, _, notes = read(words(5, 0x2007, 0x3008, 0x5003, 0x8001, 0x6001, 0x2009))
    assert events.tolist() == [(4097, 9, 5, 0)]
    assert notes == ["3 events before the first word that tells the time were left out"]
    cd = [1 << 28 | number << 11 for number in range(3)]
    events, _, notes = read(words(*cd, 0x8 << 28 | 46_875_000, *cd, kind="<u4"))
    assert events["t"].tolist() == [3_000_000_000] * 3
    assert notes[0].startswith("3 events")


def test_a_file_without_any_time_is_told(read):
    with pytest.raises(RecordingError, match="has 1 events and no word that tells the time"):
        read(words(5, 0x2007))


def test_a_whole_file_without_events_is_no_error(read):
    events, sensor, _ = read(b"% evt 2.0\n% geometry 640x480\n% end\n" + np.array([0x80000001], "<u4").tobytes())
    assert (len(events), sensor) == (0, (480, 640))
    assert len(read(b"% Version 2\n\x0c\x08", "a.dat")[0]) == 0


LINES = {
    "UTF-8": "% camera_name caméra gauche 左\n".encode(),
    "Latin-1": "% comment salle à manger\n".encode("latin-1"),
    "Windows": b"% comment l\x92\x9cil \x80\n",
    "control characters": b"% comment \x01\x02\x7f\x1b[0m\n",
    "two line ends": b"% serial 7\r\n",
    "nothing": b"%\n% \n%\t\n",
    "no blank": b"%plugin_name hal\n",
    "a key twice": b"% geometry 9x9\n",
    "numbers": b"% 3 4\n% evt_rate 3.0\n",
}


@pytest.mark.parametrize("end", [b"% end\n", b"%end\r\n", b"% END\n", b""])
@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
@pytest.mark.parametrize("encoding", [*ENCODINGS, "dat"])
def test_a_header_line_may_hold_any_bytes(read, encoders, line, end, encoding):
    told = {"evt2": b"% evt 2.0\n", "evt3": b"% evt 3.0\n", "dat": b"% Version 2\n"}[encoding]
    header = line + told + line + b"% geometry 640x480\n" + end
    if encoding == "dat":
        content, name = encoders.dat(EXPECTED, header), "a.dat"
    else:
        content, name = encoders.raw(getattr(encoders, encoding)(EXPECTED), header), "a.raw"
    events, sensor, _ = read(content, name)
    np.testing.assert_array_equal(events, EXPECTED)
    assert sensor == (480, 640)


@pytest.mark.parametrize(
    "told",
    [
        "% geometry 640x480",
        "%geometry 640x480",
        "% Geometry: 640 x 480",
        "% GEOMETRY 640X480",
        "% Width 640\n% Height 480",
        "%WIDTH 640\r\n%height  480",
        "% format EVT3;height=480;width=640",
        "% Format EVT3; Width=640 ;Height=480\n% geometry 1x1",
    ],
)
def test_a_sensor_is_told_in_many_ways(read, encoders, told):
    content = encoders.raw(encoders.evt3(EXPECTED), f"% evt 3.0\n{told}\n% end\n".encode())
    assert read(content)[1] == (480, 640)


@pytest.mark.parametrize("told", ["% geometry 0x480", "% Width 99999999\n% Height 2", "% geometry wide", "% Width 640"])
def test_a_sensor_that_cannot_be_is_not_believed(read, encoders, told):
    _, sensor, notes = read(encoders.raw(encoders.evt3(EXPECTED), f"% evt 3.0\n{told}\n% end\n".encode()))
    assert sensor is None
    assert any("none has" in note for note in notes) == any(digit in told for digit in ("0x480", "9999"))


@pytest.mark.parametrize("encoding", ["% evt 3.0", "% EVT 3.0", "%evt 3", "% format EVT3", "% Format evt3;height=4"])
def test_an_encoding_is_told_in_many_ways(read, encoders, encoding):
    header = f"{encoding}\n% end\n".encode()
    np.testing.assert_array_equal(read(encoders.raw(encoders.evt3(EXPECTED), header))[0], EXPECTED)


@pytest.mark.parametrize("second", [0x8018, 0x2025, 0x0A41, 0x0A80, 0xE025, 0x6F20])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_data_that_begin_like_a_header_line_lose_nothing(read, encoders, second, encoding):
    plain = getattr(encoders, encoding)(EXPECTED)
    filler = [0xE025, 0xE000 | second & 0xFFF] if encoding == "evt3" else [0xE0000025 | second << 8]
    whole = np.concatenate([np.array(filler, plain.dtype), plain]).tobytes()
    for end in (b"", b"% end\n"):
        content = (b"% evt 2.0\n" if encoding == "evt2" else b"% evt 3.0\n") + end + whole
        np.testing.assert_array_equal(read(content)[0], EXPECTED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\x01\x02\x03", "does not begin with a %"),
        (b"% evt 4.0\n" + bytes(8), "encoding is 4.0: expected EVT2, EVT2.1 or EVT3"),
        (b"% format HISTO3D\n% end\n" + bytes(8), "encoding is HISTO3D"),
        (b"% Date 2020\n" + bytes(8), "encoding is nothing"),
        (b"% end\n" + bytes(8), "encoding is nothing"),
        (b"% evt \x1b[0m" + b"9" * 9999 + b"\n% end\n", r"encoding is '\\x1b\[0M9{29}\.\.\.: expected"),
        (b"% evt 3.0\n% geometry " + b"9" * 9999 + b"x1\n% end\n" + bytes(3), "in the middle of an event"),
        (b"% evt 2.0", "inside its header at byte 0"),
        (b"% evt 2.0\n% plugin", "inside its header at byte 10"),
        (b"% evt 2.0\n" + b"% a b\n" * 200_000, "header of more than 1 MiB"),
        (b"% evt 2.0\n% " + b"a" * 2_000_000, "header of more than 1 MiB"),
        (EVT2 + bytes(6), f"in the middle of an event at byte {len(EVT2) + 4}: expected 4 bytes"),
        (EVT3 + bytes(5), f"in the middle of an event at byte {len(EVT3) + 4}: expected 2 bytes"),
        (words(0x80000001, 1 << 11, 0x80000000, 1 << 11, kind="<u4"), "row 1, from 64 to 0 .*sort=true"),
    ],
)
def test_a_damaged_raw_is_told(tmp_path, content, message):
    (tmp_path / "a.raw").write_bytes(content)
    with pytest.raises(RecordingError, match=message) as caught:
        read_events(tmp_path / "a.raw")
    assert str(tmp_path / "a.raw") in str(caught.value)


def test_a_dat_runs_over_after_32_bits_exactly(read, encoders):
    made = encoders.made(2000, sensor_hw=(720, 1280), start=2**32 - 500_000, duration=1_000_000)
    np.testing.assert_array_equal(read(encoders.dat(made), "a.dat")[0], made)


def test_a_dat_with_a_pause_of_an_hour_is_no_run_over(read, encoders):
    made = encoders.made(90)
    for last in (2**31 + made["t"][-2] + 5, 2**32 - 1):
        made["t"][-1] = last
        np.testing.assert_array_equal(read(encoders.dat(made), "a.dat")[0], made)


@pytest.mark.parametrize("times", [[10, 20, 15, 30], [2**32 - 9, 2**32 - 5, 2, 2**32 - 4, 3]])
def test_a_dat_out_of_order_is_told_and_can_be_sorted(read, encoders, times):
    made = encoders.made(len(times))
    made["t"] = times
    with pytest.raises(RecordingError, match=r"backwards in time at row [23].*sort=true"):
        read(encoders.dat(made), "a.dat")
    events, _, _ = read(encoders.dat(made), "a.dat", sort=True)
    wanted = np.sort([t if t > 9 else t + (2**32 if len(times) == 5 else 0) for t in times])
    np.testing.assert_array_equal(events["t"], wanted)


@pytest.mark.parametrize("end", [b"", b"% end\n"])
@pytest.mark.parametrize("kind", [(0, 8), (12, 8)])
def test_a_dat_tells_its_sensor_and_its_number_of_events(tmp_path, encoders, kind, end):
    header = b"% Data file containing \xe9v\xe9nements\n% Height 180\n% Width 240\n" + end
    (tmp_path / "a.dat").write_bytes(encoders.dat(encoders.made(100), header, kind))
    stream = open_stream(tmp_path / "a.dat", chunk_events=30)
    assert (stream.sensor_hw, stream.total) == ((180, 240), 100)
    np.testing.assert_array_equal(np.concatenate(list(stream.chunks)), encoders.made(100))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"% Version 1\n\x0c\x08" + bytes(8), "version 1: expected version 2"),
        (b"% Version 2\n\x0e\x08" + bytes(8), "at byte 12 that its events have type 14 and 8 bytes"),
        (b"% Version 2\n\x0c\x10" + bytes(8), "type 12 and 16 bytes"),
        (b"% Version 2\n\x0c", "no type"),
        (b"% Version 2\n\x0c\x08" + bytes(12), "in the middle of an event at byte 22: expected 8 bytes"),
        (b"\x0c\x08" + bytes(8), "does not begin with a %"),
    ],
)
def test_a_damaged_dat_is_told(tmp_path, content, message):
    (tmp_path / "a.dat").write_bytes(content)
    with pytest.raises(RecordingError, match=message):
        read_events(tmp_path / "a.dat")


@pytest.mark.parametrize(("name", "kind"), [("a.RAW", None), ("a.events", "raw"), ("a.dat", "raw")])
def test_a_format_does_not_insist_on_its_suffix(read, encoders, name, kind):
    events, _, _ = read(encoders.raw(encoders.evt2(EXPECTED)), name, file_format=kind)
    np.testing.assert_array_equal(events, EXPECTED)


@pytest.mark.shared
def test_the_shared_recordings_last_as_long_as_they_do(shared):
    folder = shared / "data" / "recordings" / "prophesee"
    evt3, _ = read_events(folder / "evt3_sample.raw")
    decoded = np.load(folder / "evt3_sample.npy")
    assert len(evt3) == 219_596
    assert (evt3["t"][0], evt3["t"][-1]) == (11_718_656, 11_718_656 + 8_801)
    for name in "xyp":  # the times beside it are those of a decoder whose clock runs too fast
        np.testing.assert_array_equal(evt3[name], decoded[name])
    evt2, _ = read_events(folder / "evt2_sample.raw")
    assert (len(evt2), evt2["t"][-1] - evt2["t"][0]) == (539_481, 50_000)


CASES = {  # path, sensor, number of events, the first and the last time
    "evt3-time-stretched/evt3_one_second.raw": ((320, 320), 200, 100, 995_100),
    "evt3-vector-after-single/evt3_vec_after_single.raw": ((720, 1280), 3, 1, 1),
    "evt3-padding/evt3_padding.raw": ((720, 1280), 2, 1, 1),
    "evt-events-before-first-time/evt2_before_time.raw": ((480, 640), 20, 3_000_000_000, 3_000_001_900),
    "evt2-rollover/evt2_wrap34.raw": ((480, 640), 50, 17_179_849_184, 17_179_898_184),
    "header-not-ascii/ghost.raw": ((720, 1280), 60, 0, 3_540),
    "header-not-ascii/h_accent.raw": ((480, 640), 60, 0, 8_083),
    "R12-stream-differs/gap.dat": (None, 540, 0, 2**32 - 1),
}


@pytest.mark.parametrize(("path", "right"), CASES.items(), ids=CASES)
def test_the_shared_cases_have_their_right_answers(golden_folder, read, path, right):
    events, sensor, _ = read((golden_folder / "cases" / path.rsplit("/", 1)[1]).read_bytes(), path.rsplit("/", 1)[1])
    assert (sensor, len(events), events["t"][0], events["t"][-1]) == right


def test_an_event_outside_is_left_out_or_the_sensor_is_told(read, encoders):
    made = encoders.made(50, sensor_hw=(720, 1280))
    made["x"][7], made["y"][7] = 1308, 20
    content = encoders.dat(made, b"% Version 2\n% Height 720\n% Width 1280\n")
    with pytest.raises(RecordingError, match="Event 7 at x=1308, y=20 lies outside the sensor of 720 rows and 1280"):
        read(content, "a.dat")
    np.testing.assert_array_equal(read(content, "a.dat", sensor_hw=(720, 1309))[0], made)
    events, _, notes = read(content, "a.dat", drop_outside=True)
    np.testing.assert_array_equal(events, np.delete(made, 7))
    assert "1 of 50" in notes[0]
