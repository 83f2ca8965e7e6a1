"""Damaged tables give events in order or one sentence, and in pieces of any size the same as whole."""

import gzip
import io
import zlib

import h5py
import numpy as np
import pytest

from eventclip.errors import RecordingError
from eventclip.io.formats import ReadOptions, open_stream

MUTANTS = 60
COUNT = 200
SIZES = (7, 64, 1 << 19)


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def archived(compress, **arrays):
    file = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(file, **arrays)
    return file.getvalue()


def hdf5(write):
    file = io.BytesIO()
    with h5py.File(file, "w") as opened:
        write(opened)
    return file.getvalue()


def text(columns, form, header="", delimiter=" "):
    file = io.StringIO()
    np.savetxt(file, np.stack(columns, axis=1), form, delimiter, header=header, comments="")
    return file.getvalue().encode()


@pytest.fixture(scope="module")
def recordings(encoders):
    """A sound recording of each kind of table, by its name."""
    events = encoders.made(COUNT)
    t, x, y, p = (events[name] for name in "txyp")
    est = np.stack([x, y, t / 1e6, 2.0 * p - 1], axis=1)
    fields = np.zeros(COUNT, [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "?")])
    for name in "txyp":
        fields[name] = events[name]

    def chunked(file):
        for name in "txyp":
            file.create_dataset(f"events/{name}", data=events[name], chunks=(37,), compression="gzip")
        file["events"].attrs.update({"height": [180], "width": 240})

    def floating(file):
        file["davis/left/events"] = est
        file["davis/left/events"].attrs["sensor_resolution"] = (180, 240)

    return {
        "est.npy": saved(est.astype(np.float32)),
        "fortran.npy": saved(np.asfortranarray(est)),
        "fields.npy": saved(fields),
        "own.npy": saved(events),
        "deflated.npz": archived(True, event_data=fields),
        "stored.npz": archived(False, t=t, x=x, y=y, p=2 * p.astype(int) - 1),
        "archive.npy": archived(False, event_data=est),
        "chunked.h5": hdf5(chunked),
        "matrix.hdf5": hdf5(floating),
        "fields.h5": hdf5(lambda file: file.create_dataset("CD/events", data=fields)),
        "named.csv": text([t, x, y, 2 * p.astype(int) - 1], "%d", "t,x,y,p", ","),
        "plain.txt": text([t / 1e6, x, y, p], ["%.6f", "%d", "%d", "%d"], "240 180"),
        "odd.csv": text([t, x, y, p], '"%d"', '"t [ms]";"x";"y";"p"', ";"),
        "packed.csv.gz": gzip.compress(text([x, y, p, t], "%d", delimiter="\t"), mtime=0),
    }


def outcome(path, chunk_events, **options):
    """Events of a file, or the sentence about it."""
    events = []
    try:
        events += open_stream(path, ReadOptions(**options), chunk_events=chunk_events).chunks
    except RecordingError as error:
        return str(error)
    return np.concatenate(events).tolist() if events else []


def mutated(content, rng):
    """Flip bits, write odd bytes, cut, repeat or leave out a part, mostly near the beginning or the end."""
    damaged = bytearray(content)
    length = int(rng.integers(1, 200))
    place = int(rng.integers(len(damaged)) if rng.random() < 0.5 else rng.integers(min(len(damaged), 300)))
    match int(rng.integers(6)):
        case 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        case 1:
            damaged[place : place + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"-1e9"])
        case 2:
            del damaged[place:]
        case 3:
            damaged[place:place] = damaged[place : place + length]
        case 4:
            del damaged[place : place + length]
        case 5:
            damaged[place] = rng.choice(list(b'\n,;-.e_#n"\0 '))
    return bytes(damaged)


KINDS = ("est.npy", "fortran.npy", "fields.npy", "own.npy", "deflated.npz", "stored.npz", "archive.npy", "chunked.h5",
         "matrix.hdf5", "fields.h5", "named.csv", "plain.txt", "odd.csv", "packed.csv.gz")  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_pieces_and_whole_agree_on_damaged_tables(tmp_path, recordings, name):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    path = tmp_path / name
    path.write_bytes(recordings[name])
    assert len(outcome(path, 64)) == COUNT
    assert outcome(path, 7) == outcome(path, 64) == outcome(path, 1 << 19)
    told = set()
    for number in range(MUTANTS):
        path.write_bytes(mutated(recordings[name], rng))
        options = {"sort": number % 3 == 1, "drop_outside": number % 4 == 1}
        found = [outcome(path, size, **options) for size in SIZES]
        assert found[0] == found[1] == found[2], f"mutant {number}"
        if isinstance(found[0], str):
            assert found[0].startswith(str(path))
            assert "\n" not in found[0]
            told.add(found[0])
    assert len(told) > 3
