"""Rows in blocks: found by key, whole or absent, and never wrong whatever happens to the bytes."""

import hashlib
import io
import os

import h5py
import numpy as np
import pytest

from eventclip import blocks
from eventclip.blocks import RowStore, row_key
from eventclip.files import fingerprint

WIDTH = 5


def keys_of(*names):
    return np.array([row_key(name.encode()) for name in names], blocks.KEY)


def features_of(name):
    """1 to 3 views whose values tell the name."""
    rng = np.random.default_rng(list(name.encode()))
    return rng.standard_normal((1 + rng.integers(3), WIDTH)).astype(np.float16)


def store_with(folder, *groups):
    store = RowStore(folder)
    for names in groups:
        store.write(keys_of(*names), [features_of(name) for name in names])
    store.refresh()
    return store


def assert_rows(store, names):
    rows = store.rows(keys_of(*names))
    assert len(rows) == len(names)
    for place, name in enumerate(names):
        np.testing.assert_array_equal(rows[place], features_of(name))


@pytest.mark.parametrize("in_memory", [blocks.IN_MEMORY_BYTES, 0])
def test_rows_come_back_in_the_order_asked_for(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(blocks, "IN_MEMORY_BYTES", in_memory)
    store_with(tmp_path / "rows", "abc", "de")
    assert_rows(RowStore(tmp_path / "rows"), "dbbeac")


def test_what_is_missing_is_told_once_and_in_order(tmp_path):
    store = store_with(tmp_path, "abc")
    assert store.missing(keys_of(*"xaybx")).tolist() == [0, 2]
    assert RowStore(tmp_path / "nowhere").missing(keys_of("a")).tolist() == [0]
    with pytest.raises(KeyError, match="1 of 2 rows"):
        store.rows(keys_of("a", "x"))


def test_a_reader_finds_what_another_wrote_later(tmp_path):
    early = store_with(tmp_path, "a")
    store_with(tmp_path, "b")
    early.refresh()
    assert_rows(early, "ba")


def test_the_same_rows_are_the_same_bytes(tmp_path):
    for folder in ("one", "two"):
        store_with(tmp_path / folder, "abc")
    files = [next((tmp_path / folder).iterdir()) for folder in ("one", "two")]
    assert files[0].name == files[1].name
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_changed_byte_makes_its_block_missing_and_no_other(tmp_path):
    store_with(tmp_path, "ab", "cd")
    block = min(tmp_path.iterdir())
    whole = block.read_bytes()
    for place in np.random.default_rng(0).choice(len(whole), 40, replace=False):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        block.write_bytes(broken)
        store = RowStore(tmp_path)
        assert store.damaged == [block]
        assert store.missing(keys_of(*"abcd")).tolist() == [0, 1]
        assert_rows(store, "dc")


def test_a_block_cut_short_is_removed_and_written_again(tmp_path):
    store_with(tmp_path, "ab", "cd")
    block = max(tmp_path.iterdir())
    block.write_bytes(block.read_bytes()[:100])
    store = RowStore(tmp_path)
    store.remove(damaged_only=True)
    assert not block.exists()
    store.write(keys_of("c", "d"), [features_of("c"), features_of("d")])
    store.refresh()
    assert_rows(store, "abcd")
    assert store.damaged == []


def test_what_a_killed_writer_left_is_no_block_and_goes(tmp_path):
    store = store_with(tmp_path, "a")
    (tmp_path / ".000001-0123456789abcdef.h5.99.part").write_bytes(b"half")
    store.refresh()
    assert len(store) == 1
    assert store.damaged == []
    store.tidy()
    assert len(list(tmp_path.iterdir())) == 1


def test_removing_everything_leaves_nothing(tmp_path):
    store = store_with(tmp_path, "ab")
    store.remove(damaged_only=False)
    assert list(tmp_path.iterdir()) == []
    assert store.missing(keys_of("a")).tolist() == [0]


def test_a_name_that_fits_makes_no_block(tmp_path, damage):
    store_with(tmp_path, "ab")
    (block,) = tmp_path.iterdir()
    whole = block.read_bytes()
    block.unlink()
    for content in damage.mutants(whole, 120, head=2048):
        forged = tmp_path / f"000000-{hashlib.sha256(content).hexdigest()[:16]}.h5"
        forged.write_bytes(content)
        store = RowStore(tmp_path)
        here = [name for name in "ab" if not len(store.missing(keys_of(name)))]
        for name in here:
            assert store.rows(keys_of(name))[0].ndim == 2
        assert store.damaged or len(store) == 2
        forged.unlink()


def test_a_block_that_promises_more_than_it_holds_is_damaged(tmp_path):
    store_with(tmp_path, "ab")
    (block,) = tmp_path.iterdir()
    whole = block.read_bytes()
    for name, shape in (("keys", (1 << 40,)), ("counts", (1 << 40,)), ("values", (1 << 30, 1 << 10))):
        image = io.BytesIO(whole)
        with h5py.File(image, "r+") as file:
            dtype = file[name].dtype
            del file[name]
            file.create_dataset(name, shape, dtype)
        content = image.getvalue()
        block.unlink()
        block = tmp_path / f"000000-{hashlib.sha256(content).hexdigest()[:16]}.h5"
        block.write_bytes(content)
        assert RowStore(tmp_path).damaged == [block]


def test_a_pipe_among_the_blocks_is_not_waited_for(tmp_path):
    store_with(tmp_path, "ab")
    os.mkfifo(tmp_path / "000001-0123456789abcdef.h5")
    store = RowStore(tmp_path)
    assert [path.name for path in store.damaged] == ["000001-0123456789abcdef.h5"]
    assert_rows(store, "ab")
    store.remove(damaged_only=True)
    assert len(list(tmp_path.iterdir())) == 1


def test_rows_may_be_of_a_structured_dtype_and_no_other(tmp_path):
    dtype = np.dtype([("probability", "<f4"), ("top", "<i4", (2,))])
    values = np.zeros(3, dtype)
    values["probability"], values["top"] = [0.5, 0.25, 1.0], [[1, 2], [3, 4], [5, 6]]
    RowStore(tmp_path, dtype=dtype).write(keys_of(*"abc"), np.split(values, 3))
    rows = RowStore(tmp_path, dtype=dtype).rows(keys_of(*"cab"))
    assert [rows[i].tobytes() for i in range(3)] == [values[[i]].tobytes() for i in (2, 0, 1)]
    for other in (None, np.dtype([("probability", "<f4"), ("top", "<i4", (3,))])):
        assert len(RowStore(tmp_path, dtype=other).damaged) == 1


def test_links_out_of_a_block_are_refused(tmp_path):
    store_with(tmp_path / "one", "ab")
    (block,) = (tmp_path / "one").iterdir()
    image = io.BytesIO(block.read_bytes())
    with h5py.File(image, "r+") as file:
        del file["values"]
        file["values"] = h5py.ExternalLink(str(block), "values")
    forged = tmp_path / f"000000-{hashlib.sha256(image.getvalue()).hexdigest()[:16]}.h5"
    forged.write_bytes(image.getvalue())
    assert RowStore(tmp_path).damaged == [forged]


def test_a_fingerprint_tells_values_apart_and_no_order():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    values = ({"a": 1}, {"a": 1.5}, {"a": "1"}, {"b": 1}, [1], {"a": None}, {"a": "\udcff"})
    assert len({fingerprint(value) for value in values}) == len(values)
    assert len(fingerprint([], length=8)) == 8
