"""Read in pieces, a recording of any format is the one that is read whole, and no longer one takes more memory."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE
from eventclip.io.formats import open_stream, read_events, readable_suffixes


def made(count=1000, seed=0):
    rng = np.random.default_rng(seed)
    events = np.zeros(count, EVENT_DTYPE)
    events["t"] = np.sort(rng.integers(0, 500_000, count))
    events["x"], events["y"] = rng.integers(0, 240, count), rng.integers(0, 180, count)
    events["p"] = rng.integers(0, 2, count)
    return events


def est(events, dtype=np.float64):
    return np.stack([events["x"], events["y"], events["t"] / 1e6, 2.0 * events["p"] - 1], axis=1).astype(dtype)


def write_npy(folder, events, encoders):
    yield np.save(folder / "est.npy", est(events)) or "est.npy"
    yield np.save(folder / "fortran.npy", np.asfortranarray(est(events, np.float32))) or "fortran.npy"
    yield np.save(folder / "structured.npy", events) or "structured.npy"
    np.savez(folder / "archive.npz", event_data=events)
    yield "archive.npz"


def write_hdf5(folder, events, encoders):
    with h5py.File(folder / "columns.h5", "w") as file:
        for name in "txyp":
            file[f"events/{name}"] = events[name]
        file["events"].attrs["sensor_resolution"] = (180, 240)
    with h5py.File(folder / "matrix.hdf5", "w") as file:
        file["events"] = est(events)
    yield from ("columns.h5", "matrix.hdf5")


def write_text(folder, events, encoders):
    whole = np.stack([events[name] for name in "txyp"], axis=1)
    np.savetxt(folder / "named.csv", whole, "%d", ",", header="t,x,y,p", comments="")
    np.savetxt(folder / "plain.txt", est(events)[:, [2, 0, 1, 3]], "%.6f %d %d %d")
    lines = [f"{t / 1e6 if number else 0} {x} {y} {p}" for number, (t, x, y, p) in enumerate(whole.tolist())]
    (folder / "whole_at_first.txt").write_text("\n".join(lines) + "\n")
    yield from ("named.csv", "plain.txt", "whole_at_first.txt")


def write_cameras(folder, events, encoders):
    (folder / "atis.bin").write_bytes(encoders.atis(events))
    (folder / "a.dat").write_bytes(encoders.dat(events))
    (folder / "evt2.raw").write_bytes(encoders.raw(encoders.evt2(events)))
    (folder / "evt3.raw").write_bytes(encoders.raw(encoders.evt3(events)))
    words = encoders.evt3(events)
    (folder / "triggers.raw").write_bytes(encoders.raw(np.insert(words, np.arange(0, len(words), 40), 0xA001)))
    yield from ("atis.bin", "a.dat", "evt2.raw", "evt3.raw", "triggers.raw")


@pytest.mark.parametrize("write", [write_npy, write_hdf5, write_text, write_cameras])
@pytest.mark.parametrize("chunk_events", [64, 1000, 5000])
def test_pieces_together_are_the_recording(tmp_path, encoders, write, chunk_events):
    for name in write(tmp_path, made(), encoders):
        whole, sensor_hw = read_events(tmp_path / name)
        stream = open_stream(tmp_path / name, chunk_events=chunk_events)
        pieces = list(stream.chunks)
        np.testing.assert_array_equal(np.concatenate(pieces), whole, err_msg=name)
        assert all(piece.dtype == EVENT_DTYPE for piece in pieces), name
        assert stream.sensor_hw == sensor_hw, name
        assert stream.total in (None, len(whole)), name
        assert len(pieces) > 10 if chunk_events == 64 else len(pieces) <= 2, name


@pytest.mark.shared
def test_the_shared_recordings_come_in_pieces_too(shared):
    paths = [p for p in (shared / "data" / "recordings").rglob("*") if p.suffix in readable_suffixes()]
    chosen = {p.suffix: p for p in paths} | {p.name: p for p in paths if p.suffix in (".raw", ".hdf5")}
    assert len(chosen) >= 6
    for path in chosen.values():
        whole, sensor_hw = read_events(path)
        stream = open_stream(path, chunk_events=5000)
        np.testing.assert_array_equal(np.concatenate(list(stream.chunks)), whole, err_msg=str(path))
        assert stream.sensor_hw == sensor_hw


@pytest.mark.parametrize("name", ["a.bin", "a.dat", "a.raw", "a.npy", "a.h5", "a.csv", "a.aedat4"])
def test_what_is_no_recording_is_told_with_its_path(tmp_path, name):
    (tmp_path / name).write_bytes(b"nonsense")
    for content in (b"nonsense", b""):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RecordingError, match=name) as whole:
            read_events(tmp_path / name)
        with pytest.raises(RecordingError) as pieces:
            list(open_stream(tmp_path / name).chunks)
        assert str(pieces.value) == str(whole.value)


def test_a_flaw_in_a_later_piece_is_told_with_its_place(tmp_path):
    events = made()
    events["x"][700] = -3
    np.save(tmp_path / "a.npy", events)
    with pytest.raises(RecordingError, match=r"a\.npy has x = -3 at row 700: expected"):
        list(open_stream(tmp_path / "a.npy", chunk_events=100 * 6).chunks)


def test_time_running_backwards_between_two_pieces_is_told(tmp_path):
    events = made()
    events["t"][500:] -= 400_000
    np.save(tmp_path / "a.npy", events)
    with pytest.raises(RecordingError, match=r"backwards in time at row 500, from .*sort=true"):
        list(open_stream(tmp_path / "a.npy", chunk_events=500).chunks)


PEAK = r"""
import re, sys
from pathlib import Path
from eventclip.io.formats import open_stream
from eventclip.events.windows import SlidingWindow
for path in sys.argv[1:]:
    stream = open_stream(path, chunk_events=1 << 16)
    windows = sum(1 for _ in SlidingWindow(events=20_000)(stream.chunks))
    print(windows, re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".npy", ".dat", ".raw", ".bin", ".h5", ".csv"])
def test_ten_times_the_events_take_no_more_memory(tmp_path, encoders, suffix):
    counts = (200_000, 1_600_000 if suffix == ".csv" else 4_000_000 if suffix == ".h5" else 2_000_000)
    paths = []
    for count in counts:
        path = Path(tmp_path, f"{count}{suffix}")
        events = made(count)
        if suffix == ".npy":
            np.save(path, events)
        elif suffix == ".h5":
            with h5py.File(path, "w") as file:
                for name in "txyp":
                    file.create_dataset(f"events/{name}", data=events[name], chunks=(1 << 15,), compression="lzf")
        elif suffix == ".csv":
            rows = np.stack([events[name] for name in "txyp"], axis=1)[:100_000]
            rows[:, 0] = 0
            with path.open("wb") as file:
                np.savetxt(file, rows, "%d", ",", header="t,x,y,p")
            block = path.read_bytes().split(b"\n", 1)[1]
            with path.open("ab") as file:
                file.writelines([block] * (count // len(rows) - 1))
        elif suffix == ".dat":
            path.write_bytes(encoders.dat(events))
        else:
            path.write_bytes(encoders.atis(events) if suffix == ".bin" else encoders.raw(encoders.evt2(events)))
        paths.append(path)
    done = subprocess.run([sys.executable, "-c", PEAK, *paths], capture_output=True, text=True, check=True)
    windows, peaks = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert windows == tuple(count // 20_000 for count in counts)
    held = 32_000 if suffix == ".h5" else 8_000  # HDF5 keeps an index of what it has read
    assert peaks[1] - peaks[0] < held  # KiB; the events themselves are 21 MiB more, in HDF5 58
