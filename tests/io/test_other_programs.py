"""Text as other programs write it is read for what it means, or the sentence says what disturbs."""

import gzip
import re

import numpy as np
import pytest

from eventclip.errors import RecordingError
from eventclip.events.array import EVENT_DTYPE
from eventclip.io.formats import open_stream, read_events, together

ROWS = [(3811, 201, 172, 1), (3948, 62, 36, 0), (4085, 26, 80, 0), (4222, 71, 159, 0), (11894, 25, 35, 1)]
EXPECTED = np.array(ROWS, EVENT_DTYPE)


def lines(form, header=None, end="\n"):
    body = [form.format(t=t, x=x, y=y, p=p, s=t / 1e6, b=bool(p)) for t, x, y, p in ROWS]
    return end.join([*([header] if header is not None else []), *body]) + end


COMMAS = lines("{t},{x},{y},{p}", "t,x,y,p")
SECONDS = lines("{s:.6f} {x} {y} {p}")
WRITTEN = {
    "byte order mark": "\ufeff" + COMMAS,
    "byte order mark without names": "\ufeff" + SECONDS,
    "Windows' line ends": lines("{t},{x},{y},{p}", "t,x,y,p", "\r\n"),
    "quoted names": lines("{t},{x},{y},{p}", '"t","x","y","p"'),
    "quoted values": lines('"{t}","{x}","{y}","{p}"', '"t","x","y","p"'),
    "single quotes": lines("'{t}';'{x}';'{y}';'{p}'", "'t';'x';'y';'p'"),
    "True and False": lines("{t},{x},{y},{b}", "t,x,y,p"),
    "True and False without names": lines("{s:.6f} {x} {y} {b}"),
    "upper case": lines("{t},{x},{y},{b}", "T,X,Y,POLARITY").replace("True", "TRUE").replace("False", "FALSE"),
    "commas at the end": lines("{t},{x},{y},{p},", "t,x,y,p"),
    "commas at the end of names, too": lines("{t},{x},{y},{p},", "t,x,y,p,"),
    "two commas at the end": lines("{t},{x},{y},{p},,", "t,x,y,p"),
    "decimal commas": lines("{s:.6f};{x};{y};{p}", "t;x;y;p").replace(".", ","),
    "decimal commas between tabs": lines("{s:.6f}\t{x}\t{y}\t{p}", "t\tx\ty\tp").replace(".", ","),
    "decimal commas between spaces": lines("{s:.6f} {x} {y} {p}").replace(".", ","),
    "pandas' index": lines("7,{t},{x},{y},{p}", ",t,x,y,p"),
    "R's row names": lines('"7" {t} {x} {y} {p}', '"t" "x" "y" "p"'),
    "faery": lines("{t},{x},{y},{p}", "t,x@240,y@180,on"),
    "slashes": "// recorded 2024\n" + COMMAS,
    "percent signs": "% recorded by a camera\n%\n" + COMMAS,
    "comments between": COMMAS.replace("4085", "# half\n% way\n4085"),
    "comments behind": lines("{t},{x},{y},{p} # an event", "t,x,y,p"),
    "spaces behind commas": lines("{t}, {x}, {y}, {p}", "t, x, y, p"),
    "several spaces": lines("  {t}   {x} {y}  {p} ", "  t x   y p"),
    "tabs": lines("{x}\t{y}\t{p}\t{t}"),
    "units in the names": lines("{t},{x},{y},{p}", "Time [usec],x,y,polarity"),
    "units between spaces": lines("{t} {x} {y} {p}", "# t [us] x y p"),
    "ROS": lines("0,{t}000,{x},{y},{b}", "secs,nsecs,x,y,polarity"),
    "addresses": lines("{t},{x},{y},{p}", "timestamp,x_addr,y_addr,pol"),
    "rows and columns": lines("{t},{y},{x},{p}", "timestamp,row,col,polarity"),
    "exponents": lines("{s:.6e} {x} {y} {p}"),
    "a letter of another encoding": b"% salle \xe0 manger\n" + COMMAS.encode(),
    "UTF-16": COMMAS.encode("utf-16"),
    "UTF-16 without a mark": COMMAS.encode("utf-16-le"),
    "UTF-16 the other way round": COMMAS.encode("utf-16-be"),
    "UTF-32": COMMAS.encode("utf-32"),
    "gzip": gzip.compress(COMMAS.encode()),
}


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("program", WRITTEN)
@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_text_of_other_programs_gives_the_same_events(tmp_path, program, suffix):
    path = written(tmp_path / f"a.{suffix}", WRITTEN[program])
    np.testing.assert_array_equal(read_events(path)[0], EXPECTED)
    np.testing.assert_array_equal(together(list(open_stream(path, chunk_events=2).chunks)), EXPECTED)


def test_packed_text_has_a_suffix_of_its_own(tmp_path):
    for name in ("a.csv.gz", "a.txt.gz", "A.CSV.GZ"):
        np.testing.assert_array_equal(read_events(written(tmp_path / name, WRITTEN["gzip"]))[0], EXPECTED)


@pytest.mark.parametrize(
    ("before", "sensor"),
    [
        ("240 180\n", (180, 240)),
        ("% width 240 height 180\n", (180, 240)),
        ("# Width: 240\n# Height: 180\n", (180, 240)),
        ("%geometry:240x180\n", (180, 240)),
        ("// geometry = 240 x 180\n", (180, 240)),
        ("# sensor size 240x180\n", (180, 240)),
        ("# resolution: 240x180\n", (180, 240)),
        ("% width 240\n", None),
        ("% chunk size 240x180\n", None),
    ],
)
def test_lines_before_the_events_tell_the_sensor(tmp_path, before, sensor):
    events, found = read_events(written(tmp_path / "a.txt", before + SECONDS))
    np.testing.assert_array_equal(events, EXPECTED)
    assert found == sensor


def test_names_of_faery_tell_the_sensor(tmp_path):
    assert read_events(written(tmp_path / "a.csv", WRITTEN["faery"]))[1] == (180, 240)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("240 180\n", r"no line of numbers and no line of names"),
        ("240 180\n1 2\n", r"2 values on line 1"),
        (COMMAS + "1,2,up,0\n", "'up' on line 7 is no number"),
        (COMMAS + "1,2,3\n", "changed from 4 to 3 on line 7"),
        (COMMAS + "9" * 30 + ",2,3,1\n", "a value on line 7 does not fit 64 bits"),
        (COMMAS.replace("t,", "time [min],"), r"times in 'min' by the name of the column time \[min\]: expected s, ms"),
        (COMMAS + "x" * 70_000, "line 7 has 65,536 characters or more"),
        ("y" * 70_000, "line 1 of 65,536 characters"),
    ],
)
def test_what_disturbs_is_told_by_its_line(tmp_path, content, message):
    path = written(tmp_path / "a.csv", content)
    with pytest.raises(RecordingError, match=message) as caught:
        read_events(path)
    assert not re.search("usecols|loadtxt|codec|dtype", str(caught.value))
    with pytest.raises(RecordingError, match=message):
        list(open_stream(path, chunk_events=2).chunks)


UNITS = {"sec": 10**6, "seconds": 10**6, "msec": 1000, "usec": 1, "ns": 0.001}


@pytest.mark.parametrize("word", UNITS)
@pytest.mark.parametrize("form", ["t [{}]", "time ({})", "timestamp_{}", "ts in {}", "t/{}"])
def test_a_unit_that_is_spelled_out_is_known(tmp_path, word, form):
    path = written(tmp_path / "a.csv", f"{form.format(word)},x,y,p\n1000,1,2,1\n3000,1,2,0\n")
    assert read_events(path)[0]["t"].tolist() == [1000 * UNITS[word], 3000 * UNITS[word]]


def test_a_unit_of_a_field_or_data_set_is_known_too(tmp_path):
    import h5py

    columns = {"x": [1, 2], "y": [3, 4], "p": [0, 1]}
    table = np.zeros(2, [("t [msec]", "i8"), *((name, "u2") for name in columns)])
    table["t [msec]"] = [5, 6]
    np.save(tmp_path / "a.npy", table)
    np.savez(tmp_path / "a.npz", **{"t (msec)": [5, 6]}, **columns)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in (columns | {"t_msec": [5, 6]}).items():
            file[f"events/{name}"] = column
    for name in ("a.npy", "a.npz", "a.h5"):
        assert read_events(tmp_path / name)[0]["t"].tolist() == [5000, 6000], name
    table.dtype.names = ("t [min]", "x", "y", "p")
    np.save(tmp_path / "b.npy", table)
    with pytest.raises(RecordingError, match="times in 'min'"):
        read_events(tmp_path / "b.npy")
    assert read_events(tmp_path / "b.npy", time_unit="s")[0]["t"].tolist() == [5_000_000, 6_000_000]


def test_two_polarity_codings_are_refused_where_they_meet(tmp_path):
    path = written(tmp_path / "a.csv", "t,x,y,p\n1,1,1,1\n2,1,1,-1\n3,1,1,1\n4,1,1,0\n5,1,1,1\n")
    for size in (1, 2, 3, 4, 100):
        chunks = open_stream(path, chunk_events=size).chunks
        with pytest.raises(RecordingError, match="p = 0 at row 3, and -1 in a row before it: expected 1 or -1"):
            list(chunks)
