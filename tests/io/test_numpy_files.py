"""Numpy's files give numpy's arrays, the quick way and the slow one, and what is damaged or no array is refused."""

import io
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventclip.errors import RecordingError, UserError
from eventclip.events.array import EVENT_DTYPE
from eventclip.io import numpy_files
from eventclip.io.columns import read_table
from eventclip.io.formats import open_stream, read_events
from eventclip.io.numpy_files import array_in, inflated

NIMAGENET = np.dtype([("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "?")])


def recording(length=2_000, kind=NIMAGENET):
    rng = np.random.default_rng(0)
    table = np.zeros(length, kind)
    table["x"], table["y"] = rng.integers(0, 640, length), rng.integers(0, 480, length)
    table["t"], table["p"] = np.sort(rng.integers(0, 50_000, length)), rng.integers(0, 2, length)
    return table


def saved(array, **options):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def outcome(path):
    """Events or the sentence of the refusal."""
    try:
        return read_events(path)[0].tolist()
    except UserError as error:
        return str(error)


def plain_outcome(monkeypatch, path):
    """The same where Python reads every header and zipfile unpacks everything."""
    with monkeypatch.context() as patch:
        patch.setattr(numpy_files, "_plain_dtype", lambda described: None)
        patch.setattr(numpy_files, "inflated", lambda file, member: None)
        return outcome(path)


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize(
    "array",
    [
        np.arange(20, dtype=np.float32).reshape(5, 4),
        np.arange(20.0).reshape(5, 4),
        np.zeros((0, 4), np.float32),
        np.arange(3, dtype=np.uint8),
        recording(),
        recording(0),
        recording(3, [("t", "<u4"), ("x", "u1"), ("y", "<i2"), ("p", "i1"), ("extra", "<f4")]),
    ],
)
def test_plain_arrays_are_read_as_numpy_reads_them(monkeypatch, array):
    monkeypatch.setattr(numpy_files, "_described", None)  # their headers are read the quick way
    np.testing.assert_array_equal(array_in(saved(array) + b"more"), array)
    assert array_in(saved(array)).dtype == array.dtype


def test_events_of_an_archive_are_the_callers_to_change(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", event_data=read_table(recording(), None, None))
    events, _ = read_events(tmp_path / "a.npz")
    assert events.flags.writeable
    np.testing.assert_array_equal(events, read_table(recording(), None, None))


@pytest.mark.parametrize(
    "data",
    [
        saved(np.asfortranarray(np.arange(20.0).reshape(5, 4))),
        saved(np.arange(20, dtype=">f4").reshape(5, 4)),
        saved(np.zeros((2, 2, 2))),
        saved(np.array(5.0)),
        saved(np.zeros(2, [("a", "<f4", (2,)), ("b", "u1")])),
        saved(np.arange(5), version=(2, 0)),
        saved(np.array(["ab", "c"])),
        saved(np.arange(5)).replace(b"'fortran_order'", b'"fortran_order"'),
    ],
)
def test_unusual_arrays_are_read_as_numpy_reads_them(data):
    np.testing.assert_array_equal(array_in(data), np.load(io.BytesIO(data)))


def test_headers_that_python_2_wrote_are_read():
    data = saved(np.arange(20.0).reshape(5, 4)).replace(b"(5, 4), }", b"(5L, 4L)}")
    np.testing.assert_array_equal(array_in(data), np.arange(20.0).reshape(5, 4))


@pytest.mark.parametrize("descr", [b"'<f4\\d'", b"[('x', '<f4', 1or 2)]", b"'|a4'"])
def test_odd_headers_are_told_without_a_warning(tmp_path, descr):
    header = b"{'descr': " + descr + b", 'fortran_order': False, 'shape': (1, 4), }"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(RecordingError, match=r"a\.npy (is no whole \.npy file|holds an array of shape)"):
            read_events(tmp_path / "a.npy")
    assert not warned


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        saved(np.arange(5))[:60],
        saved(np.arange(5))[:-1],
        saved(np.arange(5)).replace(b"<i8", b"<i3"),
        saved(np.arange(5)).replace(b"<i8", b"|O8"),
        saved(np.arange(5)).replace(b"(5,)", b"(-5,)"),
        saved(np.arange(5)).replace(b"(5,), }" + b" " * 16, b"(9999999999999999999,), }"),
        saved(np.array([{}]), allow_pickle=True),
    ],
)
def test_what_is_no_whole_array_is_refused(data):
    with pytest.raises(RecordingError, match="is no whole"):
        array_in(data)


def write_archive(path, array, compression=zipfile.ZIP_DEFLATED, name="event_data.npy", *, zip64=True):
    with zipfile.ZipFile(path, "w", compression) as archive, archive.open(name, "w", force_zip64=zip64) as member:
        member.write(saved(array))
    return path


def test_archives_as_numpy_writes_them_are_inflated_in_one_go(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, event_data=recording(), other=np.arange(7))
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            assert inflated(file, member) == archive.read(member)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_otherwise_compressed_are_zipfiles_to_read(tmp_path, compression):
    path = write_archive(tmp_path / "a.npz", recording(), compression)
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        assert inflated(file, archive.infolist()[0]) is None
    np.savez_compressed(tmp_path / "b.npz", event_data=recording())
    assert outcome(path) == outcome(tmp_path / "b.npz")


@pytest.mark.parametrize("zip64", [True, False])
@pytest.mark.parametrize("name", ["event_data.npy", "event_data", "ereignisse_µs.npy"])
def test_archives_of_other_writers_give_the_same_events(tmp_path, name, zip64):
    path = write_archive(tmp_path / "a.npz", recording(), name=name, zip64=zip64)
    prefixed = tmp_path / "b.npz"  # zip allows anything in front; numpy looks at the first bytes and does not
    prefixed.write_bytes(b"PK\x03\x04 self-extracting" + path.read_bytes())
    np.savez(tmp_path / "c.npz", event_data=recording())
    assert outcome(path) == outcome(prefixed) == outcome(tmp_path / "c.npz")


@pytest.mark.parametrize("kind", ["u2", "f8"])
def test_archives_of_other_arrays_give_the_same_events(tmp_path, monkeypatch, kind):
    table = recording()
    np.savez_compressed(tmp_path / "a.npz", x=table["x"], y=table["y"], t=table["t"], p=table["p"].astype(kind))
    assert outcome(tmp_path / "a.npz") == plain_outcome(monkeypatch, tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "b.npz", event_data=table)
    assert outcome(tmp_path / "a.npz") == outcome(tmp_path / "b.npz")


def test_a_checksum_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, event_data=recording())
    with zipfile.ZipFile(path) as archive:
        checksum = archive.infolist()[0].CRC
    path.write_bytes(path.read_bytes().replace(checksum.to_bytes(4, "little"), b"\1\2\3\4"))
    with pytest.raises(RecordingError, match=r"no whole \.npz file \(Bad CRC-32"):
        read_events(path)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(["flip", "cut", "zeros"]), st.sampled_from(["npz", "stored.npz", "npy", "est.npy"]))
def test_damaged_files_end_as_if_read_the_slow_way(tmp_path_factory, module_patch, data, damage, kind):
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    table = recording(300)
    if kind.endswith("npz"):
        (np.savez_compressed if kind == "npz" else np.savez)(path, event_data=table)
    elif kind == "npy":
        np.save(path, table)
    else:
        np.save(path, np.stack([table["x"], table["y"], table["t"] / 1e6, table["p"]], axis=1).astype(np.float32))
    content = bytearray(path.read_bytes())
    ends = st.one_of(st.integers(0, 200), st.integers(len(content) - 150, len(content) - 1))
    place = data.draw(ends | st.integers(0, len(content) - 1))
    if damage == "flip":
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    elif damage == "cut":
        del content[place:]
    else:
        content[place : place + 8] = bytes(8)
    path.write_bytes(content)
    assert outcome(path) == plain_outcome(module_patch, path)


def damaged_archive(path, *, flag=None, shape=None, compression=zipfile.ZIP_DEFLATED, garble=False):
    """An archive with a flag set, another shape in its array's header, or other bytes in its middle."""
    data = saved(recording(100))
    if shape is not None:
        data = data.replace(b"(100,), }" + b" " * len(shape), b"(" + shape + b"), }" + b" " * 5)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("event_data.npy", data)
    content = bytearray(path.read_bytes())
    if flag is not None:
        content[6] |= flag
        content[content.rindex(b"PK\x01\x02") + 8] |= flag
    if garble:
        content[len(content) // 2 : len(content) // 2 + 20] = bytes(20)
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [
    {"flag": 1},
    {"flag": 32},
    {"compression": zipfile.ZIP_LZMA, "garble": True},
    {"compression": zipfile.ZIP_BZIP2, "garble": True},
    {"shape": b"18446744073709551616, 4"},
    {"shape": b"-5,"},
    {"shape": b"True,"},
    {"shape": b"'a',"},
])  # fmt: skip
def test_a_damaged_archive_is_one_sentence(tmp_path, damage):
    damaged_archive(tmp_path / "a.npz", **damage)
    with pytest.raises(RecordingError, match=r"a\.npz is no whole \.npz file"):
        read_events(tmp_path / "a.npz")


@pytest.mark.parametrize("header", [
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551616, 4), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999999999, 999999999999999999), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 4), }",
    b"{'descr': '<f4', 'fortran_order': False, 'shape': 4, }",
    b"{'descr': '|O8', 'fortran_order': False, 'shape': (1, 4), }",
    b"{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000000000, 4), }",
    b"{'descr': [], 'fortran_order': False, 'shape': (1, 4), }",
    b"{'descr': '<f4', 'fortran_order': 5, 'shape': (1, 4), }",
    b"{'descr': '<f4'}",
    b"  a:\n b\n",
    b"[" * 5_000,
    b"__import__('os').abort()",
    b"\0" * 50,
    b"",
])  # fmt: skip
@pytest.mark.parametrize("chunk_events", [1, 1 << 19])
def test_a_header_that_cannot_be_is_one_sentence(tmp_path, header, chunk_events):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64))
    with pytest.raises(RecordingError, match=r"a\.npy is no whole \.npy file"):
        list(open_stream(path, chunk_events=chunk_events).chunks)


@pytest.mark.parametrize("shape", [(10**17, 0), (0, 10**12), (5, 5), (2, 2, 2), (), (3,)])
def test_arrays_of_other_shapes_are_refused_in_no_time(tmp_path, shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100))
    for size in (1, 1 << 19):
        with pytest.raises(RecordingError, match="holds an array of shape"):
            list(open_stream(tmp_path / "a.npy", chunk_events=size).chunks)


@pytest.mark.long
@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_small_archive_does_not_fill_the_memory(tmp_path, compression):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive, archive.open("event_data.npy", "w") as file:
        file.write(saved(np.zeros((0, 4), np.uint8)).replace(b"(0, 4)", b"(25000000, 4)"[:6]))
        for _ in range(100):
            file.write(bytes(1 << 20))
    with pytest.raises(RecordingError, match=r"would unpack from .* bytes, which events do not"):
        read_events(tmp_path / "a.npz")


def test_an_archive_above_the_limit_is_refused_and_below_it_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", event_data=recording())
    with pytest.raises(RecordingError, match=r"would unpack to 26,\d+ bytes, more than the 20,000 that are allowed"):
        read_events(tmp_path / "a.npz", largest_bytes=20_000)
    assert len(read_events(tmp_path / "a.npz", largest_bytes=30_000)[0]) == 2_000


def test_more_in_a_member_than_announced_is_not_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("event_data.npy", saved(recording(10)) + bytes(1 << 24))
    content = path.read_bytes()
    size = (len(saved(recording(10))) + (1 << 24)).to_bytes(4, "little")
    path.write_bytes(content.replace(size, (300).to_bytes(4, "little")))
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        assert inflated(file, archive.infolist()[0]) is None
    with pytest.raises(RecordingError, match=r"no whole \.npz file"):
        read_events(path)


def test_each_format_of_numpy_is_known_by_its_first_bytes(tmp_path):
    table = recording()
    np.savez_compressed(tmp_path / "a.npz", event_data=table)
    np.save(tmp_path / "b.npy", table)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    for name in ("a.npy", "b.npz"):
        for size in (7, 1 << 19):
            chunks = list(open_stream(tmp_path / name, chunk_events=size).chunks)
            np.testing.assert_array_equal(np.concatenate(chunks), read_table(table, None, None))


def test_an_archive_in_an_archive_is_no_array(tmp_path):
    np.savez(tmp_path / "a.npz", event_data=recording())
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.write(tmp_path / "a.npz", "event_data.npy")
    with pytest.raises(RecordingError, match=r"with event_data\.npy \(it does not begin as numpy's arrays do\)"):
        read_events(tmp_path / "b.npz")


def test_pieces_have_the_layout_of_events(tmp_path):
    events = read_table(recording(), None, None)
    np.save(tmp_path / "a.npy", events)
    chunks = list(open_stream(tmp_path / "a.npy", chunk_events=300).chunks)
    assert np.concatenate(chunks).dtype.itemsize == EVENT_DTYPE.itemsize
    assert all(chunk.dtype.isalignedstruct for chunk in chunks)
