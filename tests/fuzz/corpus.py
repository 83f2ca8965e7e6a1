"""Small sound recordings in every format, as bytes; what they hold is made up."""

import io
import struct
import zipfile

import h5py
import numpy as np

EVENTS = 300  # several pieces of 64
SENSOR = (180, 240)

_rng = np.random.default_rng(14)
T = np.sort(_rng.integers(0, 9000, EVENTS)) + 100
X = _rng.integers(0, SENSOR[1], EVENTS)
Y = _rng.integers(0, SENSOR[0], EVENTS)
P = _rng.integers(0, 2, EVENTS)
T[0], P[:2] = 100, (0, 1)


def structured(names="txyp", kinds=("<i8", "<u2", "<u2", "?")):
    """Events as numpy keeps a table with named fields."""
    table = np.zeros(EVENTS, list(zip(names, kinds, strict=True)))
    for name, column in zip(names, (T, X, Y, P), strict=True):
        table[name] = column
    return table


def est(kind=np.float32):
    """(N, 4) x, y, t [s], p in -1 and 1, as the EST release."""
    return np.stack([X, Y, T / 1e6, 2 * P - 1], axis=1).astype(kind)


def npy():
    arrays = (
        est(),
        est(np.float64),
        structured(),
        np.asfortranarray(est(np.float64)),
        structured(["ts", "x", "y", "polarity"]),
    )
    return [_saved(array) for array in arrays]


def _saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(compression):
    separate = {name: _saved(column) for name, column in zip("txyp", (T, X, Y, P), strict=True)}
    return [_zipped(members, compression) for members in ({"event_data.npy": _saved(structured())}, separate)]


def _zipped(members, compression):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)  # its time is always 1980
    return file.getvalue()


def atis():
    entries = np.stack([X, Y % 200, P << 7 | T >> 16, T >> 8 & 255, T & 255], axis=1).astype(np.uint8)
    overflow = np.array([[0, 240, 0, 0, 0]], np.uint8)
    return [entries.tobytes(), np.concatenate([entries[:150], overflow, entries[:150]]).tobytes()]


def dat():
    words = np.stack([T, X | Y << 14 | P << 28], axis=1).astype("<u4").tobytes()
    headers = (b"% Data file containing CD events\n% Version 2\n% Height 180\n% Width 240\n", b"% Version 2\n")
    return [header + bytes([kind, 8]) + words for header, kind in zip(headers, (12, 0), strict=True)]


def evt2():
    words, high = [], None
    for t, x, y, p in zip(T.tolist(), X.tolist(), Y.tolist(), P.tolist(), strict=True):
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 28 | high)
        words.append(p << 28 | (t & 63) << 22 | x << 11 | y)
    words[50:50] = [10 << 28 | 1, 14 << 28]
    data = np.array(words, "<u4").tobytes()
    headers = (
        b"% evt 2.0\n% format EVT2;height=180;width=240\n% end\n",
        b"% camera x\n% evt 2.0\n% geometry 240x180\n% end\n",
    )
    return [header + data for header in headers]


def evt3():
    words, high = [], None
    for t, x, y, p in zip(T.tolist(), X.tolist(), Y.tolist(), P.tolist(), strict=True):
        if t >> 12 != high:
            high = t >> 12
            words.append(0x8000 | high)
        words += [0x6000 | t & 0xFFF, y, 0x2000 | p << 11 | x]
    vectors = [0x8005, 0x6006, 0x0064, 0x3800 | 40, 0x4801, 0x5006, 0xA001, 0xE123, 0x7000]
    headers = (b"% evt 3.0\n% format EVT3;height=180;width=240\n% end\n", b"% evt 3.0\n% geometry 240x180\n% end\n")
    return [headers[0] + np.array(words, "<u2").tobytes(), headers[1] + np.array([*words, *vectors], "<u2").tobytes()]


def aedat4():
    """iniVation's container (AEDAT 4.0): a header of flatbuffers, then packets, plain or in a frame of LZ4."""
    return [_aedat(compression) for compression in (0, 1)]


def _aedat(compression):
    named = '<attr key="{}" type="{}">{}</attr>'.format
    size = named("sizeX", "int", SENSOR[1]) + named("sizeY", "int", SENSOR[0]) + named("source", "string", "DAVIS")
    stream = named("compression", "string", "LZ4" if compression else "NONE") + named(
        "typeIdentifier", "string", "EVTS"
    )
    stream += f'<node name="info" path="/outInfo/0/info/">{size}</node>'
    nodes = f'<node name="outInfo" path="/outInfo/"><node name="0" path="/outInfo/0/">{stream}</node></node>'
    info = f'<dv version="2.0">{nodes}</dv>'.encode()
    head = struct.pack("<I4s6x5H", 24, b"IOHE", 10, 20, 4, 12, 8) + struct.pack("<iiIqI", 10, compression, 12, -1, 0)
    head = head[:-4] + struct.pack("<I", len(info)) + info + b"\0" * (4 - len(info) % 4)
    file = b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(head)) + head
    for start in range(0, EVENTS, 100):
        events = b"".join(
            struct.pack("<qhhB3x", *event)
            for event in zip(*(c[start : start + 100].tolist() for c in (T, X, Y, P)), strict=True)
        )
        table = struct.pack("<I4s2x3H", 16, b"EVTS", 6, 8, 4) + struct.pack("<iII", 6, 4, len(events) // 16) + events
        packet = struct.pack("<I", len(table)) + table
        if compression:
            packet = b"\x04\x22\x4d\x18\x40\x40\xc0" + struct.pack("<I", 1 << 31 | len(packet)) + packet + bytes(4)
        file += struct.pack("<ii", 0, len(packet)) + packet
    return file


def text():
    rows = list(zip(T.tolist(), X.tolist(), Y.tolist(), P.tolist(), strict=True))[:150]
    joined = "\n".join(",".join(map(str, row)) for row in rows)
    quoted = "\n".join(",".join(f'"{value}"' for value in row) for row in rows)
    spaced = "\n".join(f"{t / 1e6:.6f} {x} {y} {p}" for t, x, y, p in rows)
    return [
        f"t,x,y,p\n{joined}\n".encode(),
        f"\ufefftimestamp,x,y,polarity\n{joined}\n".encode(),
        f'"t","x","y","p"\n{quoted}\n'.encode(),
        f"# t [us], x, y, p\n{joined}\n".encode(),
        f"{spaced}\n".encode(),
        f"t;x;y;p\n{joined.replace(',', ';')}\n".replace("\n", "\r\n").encode(),
        f"240 180\n{spaced}\n".encode(),
    ]


def hdf5():
    return [made_hdf5(fill) for fill in (_columns, _packed, _named, _matrix, _deep)]


def made_hdf5(fill):
    """The bytes of an HDF5 file that ``fill`` filled."""
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        fill(file)
    return image.getvalue()


def _columns(file):
    for name, column in zip(("t", "x", "y", "p"), (T, X, Y, P), strict=True):
        file[f"events/{name}"] = column
    file.attrs.update({"height": SENSOR[0], "width": SENSOR[1]})


def _packed(file):
    for name, column in zip(("t", "x", "y", "p"), (T, X, Y, P), strict=True):
        file.create_dataset(
            f"events/{name}", data=column, chunks=(64,), compression="gzip", shuffle=True, maxshape=(None,)
        )


def _named(file):
    file["CD/events"] = structured()
    file["CD/events"].attrs["geometry"] = "240x180"


def _matrix(file):
    file["davis/left/events"] = est(np.float64)


def _deep(file):
    for name, column in zip(("ts", "xs", "ys", "ps"), (T / 1e6, X, Y, P > 0), strict=True):
        file[f"a/b/{name}"] = column
    file.attrs["sensor_resolution"] = SENSOR
    file["a/images"] = np.zeros((2, 3, 4), np.uint8)
