"""Events are found in whichever of the usual places an HDF5 file keeps them, and nowhere is guessed."""

import h5py
import numpy as np
import pytest

from eventclip.errors import RecordingError
from eventclip.events.array import events_from_columns
from eventclip.io.formats import read_events

T = np.array([0, 10, 10, 65_600, 300_000])
COLUMNS = {"x": np.array([0, 239, 17, 5, 100]), "y": np.array([0, 179, 3, 99, 7]), "p": np.array([1, 0, 0, 1, 1])}
EXPECTED = events_from_columns(T, **COLUMNS)


def columns(file, group, names=("x", "y", "t", "p"), **other):
    for name, letter in zip(names, "xytp", strict=True):
        file[f"{group}/{name}"] = other.get(letter, (COLUMNS | {"t": T})[letter])


def compound(file, place):
    table = np.zeros(5, [("x", "<u2"), ("y", "<u2"), ("p", "<i2"), ("t", "<i8")])
    for name, column in (COLUMNS | {"t": T}).items():
        table[name] = column
    file[place] = table


def matrix(file, place):
    file[place] = np.stack([COLUMNS["x"], COLUMNS["y"], T / 1e6, 2 * COLUMNS["p"] - 1], axis=1)


LAYOUTS = {
    "groups of columns": lambda file: columns(file, "events"),
    "names of rpg_e2vid": lambda file: columns(file, "events", ("xs", "ys", "ts", "ps"), t=T / 1e6, p=COLUMNS["p"] > 0),
    "another group": lambda file: columns(file, "raw_events", t=T / 1e6),
    "columns at the root": lambda file: columns(file, ""),
    "two groups deep": lambda file: columns(file, "prophesee/left"),
    "Metavision": lambda file: compound(file, "CD/events"),
    "structured": lambda file: compound(file, "events"),
    "MVSEC": lambda file: matrix(file, "davis/left/events"),
    "unit in the name": lambda file: columns(file, "events", ("x", "y", "t_ns", "polarity"), t=T * 1000),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", ["h5", "hdf5"])
def test_every_usual_layout_gives_the_same_events(tmp_path, layout, suffix):
    path = tmp_path / f"a.{suffix}"
    with h5py.File(path, "w") as file:
        file["ms_to_idx"] = np.arange(3)
        LAYOUTS[layout](file)
    events, sensor = read_events(path)
    np.testing.assert_array_equal(events, EXPECTED)
    assert sensor is None


@pytest.mark.parametrize(
    ("place", "attributes"),
    [
        ("events", {"height": 180, "width": 240}),
        ("/", {"sensor_resolution": [180, 240]}),
        ("/", {"geometry": "240x180"}),
        ("/", {"geometry": np.bytes_("240x180")}),
        ("events", {"sensor_height": np.int64(180), "sensor_width": np.int64(240)}),
    ],
)
def test_the_sensor_is_told_by_attributes(tmp_path, place, attributes):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "events")
        file[place].attrs.update(attributes)
    assert read_events(tmp_path / "a.h5")[1] == (180, 240)


def test_a_sensor_smaller_than_its_events_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "events")
        file.attrs.update({"height": 100, "width": 240})
    with pytest.raises(RecordingError, match="x=239, y=179 lies outside the sensor of 100 rows"):
        read_events(tmp_path / "a.h5")


def no_table(file):
    file["events/x"] = COLUMNS["x"]


def two_tables(file):
    columns(file, "davis/left")
    columns(file, "davis/right")


def unequal(file):
    columns(file, "events", t=T[:-1])


def text(file):
    columns(file, "events", t=np.array([b"a"] * 5))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_table, "no table of events: expected one"),
        (two_tables, "2 tables of events, davis/left, davis/right: expected one"),
        (unequal, "equally long"),
        (text, "column t of type"),
        (lambda file: columns(file, "events", t=T[::-1]), "backwards in time at row 1"),
        (lambda file: columns(file, "events", x=COLUMNS["x"] - 1), "x = -1 at row 0"),
        (lambda file: columns(file, "events", x=COLUMNS["x"] + 32_767), "x = 33006 at row 1"),
    ],
)
def test_what_is_wrong_inside_is_told(tmp_path, damage, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        damage(file)
    with pytest.raises(RecordingError, match=message) as caught:
        read_events(tmp_path / "a.h5")
    assert str(tmp_path / "a.h5") in str(caught.value)


@pytest.mark.parametrize("keep", [10, 700, -60])
def test_a_file_cut_short_is_told(tmp_path, keep):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "events")
    whole = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[:keep])
    with pytest.raises(RecordingError, match=r"cut\.h5"):
        read_events(tmp_path / "cut.h5")


def test_the_shared_file_is_read(shared):
    events, sensor = read_events(shared / "data" / "recordings" / "aedat4" / "event.hdf5")
    assert (len(events), sensor) == (17, None)
    assert events["t"][:3].tolist() == [0, 780, 1706]
