"""HDF5 files that are whole and hold what no camera's tool would write."""

import io
from random import Random

import corpus
import h5py
import numpy as np

COUNT = corpus.EVENTS


def odd_hdf5(rng: Random) -> bytes:
    """A sound layout of events in which one or two things are odd."""

    def fill(file):
        rng.choice(_LAYOUTS)(file)
        for _ in range(rng.choice((1, 1, 2))):
            rng.choice(_ODDITIES)(rng, file)

    return corpus.made_hdf5(fill)


_LAYOUTS = (corpus._columns, corpus._packed, corpus._named, corpus._matrix, corpus._deep)


def _sets(file):
    found = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found or ["x"]


def _replace(rng, file, make):
    name = rng.choice(_sets(file))
    if name in file:
        del file[name]
    make(name)


def _another_array(rng, file):
    arrays = (
        np.arange(COUNT, dtype=np.float16),
        np.arange(COUNT, dtype=">i4"),
        np.arange(COUNT, dtype=np.complex64),
        np.arange(COUNT, dtype=np.uint64) + (1 << 63),
        np.zeros(COUNT, bool),
        np.array([b"on"] * COUNT),
        np.zeros((COUNT, 4)),
        np.zeros((COUNT, 2, 2)),
        np.zeros((4, COUNT)),
        np.full(COUNT, np.nan),
        np.full(COUNT, 1e300),
        np.zeros(COUNT - 1, np.int64),
        np.zeros(0, np.int64),
        np.array(5),
        np.zeros(COUNT, [("t", "<i8"), ("x", "<u2", (2,)), ("y", "<u2"), ("p", "?")]),
        np.zeros(COUNT, [("t", "<i8"), ("x", [("x", "<u2")]), ("y", "<u2"), ("p", "?")]),
        np.zeros(COUNT, "V8"),
    )
    _replace(rng, file, lambda name: file.__setitem__(name, rng.choice(arrays)))


def _another_thing(rng, file):
    def make(name):
        match rng.randrange(9):
            case 0:
                file.create_group(name)
            case 1:
                file[name] = h5py.Empty("f8")
            case 2:
                file[name] = h5py.SoftLink(rng.choice(("/nowhere", f"/{name}", "/")))
            case 3:
                file[name] = h5py.ExternalLink("other.h5", "/x")
            case 4:
                file.create_dataset(name, (COUNT,), h5py.string_dtype())
            case 5:
                file.create_dataset(name, (COUNT,), h5py.vlen_dtype(np.int32))
            case 6:
                file.create_dataset(name, (COUNT,), h5py.ref_dtype)
            case 7:
                file.create_dataset(name, (COUNT,), h5py.enum_dtype({"OFF": 0, "ON": 1}, basetype="i1"))
            case _:
                file[name] = np.dtype("<i4")

    _replace(rng, file, make)


def _unwritten(rng, file):
    """Shapes that no byte of storage stands behind."""
    rows = rng.choice((10**6, 10**9, 10**12, 2**62, 2**63 - 1))
    chunks = rng.choice(((64,), (1 << 19,)))
    names = _sets(file) if rng.random() < 0.6 else [rng.choice(_sets(file))]
    for name in names:
        if name in file and isinstance(file[name], h5py.Dataset) and file[name].ndim == 1:
            kind = file[name].dtype
            del file[name]
            file.create_dataset(name, (rows,), kind, chunks=chunks, compression=rng.choice((None, "gzip")))


def _elsewhere(rng, file):
    """Data sets whose bytes lie in other files."""

    def make(name):
        if rng.random() < 0.5:
            file.create_dataset(name, (COUNT,), "u1", external=[("/etc/passwd", 0, COUNT)])
        else:
            layout = h5py.VirtualLayout((COUNT,), "i8")
            layout[:] = h5py.VirtualSource("other.h5", "x", (COUNT,))
            file.create_virtual_dataset(name, layout)

    _replace(rng, file, make)


def _odd_attributes(rng, file):
    place = rng.choice(["/", *_sets(file), "events"])
    if place not in file:
        place = "/"
    values = (
        *(180, -1, 0, 2**31, 2**63 - 1, 1.5, float("nan"), "180", b"180", "", [180], [180, 240], [[180]], [], True),
        *(
            h5py.Empty("i4"),
            np.complex64(1),
            np.array([b"a", b"b"]),
            np.zeros((2, 2)),
            "240x180",
            "99999999999x2",
            "٣x٤",
        ),
        *(np.float64(180), np.uint64(2**64 - 1), "é" * 100, "a\nb", "\x1b[2J", np.zeros(1, [("a", "i4")])),
    )
    names = ("height", "width", "sensor_height", "sensor_width", "sensor_resolution", "geometry", "unit", "units")
    for name in rng.sample(names, rng.choice((1, 2, 8))):
        file[place].attrs[name] = rng.choice(values)


def _more_tables(rng, file):
    match rng.randrange(4):
        case 0:
            file["other/events"] = corpus.structured()
        case 1:
            file["loop"] = file["/"]
        case 2:
            for depth in range(60):
                file.create_group("/".join(["g"] * (depth + 1)))
        case _:
            file["bad\nname\x1b/events"] = corpus.structured()


def _sizes_as_sets(rng, file):
    parent = rng.choice(("", "events/"))
    for name in ("height", "width"):
        values = (180, [180], [], "x", -1, 2**40, [[1, 2]], 1.5, h5py.Empty("i4"))
        if f"{parent}{name}" not in file:
            file[f"{parent}{name}"] = rng.choice(values)


def _moved_times(rng, file):
    """DSEC's offset of all times, odd."""
    if "events" in file and isinstance(file["events"], h5py.Group):
        file["t_offset" if rng.random() < 0.5 else "events/t_offset"] = rng.choice(
            (5, 2**62, -5, 1.5, "x", [1, 2], h5py.Empty("i8"))
        )


_ODDITIES = (
    *(_another_array, _another_array, _another_thing, _another_thing, _unwritten, _elsewhere),
    *(_odd_attributes, _odd_attributes, _more_tables, _sizes_as_sets, _moved_times),
)


def rebuilt(content: bytes, change) -> bytes:
    """The bytes of an HDF5 file after ``change(file)``."""
    image = io.BytesIO(content)
    with h5py.File(image, "r+") as file:
        change(file)
    return image.getvalue()
