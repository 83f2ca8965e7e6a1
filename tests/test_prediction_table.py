"""A table of predictions is whole or not there, goes on after any stop, and holds every name and no false number."""

import csv
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import EVENT_DTYPE
from eventclip.events.windows import Window
from eventclip.inference.predict import NO_EVENTS, recording_row, window_row
from eventclip.inference.result import Classification, RecordingViews, WindowClassification
from eventclip.prediction_table import Table

NAMES = [
    "plain.npy",
    'with "quotes", commas.npy',
    "two\nlines.npy",
    "re\rturn.npy",
    os.fsdecode(b"\xff\xfe.npy"),
    "é.npy",
]


def found(name, probability=0.75):
    times = np.array([[0, 10]])
    views = RecordingViews(name, np.zeros((1, 1, 2, 2), np.uint8), np.array([[0, 5]]), times, 5, (2, 2), 5)
    probabilities = np.array([probability, 1 - probability])
    return Classification(("star", "anchor"), probabilities, probabilities[None], views)


def rows():
    return [
        recording_row(name, RecordingError(f"{name} is no recording") if number == 2 else found(name), 2)
        for number, name in enumerate(NAMES)
    ]


def window_rows():
    events = np.zeros(5, EVENT_DTYPE)
    for name in NAMES:
        for number in range(3):
            silent = number == 1
            window = Window(events[:0] if silent else events, 5 * number, 10 * number, 10 * number + 10)
            yield window_row(name, number, WindowClassification(window, None if silent else found(name)), 2)


def table(folder, suffix, *, windows=False):
    return Table(folder / f"p{suffix}", top=2, windows=windows, stamp="1")


def write(folder, suffix, *, windows=False):
    made = table(folder, suffix, windows=windows)
    with made.writing():
        for row in window_rows() if windows else rows():
            if row["recording"] not in made.done:
                made.add([row])
    return (folder / f"p{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_any_name_that_a_file_can_have_comes_back_from_the_table(tmp_path, suffix):
    content = write(tmp_path, suffix)
    if suffix == ".csv":
        text = content.decode("utf-8", "surrogateescape")
        read = [row["recording"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    else:
        read = [json.loads(line)["recording"] for line in content.decode("utf-8").splitlines() if line]
    assert read == NAMES


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_table_torn_at_any_byte_is_the_same_in_the_end(tmp_path, monkeypatch, suffix, windows):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a thousand tables
    expected = write(tmp_path, suffix, windows=windows)
    part = tmp_path / f"p{suffix}.1.part"
    for length in {*range(0, len(expected), max(len(expected) // 300, 1)), len(expected) - 1, len(expected)}:
        part.write_bytes(expected[:length])
        assert write(tmp_path, suffix, windows=windows) == expected
    for foreign in (b"\0" * 50, b"[1]\n[2]\n", b"null\n", b'{"recording": 1e999', b'a,b\n"', b"\xff\n"):
        part.write_bytes(foreign)
        assert write(tmp_path, suffix, windows=windows) == expected


def test_a_silence_ends_no_recording_and_is_no_failure(tmp_path):
    made = table(tmp_path, ".csv", windows=True)
    silent, last = list(window_rows())[1], recording_row(NAMES[1], RecordingError("cut short"), 2)
    assert silent["error"] == NO_EVENTS
    part = tmp_path / "p.csv.1.part"
    with pytest.raises(ZeroDivisionError), made.writing():
        made.add([last, silent]) or 1 / 0
    assert NO_EVENTS in part.read_text()
    again = table(tmp_path, ".csv", windows=True)
    with again.writing():
        assert again.done == {NAMES[1]: "cut short"}


def test_a_second_writer_is_told_and_the_first_table_is_whole(tmp_path):
    first, second = table(tmp_path, ".csv"), Table(tmp_path / "p.csv", top=1, windows=True, stamp="2")
    with first.writing():
        with pytest.raises(UserError, match=r"another process is writing .*p\.csv: wait for it"), second.writing():
            pass
        for row in rows():
            first.add([row])
    text = (tmp_path / "p.csv").read_bytes().decode("utf-8", "surrogateescape")
    assert len(list(csv.reader(io.StringIO(text, newline="")))) == len(NAMES) + 1
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_full_disk_is_told_and_the_next_run_goes_on(tmp_path, monkeypatch, suffix):
    expected = write(tmp_path, suffix)
    (tmp_path / f"p{suffix}").unlink()
    really, room = os.write, [len(expected) // 2]

    def write_while_there_is_room(descriptor, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = really(descriptor, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write_while_there_is_room)
    with pytest.raises(UserError, match=rf"p{suffix} cannot be written \(No space left.*goes on where it stopped"):
        write(tmp_path, suffix)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == [f"p{suffix}.1.part"]
    made = table(tmp_path, suffix)
    with made.writing():
        assert made.done
        for row in rows():
            if row["recording"] not in made.done:
                made.add([row])
    assert (tmp_path / f"p{suffix}").read_bytes() == expected


def test_a_probability_that_is_no_number_is_never_json(tmp_path):
    made = table(tmp_path, ".jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"), made.writing():
        made.add([recording_row("a", found("a", float("nan")), 2)])
    assert "NaN" not in (tmp_path / "p.jsonl.1.part").read_text()


@pytest.mark.parametrize("to", ["/dev/full", "names"])
def test_stdout_takes_any_name_and_a_full_one_is_one_sentence(tmp_path, to):
    code = (
        "from eventclip.config.sentences import command; from eventclip.prediction_table import Table\n"
        "def write():\n"
        "    table = Table(None, top=1, windows=False, stamp='')\n"
        "    with table.writing(): table.add([{'recording': 'é' + chr(0xdcff), 'error': 'x'}])\n"
        "command(write)()"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    with Path(to if to.startswith("/") else tmp_path / to).open("wb") as out:
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    if to == "names":
        assert (tmp_path / to).read_bytes().splitlines()[1] == b"\xc3\xa9\xff,,,,,,,,x"
    else:
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("eventclip: the table on stdout cannot be written (No space left on device)")


@pytest.mark.parametrize("to", ["full", "nobody"])
def test_printing_to_nobody_or_a_full_disk_is_a_sentence(to):
    code = "from eventclip.config.sentences import command; command(lambda: print('a' * 100))()"
    with Path("/dev/full").open("wb") as full:
        out = full if to == "full" else subprocess.PIPE
        running = subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE, text=True)
        if to == "nobody":
            running.stdout.close()
        said = running.stderr.read()
        running.stderr.close()
    assert running.wait() == 1
    (line,) = said.splitlines()
    assert line.startswith("eventclip: ")
