"""``predict`` and ``show`` on the files that people have: clocks that jump, odd names, any order, two cameras."""

import csv
import io
import json
import os
import struct
import sys

import h5py
import numpy as np
import pytest

from eventclip import EventCLIP, ReadOptions
from eventclip.events import windows
from eventclip.predict import main as predict
from eventclip.show import main as show

MODEL = ("clip=tiny", "classes=[star,anchor]", "device=cpu", "progress=false")
KNOWN = "sensor_hw=[180,240]"


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def run(here, monkeypatch, capsys):
    """Type a command; gives its exit status, what it printed and what it said of mistakes."""

    def run_command(command, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        capsys.readouterr()
        try:
            command()
            status, told = 0, ""
        except SystemExit as stopped:
            status, told = (stopped.code, "") if isinstance(stopped.code, int) else (1, str(stopped.code))
        assert "\n" not in told
        said = capsys.readouterr()
        return status, said.out, told or said.err

    return run_command


def events_of(times, seed=0):
    """(N, 4) whole numbers t, x, y, p on 180x240 pixels."""
    rng = np.random.default_rng(seed)
    count = len(times)
    return np.stack([times, rng.integers(0, 240, count), rng.integers(0, 180, count), np.arange(count) % 2], axis=1)


def as_structured(table):
    named = np.zeros(len(table), [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
    for place, name in enumerate("txyp"):
        named[name] = table[:, place]
    return named


def rows_of(path):
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line]
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    ("times", "window_us", "rows"),
    [
        ([0, *range(1_461_581_614_000_137, 1_461_581_614_000_197)], 100_000, ["", "no events", ""]),
        ([*range(0, 9_000, 90), *range(3_600_000_000, 3_600_009_000, 90)], 10_000, ["", "no events", ""]),
    ],
)
def test_a_silence_is_one_row_and_no_work(run, here, monkeypatch, times, window_us, rows):
    np.save("gap.npy", as_structured(events_of(times)))
    made = []
    monkeypatch.setattr(windows, "Window", lambda *a, one=windows.Window: made.append(a) or one(*a))
    arguments = ("recordings=gap.npy", *MODEL, KNOWN, f"window_us={window_us}", "timeline=t.png", "out=w.csv")
    assert run(predict, *arguments)[0] == 0
    table = rows_of(here / "w.csv")
    assert [row["error"] for row in table] == rows
    assert len(made) == len(rows)
    assert sum(int(row["events"]) for row in table) == len(times)
    silent, last = table[1], table[2]
    assert (silent["events"], silent["label"]) == ("0", "")
    assert int(silent["start_us"]) == int(table[0]["end_us"]) == window_us
    assert int(silent["end_us"]) == int(last["start_us"])
    assert int(last["start_us"]) % window_us == 0  # the grid goes on
    assert (here / "t.png").read_bytes().startswith(b"\x89PNG")


def test_a_table_is_not_taken_for_a_recording(run, here):
    np.savez("a.npz", **dict(zip("txyp", events_of(range(50)).T, strict=True)))
    for _ in range(2):
        assert run(predict, "recordings=.", *MODEL, KNOWN, "out=predictions.csv")[0] == 0
        assert [row["recording"] for row in rows_of(here / "predictions.csv")] == ["a.npz"]
    assert run(predict, "recordings=*.*", *MODEL, KNOWN, "out=predictions.csv")[0] == 0
    status, _, said = run(predict, "recordings=.", *MODEL, KNOWN, "out=other.csv")
    assert status == 0
    assert "predictions.csv: a table that eventclip wrote, which is no recording, was left out" in said
    assert [row["recording"] for row in rows_of(here / "other.csv")] == ["a.npz"]


@pytest.mark.parametrize("asked", [".", "a.csv", "*.csv"])
def test_a_recording_is_not_written_over(run, here, asked):
    np.savetxt("a.csv", events_of(range(50)), "%d", delimiter=",", header="t,x,y,p", comments="")
    before = (here / "a.csv").read_bytes()
    status, _, told = run(predict, f"recordings={asked}", *MODEL, KNOWN, "out=a.csv")
    assert (status, told) == (
        1,
        "eventclip: out=a.csv is one of the recordings and would be written over: give another out=",
    )
    assert (here / "a.csv").read_bytes() == before


def test_text_that_is_no_recording_has_a_way_out_that_works(run, here):
    (here / "d").mkdir()
    np.save("d/a.npy", as_structured(events_of(range(50))))
    (here / "d" / "README.txt").write_text("Recorded on a sunny day.\n")
    status, _, told = run(predict, "recordings=d", *MODEL, KNOWN, "out=p.csv")
    assert status == 1
    assert told.startswith("eventclip: 1 of 2 recordings could not be classified: d/README.txt ")
    wayout = told.rpartition("such as '")[2].partition("'")[0]
    assert wayout == "recordings=d/*.npy"
    assert run(predict, wayout, *MODEL, KNOWN, "out=p.csv")[0] == 0
    _, _, told = run(predict, "recordings=d/README.txt", *MODEL, KNOWN, "out=p.csv")
    assert "instead of the folder" not in told  # it was named


@pytest.mark.parametrize("out", ["p.csv", "p.jsonl"])
def test_a_name_that_is_no_utf8_is_a_name(run, here, out):
    (here / "d").mkdir()
    names = [b"d/bad\xff\xfe.npy", "d/gut_ö.npy".encode()]
    for name in names:
        np.save(os.fsdecode(name), as_structured(events_of(range(50))))
    assert run(predict, "recordings=d", *MODEL, KNOWN, f"out={out}")[0] == 0
    assert sorted(os.fsencode(row["recording"]) for row in rows_of(here / out)) == sorted(names)
    if out == "p.jsonl":
        (here / out).read_bytes().decode("utf-8")
    assert run(show, f"recording={os.fsdecode(names[0])}", *MODEL[:3], KNOWN, "out=s.png")[0] == 0
    assert run(predict, "recordings=d", *MODEL, KNOWN, "window_us=20", "timeline=lines", "out=w.csv")[0] == 0
    assert len(list((here / "lines").iterdir())) == 2


def test_names_and_outputs_may_be_numbers(run, here):
    (here / "20240131").mkdir()
    np.save("20240131/7.npy", as_structured(events_of(range(50))))
    assert run(predict, "recordings=20240131", *MODEL, KNOWN, "out=p.csv", "window_us=20", "timeline=0")[0] == 0
    assert (here / "0" / "7.png").is_file()


def test_a_unit_that_the_numbers_told_is_said_once_for_all(run, here):
    for name in ("a", "b", "c"):
        table = events_of(range(50))
        np.savez(f"{name}.npz", **dict(zip("txyp", table.T, strict=True)))
    status, _, said = run(predict, "recordings=.", *MODEL, KNOWN, "out=p.jsonl")
    assert status == 0
    (line,) = [line for line in said.splitlines() if "time_unit=" in line]
    assert line.startswith("eventclip: a.npz: times are taken for microseconds")
    assert line.endswith("(and of 2 other recordings alike)")
    assert all("microseconds" in row["notes"][0] for row in rows_of(here / "p.jsonl"))
    assert run(predict, "recordings=.", *MODEL, KNOWN, "out=w.jsonl", "window_events=20", "time_unit=ms")[0] == 0
    rows = rows_of(here / "w.jsonl")
    assert {row["end_us"] for row in rows} == {19_000, 39_000, 49_000}
    assert not any(row["notes"] for row in rows)
    status, _, said = run(show, "recording=a.npz", *MODEL[:3], KNOWN, "out=s.png")
    assert (status, "times are taken for microseconds" in said) == (0, True)


def write_table(path, order, table, separator=" "):
    chosen = [table[:, "txyp".index(name)] for name in order]
    np.savetxt(path, np.stack(chosen, axis=1), "%d", delimiter=separator)


def write_dat(path, table, *, height, width):
    """Prophesee's .dat: lines that begin with %, type and size of an event, and two words for each."""
    head = f"% Date 2026-01-01 00:00:00\n% Height {height}\n% Version 2\n% Width {width}\n".encode() + bytes([12, 8])
    path.write_bytes(head + b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in table.tolist()))


def write_two_cameras(path):
    with h5py.File(path, "w") as file:
        for side, count in (("left", 60), ("right", 40)):
            table = events_of(range(0, 10 * count, 10))[:, [1, 2, 0, 3]].astype(float)
            table[:, 2] *= 1e-6
            file[f"davis/{side}/events"] = table


SORTED = events_of(range(3_811, 12_000, 137))
SWAPPED = SORTED.copy()
SWAPPED[[20, 21]] = SORTED[[21, 20]]
OUTSIDE = SORTED.copy()
OUTSIDE[7, 1] = 308

CASES = {
    "xypt.csv": (lambda path: write_table(path, "xypt", SORTED, ","), ["columns=xypt"], 60, 3_811),
    "xypt.txt": (lambda path: write_table(path, "xypt", SORTED, "\t"), ["columns=xypt"], 60, 3_811),
    "swapped.csv": (lambda path: write_table(path, "txyp", SWAPPED), ["sort=true", "columns=txyp"], 60, 3_811),
    "swapped.npy": (lambda path: np.save(path, as_structured(SWAPPED)), ["sort=true"], 60, 3_811),
    "txyp.npy": (lambda path: np.save(path, SORTED), ["columns=txyp"], 60, 3_811),
    "table.dump": (lambda path: write_table(path, "txyp", SORTED), ["file_format=csv", "columns=txyp"], 60, 3_811),
    "two.h5": (write_two_cameras, ["stream=left"], 60, 0),
    "outside.dat": (lambda path: write_dat(path, OUTSIDE, height=180, width=240), ["drop_outside=true"], 59, 3_811),
    "wider.dat": (lambda path: write_dat(path, OUTSIDE, height=180, width=240), ["sensor_hw=[180,309]"], 60, 3_811),
}


@pytest.mark.parametrize("name", CASES)
def test_a_remedy_that_a_sentence_names_is_there_and_works(run, here, name):
    write, remedies, events, start_us = CASES[name]
    write(here / name)
    known = [] if name.endswith(".dat") else [KNOWN]
    status, _, told = run(predict, f"recordings={name}", *MODEL, *known, "out=p.jsonl")
    assert status == (0 if name.startswith("xypt") else 1)  # an order that the numbers tell is a note
    assert remedies[0].partition("=")[0] + "=" in told, told
    for further in ((), ("window_events=20",)):
        status, _, said = run(predict, f"recordings={name}", *MODEL, *known, *remedies, *further, "out=p.jsonl")
        assert status == 0, said
        rows = rows_of(here / "p.jsonl")
        assert min(row["start_us"] for row in rows) == start_us
        assert rows[0]["events"] == events or sum({row["end_us"]: row["events"] for row in rows}.values()) >= events
        counted = {"sort=true": "1 of 60 events", "drop_outside=true": "1 of 60 events"}.get(remedies[0], "")
        assert counted in said
        assert any(counted in note for row in rows for note in row["notes"]) or not counted
    assert run(show, f"recording={name}", *known, *remedies, "out=s.png")[0] == 0


def test_the_sensor_that_is_asked_for_is_taken_as_typed(run, here):
    np.save("a.npy", as_structured(SORTED))
    status, _, told = run(predict, "recordings=a.npy", *MODEL, "out=p.csv")
    remedy = next(word for word in told.split() if word.startswith("sensor_hw="))
    assert status == 1
    assert run(predict, "recordings=a.npy", *MODEL, remedy, "out=p.csv")[0] == 0


def test_the_api_reads_as_the_commands_do(here):
    write_table(here / "xypt.csv", "xypt", SWAPPED)
    reading = ReadOptions(columns="xypt", sort=True)
    words = {"classes": ["star", "anchor"], "clip": "tiny", "device": "cpu"}
    told, told_later = EventCLIP.zero_shot(**words, reading=reading), EventCLIP.zero_shot(**words)
    expected = told_later.classify(as_structured(SORTED), sensor_hw=(180, 240))
    for found in (
        told.classify("xypt.csv", sensor_hw=(180, 240)),
        told_later.classify("xypt.csv", sensor_hw=(180, 240), reading=reading),
        next(told_later.classify_each(["xypt.csv"], sensor_hw=(180, 240), reading=reading)),
        next(told.classify_windows("xypt.csv", window_events=60, sensor_hw=(180, 240))).found,
        told.classify(SWAPPED[:, [1, 2, 0, 3]][:, [0, 1, 3, 2]], sensor_hw=(180, 240)),
    ):
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
        assert found.views.times[0, 0] == 3_811
    assert any("sorted" in note for note in told.views("xypt.csv", sensor_hw=(180, 240)).notes)
    few = told_later.classify(OUTSIDE, sensor_hw=(180, 240), reading=ReadOptions(columns="txyp", drop_outside=True))
    assert few.views.events == 59
