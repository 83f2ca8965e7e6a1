"""Events are found in whichever of the usual places an HDF5 file keeps them, and nowhere is guessed."""

import zlib

import h5py
import hdf5plugin
import numpy as np
import pytest

from eventclip.errors import RecordingError
from eventclip.events.array import events_from_columns
from eventclip.io.formats import open_stream, read_events

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


def test_the_shared_file_is_read(golden_folder):
    events, sensor = read_events(golden_folder / "cases" / "event.hdf5")
    assert (len(events), sensor) == (17, None)
    assert events["t"][:3].tolist() == [0, 780, 1706]


SIZES = {
    "arrays of one number": lambda file: file["events"].attrs.update({"height": [180], "width": np.array([[240]])}),
    "floats": lambda file: file["events"].attrs.update({"height": 180.0, "width": np.float32(240)}),
    "data sets beside the columns": lambda file: (file.create_dataset("events/height", data=180),
                                                  file.create_dataset("events/width", data=[240])),
    "data sets at the root": lambda file: (file.create_dataset("height", data=180),
                                           file.create_dataset("width", data=240)),
    "an array of one text": lambda file: file.attrs.update({"geometry": ["240x180"]}),
}  # fmt: skip


@pytest.mark.parametrize("size", SIZES)
def test_the_sensor_is_told_by_whatever_holds_its_two_numbers(tmp_path, size):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "events")
        SIZES[size](file)
    assert read_events(tmp_path / "a.h5")[1] == (180, 240)


@pytest.mark.parametrize(
    "value",
    [[180, 240], 180 + 0j, h5py.Empty("i8"), "tall", 0, -1, 2**63, 180.5, np.nan, np.inf, [], True, b"\xff",
     np.zeros(2, [("a", "i4")])],
)  # fmt: skip
def test_what_is_no_size_tells_no_sensor(tmp_path, value):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "events")
        for name in ("height", "sensor_height", "sensor_resolution", "geometry"):
            file["events"].attrs[name] = 180 if name == "sensor_resolution" and isinstance(value, list) else value
        file.attrs["width"] = file.attrs["sensor_width"] = 240
        file["events"].attrs["width"] = 240
    assert read_events(tmp_path / "a.h5")[1] is None


def test_names_in_no_encoding_are_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "events")
        file.id.links.create_hard(b"raw_ev\xff", file.id, b"events")
        del file["events"]
    np.testing.assert_array_equal(read_events(tmp_path / "a.h5")[0], EXPECTED)


NAMES = {
    "RPEFlow": ("events_x", "events_y", "events_t", "events_p"),
    "EVIMO": ("dataset_events_x", "dataset_events_y", "dataset_events_ts", "dataset_events_p"),
    "addresses": ("x_addr", "y_addr", "timestamp", "pol"),
    "rows and columns": ("col", "row", "ts", "sign"),
    "loris": ("x", "y", "t", "is_increase"),
}


@pytest.mark.parametrize("names", NAMES)
def test_columns_of_public_data_sets_are_known(tmp_path, names):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "", NAMES[names])
    np.testing.assert_array_equal(read_events(tmp_path / "a.h5")[0], EXPECTED)
    table = dict(zip(NAMES[names], (COLUMNS["x"], COLUMNS["y"], T, COLUMNS["p"]), strict=True))
    np.savez(tmp_path / "a.npz", **table)
    np.testing.assert_array_equal(read_events(tmp_path / "a.npz")[0], EXPECTED)


def test_coordinates_and_split_times_are_put_together(tmp_path):
    xy = np.stack([COLUMNS["x"], COLUMNS["y"]], axis=1)
    np.savez(tmp_path / "a.npz", dataset_events_t=T, dataset_events_xy=xy, dataset_events_p=COLUMNS["p"])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["events/xy"], file["events/p"] = xy, COLUMNS["p"]
        file["events/secs"], file["events/nsecs"] = T // 10**6, T % 10**6 * 1000
    for name in ("a.npz", "a.h5"):
        np.testing.assert_array_equal(read_events(tmp_path / name)[0], EXPECTED)
        pieces = open_stream(tmp_path / name, chunk_events=2).chunks
        np.testing.assert_array_equal(np.concatenate(list(pieces)), EXPECTED)


def test_a_rare_name_gives_way_to_a_usual_one(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "events")
        file["events/row"] = file["events/sign"] = np.zeros(5)
    np.testing.assert_array_equal(read_events(tmp_path / "a.h5")[0], EXPECTED)


@pytest.mark.long
@pytest.mark.parametrize("compression", [hdf5plugin.Blosc(cname="zstd"), hdf5plugin.Zstd(), hdf5plugin.LZ4()])
def test_filters_of_dsec_and_others_are_known(tmp_path, compression):
    import subprocess
    import sys

    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in (COLUMNS | {"t": T}).items():
            file.create_dataset(f"events/{name}", data=column, **compression)
    code = f"from eventclip.io.formats import read_events; print(len(read_events({str(tmp_path / 'a.h5')!r})[0]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "5"  # where nothing else has imported hdf5plugin


def filtered(path, number, name=b"", optional=False):
    """A file whose columns claim a filter that is not there; the chunks are filler."""
    with h5py.File(path, "w") as file:
        for column in "txyp":
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((5,))
            plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, ())
            group = file.require_group("events")
            space = h5py.h5s.create_simple((5,))
            made = h5py.h5d.create(group.id, column.encode(), h5py.h5t.NATIVE_INT64, space, plist)
            made.write_direct_chunk((0,), b"filler")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (
            0x8ECF,
            r"Prophesee's ECF \(filter 0x8ecf\), .* convert it with metavision_file_to_csv, or set HDF5_PLUGIN_PATH",
        ),
        (31_999, r"the filter 31999 \(without a name\), which is not installed: set HDF5_PLUGIN_PATH"),
    ],
)
def test_a_filter_that_is_not_installed_is_named(tmp_path, number, message):
    filtered(tmp_path / "a.h5", number)
    with pytest.raises(RecordingError, match=message):
        read_events(tmp_path / "a.h5")


def nothing_written(file, **how):
    for name in "txyp":
        file.create_dataset(f"events/{name}", (10**9,), "i8", **how)


def virtual(file):
    layout = h5py.VirtualLayout((5,), "i8")
    layout[:] = h5py.VirtualSource("other.h5", "x", (5,))
    for name in "xyp":
        file[f"events/{name}"] = COLUMNS[name]
    file.create_virtual_dataset("events/t", layout)


def external(file):
    columns(file, "events")
    del file["events/t"]
    file.create_dataset("events/t", (5,), "i8", external=[("/etc/hostname", 0, 40)])


def half_written(file):
    columns(file, "events", t=np.zeros(0, int))
    del file["events/t"]
    file.create_dataset("events/t", (5,), "i8", chunks=(2,))[:2] = T[:2]


BOMBS = {
    "chunks that nobody wrote": (lambda file: nothing_written(file, chunks=(1024,)), "976,563 chunks and 0 are stored"),
    "no storage at all": (nothing_written, r"8,000,000,000 bytes and 0 are stored"),
    "a chunk of two": (half_written, "has 3 chunks and 1 are stored"),
    "a virtual data set": (virtual, "keeps t in other files"),
    "an external file": (external, "keeps t in other files"),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("chunk_events", [7, 1 << 19])
def test_what_is_not_stored_in_the_file_is_refused_at_once(tmp_path, bomb, chunk_events):
    write, message = BOMBS[bomb]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    with pytest.raises(RecordingError, match=message):
        list(open_stream(tmp_path / "a.h5", chunk_events=chunk_events).chunks)


def test_zeros_packed_beyond_what_events_can_be_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "txyp":
            made = file.create_dataset(f"events/{name}", (2**24,), "i8", chunks=(2**20,), compression="gzip")
            packed = zlib.compress(bytes(2**23), 9)
            for start in range(0, 2**24, 2**20):
                made.id.write_direct_chunk((start,), packed)
    assert (tmp_path / "a.h5").stat().st_size < 2**20
    with pytest.raises(RecordingError, match=r"would unpack from .* to 134,217,728 bytes, which events do not"):
        read_events(tmp_path / "a.h5")


def test_links_are_not_followed_and_circles_end(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as file:
        columns(file, "events")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "events")
        file["elsewhere"] = h5py.ExternalLink("b.h5", "events")
        file["again"] = h5py.SoftLink("/events")
        file["events/circle"] = file["/"]
    np.testing.assert_array_equal(read_events(tmp_path / "a.h5")[0], EXPECTED)


def test_rows_before_damage_come_first_and_then_its_row(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in (COLUMNS | {"t": T}).items():
            file.create_dataset(f"events/{name}", data=column, chunks=(2,), compression="gzip")
        file["events/y"].id.write_direct_chunk((2,), b"rubbish")
    for size in (1, 2, 3, 100):
        events = []
        with pytest.raises(RecordingError, match=r"a\.h5 is no whole HDF5 file \(row 2 is damaged"):
            events += open_stream(tmp_path / "a.h5", chunk_events=size).chunks
        np.testing.assert_array_equal(np.concatenate(events), EXPECTED[:2])


def test_names_that_are_not_for_a_terminal_are_escaped(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "bad\nname\x1b[2J")
        columns(file, "events")
    with pytest.raises(RecordingError, match=r"2 tables of events, bad\\nname\\x1b\[2J, events") as caught:
        read_events(tmp_path / "a.h5")
    assert str(caught.value).isprintable()


def test_a_column_along_two_axes_is_told_alike_in_pieces(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "events", x=np.zeros((5, 2)))
    for size in (2, 100):
        with pytest.raises(RecordingError, match="column x of type float64 along 2 axes: expected numbers"):
            list(open_stream(tmp_path / "a.h5", chunk_events=size).chunks)


def test_signalling_nans_are_told_without_a_warning(tmp_path):
    times = np.full(5, 0x7FA00000, "<u4").view("<f4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns(file, "events", t=times)
    with pytest.raises(RecordingError, match="t = nan at row 0: expected a finite time"):
        read_events(tmp_path / "a.h5")


def test_a_refused_file_is_read_anew_once_it_is_mended(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        compound(file, "CD/events")
    mended = path.read_bytes()
    with h5py.File(path, "r+") as file:
        file["CD/events"][:] = file["CD/events"][:][::-1]
    with pytest.raises(RecordingError, match="is out of order"):  # HDF5 gives what it knows of a file that is open
        list(open_stream(path, chunk_events=2).chunks)
    path.write_bytes(mended)
    np.testing.assert_array_equal(read_events(path)[0], EXPECTED)
