"""iniVation's files: one stream of them is read, and no size that a damaged file states is believed."""

import struct
import subprocess
import sys

import numpy as np
import pytest

from eventclip.errors import RecordingError
from eventclip.io.formats import open_stream, read_events
from eventclip.io.limits import NoFrameError, lz4_unpacked, zstd_unpacked

pytest.importorskip("aedat", reason="the extra `aedat` is not installed")
COMPRESSIONS = {"none": 0, "LZ4": 1, "Zstandard": 3}


def two_cameras(encoders, **how):
    left, right = encoders.made(500), encoders.made(150, seed=1)
    return {"left": left, "right": right}, encoders.aedat4({"left": left, "right": right}, **how)


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_a_stream_is_read_in_every_packing(tmp_path, encoders, compression, told):
    path = tmp_path / "a.aedat4"
    path.write_bytes(encoders.aedat4({"events": encoders.made()}, compression=compression, told=told))
    events, sensor = read_events(path)
    np.testing.assert_array_equal(events, encoders.made())
    assert sensor == (180, 240)
    pieces = list(open_stream(path, chunk_events=100).chunks)
    np.testing.assert_array_equal(np.concatenate(pieces), events)


@pytest.mark.parametrize(("wanted", "name"), [("left", "left"), ("right", "right"), ("0", "left"), ("1", "right")])
def test_one_of_several_streams_is_chosen_by_name_or_number(tmp_path, encoders, wanted, name):
    streams, content = two_cameras(encoders)
    (tmp_path / "a.aedat4").write_bytes(content)
    events, _ = read_events(tmp_path / "a.aedat4", stream=wanted)
    np.testing.assert_array_equal(events, streams[name])


@pytest.mark.parametrize("wanted", [None, "both"])
def test_streams_are_listed_where_none_is_chosen(tmp_path, encoders, wanted):
    (tmp_path / "a.aedat4").write_bytes(two_cameras(encoders)[1])
    with pytest.raises(RecordingError, match=r"choose one of 0 \(left\), 1 \(right\) by its number or name") as caught:
        read_events(tmp_path / "a.aedat4", stream=wanted)
    remedy = str(caught.value).rsplit("such as stream=", 1)[1]
    assert len(read_events(tmp_path / "a.aedat4", stream=remedy)[0]) == 500


def test_names_of_streams_are_told_in_one_line(tmp_path, encoders):
    (tmp_path / "a.aedat4").write_bytes(encoders.aedat4({"a\nb\t": encoders.made(10), "c" * 999: encoders.made(10)}))
    with pytest.raises(RecordingError, match=r"choose one of 0 \('a\\nb\\t'\), 1 \(c{37}\.\.\.\) by") as caught:
        read_events(tmp_path / "a.aedat4")
    assert "\n" not in str(caught.value)


def test_packets_of_other_streams_are_not_looked_into(tmp_path, encoders):
    content = encoders.aedat4({"events": encoders.made(100)}, told=False)
    frame = struct.pack("<II", 7, 1000) + b"\xff" * 1000
    (tmp_path / "a.aedat4").write_bytes(content + frame)
    assert len(read_events(tmp_path / "a.aedat4")[0]) == 100


@pytest.mark.parametrize("version", ["1.0", "2.0", "3.1"])
def test_older_aedat_is_told_with_its_version(tmp_path, version):
    for name in ("a.aedat4", "a.aedat"):
        (tmp_path / name).write_bytes(b"#!AER-DAT" + version.encode() + b"\r\n# This is a raw AE data file\r\n")
        with pytest.raises(RecordingError, match=f"is a recording of AEDAT {version}: expected AEDAT 4.0"):
            read_events(tmp_path / name)


def test_the_extra_that_is_missing_is_named(tmp_path, encoders, monkeypatch):
    (tmp_path / "a.aedat4").write_bytes(encoders.aedat4({"events": encoders.made(10)}))
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(RecordingError, match=r"pip install eventclip\[aedat\]"):
        read_events(tmp_path / "a.aedat4")


def replaced(content, old, new):
    assert content.count(old) == 1
    return content.replace(old, new)


DAMAGES = {
    "no header": (lambda c: c[:16], "its header is said to have"),
    "a long header": (lambda c: c[:14] + b"\xff\xff\xff\x7f" + c[18:], "its header is said to have 2147483647 bytes"),
    "a table outside": (lambda c: c[:18] + b"\0\0\0\x80" + c[22:], "points beyond itself"),
    "a text outside": (lambda c: replaced(c, b'<dv version="2.0">', b"\xff" * 18), "is no XML"),
    "entities": (lambda c: replaced(c, b'<dv version="2.0">', b"<!DOCTYPE a>".ljust(18)), "defines entities"),
    "no events": (lambda c: replaced(c, b">EVTS<", b">FRME<"), "holds no stream of events"),
    "a name for a number": (lambda c: replaced(c, b'node name="0"', b'node name="x"'), "has the number x"),
    "cut in a packet": (lambda c: c[:-1500], "packets end at byte"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_told(tmp_path, encoders, damage, message):
    (tmp_path / "a.aedat4").write_bytes(damage(encoders.aedat4({"events": encoders.made(300)})))
    with pytest.raises(RecordingError, match=message):
        read_events(tmp_path / "a.aedat4")


@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_a_packet_of_any_stated_size_takes_no_memory(tmp_path, encoders, compression):
    content = encoders.aedat4({"events": encoders.made(300)}, compression=compression, told=False)
    packet = encoders.aedat4_packet(0, encoders.made(300)[:100], compression)
    place = content.index(packet)
    for size in (1, 2_000, 1 << 31, (1 << 32) - 1):
        damaged = content[: place + 4] + struct.pack("<I", size) + content[place + 8 :]
        (tmp_path / "a.aedat4").write_bytes(damaged)
        with pytest.raises(RecordingError, match="no whole aedat4 file"):
            read_events(tmp_path / "a.aedat4")


def bomb(encoders, frame):
    head = encoders.aedat4({"events": encoders.made(0)}, compression=1 if frame[:1] == b"\x04" else 3, told=False)
    return head + struct.pack("<II", 0, len(frame)) + frame


LZ4_BOMB = b"\x04\x22\x4d\x18\x40\x70\xdf" + (struct.pack("<I", 20_000) + b"\xff" * 20_000) * 40 + bytes(4)
ZSTD_RLE = b"\x28\xb5\x2f\xfd\x00\x58" + (((1 << 17) << 3 | 1 << 1).to_bytes(3, "little") + b"a") * 20_000 + b"\1\0\0"


@pytest.mark.parametrize("frame", [LZ4_BOMB, ZSTD_RLE], ids=["LZ4", "Zstandard"])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, encoders, frame):
    (tmp_path / "a.aedat4").write_bytes(bomb(encoders, frame))
    with pytest.raises(RecordingError, match=r"of \d+ bytes would unpack to \d+: copy it again"):
        read_events(tmp_path / "a.aedat4")


def test_frames_tell_what_they_unpack_to(encoders):
    content = bytes(200_000)
    assert lz4_unpacked(encoders.lz4(content)) == zstd_unpacked(encoders.zstd(content)) == 200_000
    assert lz4_unpacked(encoders.lz4(b"") * 3) == zstd_unpacked(encoders.zstd(b"") * 0) == 0
    for unpacked, frame in ((lz4_unpacked, encoders.lz4(content)), (zstd_unpacked, encoders.zstd(content))):
        for broken in (frame[:-1], frame[:100], frame[:5], b"a" + frame, frame + b"\0"):
            with pytest.raises(NoFrameError):
                unpacked(broken)


INFLATED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3_000_000_000,) * 2)
from eventclip.errors import RecordingError
from eventclip.io.formats import read_events
for path in sys.argv[1:]:
    try:
        read_events(path)
    except RecordingError as error:
        print(error)
print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")])
"""


def test_inflated_lengths_end_no_process_under_a_memory_limit(tmp_path, encoders):
    content = encoders.aedat4({"events": encoders.made(100)}, told=False)
    packet = content.index(encoders.aedat4_packet(0, encoders.made(100), 0))
    paths = []
    for place in (14, 18, packet + 4, packet + 8 + 28):  # lengths: the header's, its table's place, a packet's, events
        paths.append(tmp_path / f"{place}.aedat4")
        paths[-1].write_bytes(content[:place] + b"\xf0\xff\xff\xff" + content[place + 4 :])
    done = subprocess.run(
        [sys.executable, "-c", INFLATED, *paths], capture_output=True, text=True, check=False, timeout=60
    )
    *told, peak = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert len(told) == 4
    assert int(peak) < 1 << 20  # KiB
    assert all(line.startswith(str(path)) for line, path in zip(told, paths, strict=True))


@pytest.mark.shared
def test_the_shared_recording_is_read_with_its_sensor(shared, tmp_path):
    path = shared / "data" / "recordings" / "aedat4" / "sample.aedat4"
    events, sensor = read_events(path)
    assert (len(events), sensor, events["t"][0]) == (6_676, (260, 346), 1_589_163_147_368_868)
    for size, message in ((200_000, "no whole aedat4 file"), (5, "no whole aedat4 file"), (0, "empty file")):
        (tmp_path / "cut.aedat4").write_bytes(path.read_bytes()[:size])
        with pytest.raises(RecordingError, match=message):
            read_events(tmp_path / "cut.aedat4")


def test_the_shared_file_of_two_streams_is_read_by_name(golden_folder):
    path = golden_folder / "cases" / "dv_two.aedat4"
    events, _ = read_events(path, stream="events")
    assert (len(events), events["t"][0]) == (500, 1_700_000_000_000_000)
    assert len(read_events(path, stream="1")[0]) == 50
