"""A kept listing holds exactly as long as the folders stay as they were."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from eventclip.datasets import recordings as index
from eventclip.datasets.recordings import Recordings, list_kept

SUFFIXES = (".npy",)


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "set"
    for name in ("ant/1.npy", "ant/2.npy", "bee/1.npy"):
        (root / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "train" / name).touch()
    settle(root)
    return root


def settle(root):
    """Let all folders look as if they had not changed for long."""
    for folder in (root / "train", *(root / "train").iterdir()):
        os.utime(folder, (1e9, 1e9))


@pytest.fixture
def listings(monkeypatch):
    """Counts how often a folder was really listed."""
    done, original = [], index.list_recordings

    def counted(*arguments, **options):
        done.append(arguments)
        return original(*arguments, **options)

    monkeypatch.setattr(index, "list_recordings", counted)
    return done


def names(root, tmp_path, **options):
    listed = list_kept(root, "train", **{"suffixes": SUFFIXES, "cache": tmp_path / "cache", **options})
    assert listed.checksum() == Recordings(root, listed.paths, listed.labels, ()).checksum()
    return [listed.relative(i) for i in range(len(listed))], listed.labels.tolist(), listed.class_folders


def test_it_is_listed_once_and_equal_ever_after(root, tmp_path, listings):
    first = names(root, tmp_path)
    assert names(root, tmp_path) == first
    assert first == (["train/ant/1.npy", "train/ant/2.npy", "train/bee/1.npy"], [0, 0, 1], ("ant", "bee"))
    assert len(listings) == 1


def add_file(top):
    (top / "bee/0.npy").touch()


def remove_file(top):
    (top / "ant/1.npy").unlink()


def rename_file(top):
    (top / "ant/1.npy").rename(top / "ant/3.npy")


def add_class(top):
    (top / "cat").mkdir()
    (top / "cat/1.npy").touch()


def remove_class(top):
    shutil.rmtree(top / "bee")


@pytest.mark.parametrize("change", [add_file, remove_file, rename_file, add_class, remove_class])
@pytest.mark.parametrize("back_dated", [False, True])
def test_any_change_is_seen(root, tmp_path, listings, change, back_dated):
    before = names(root, tmp_path)
    change(root / "train")
    if back_dated:  # a copying tool may set the old times again
        settle(root)
    after = names(root, tmp_path)
    assert after != before
    assert after == names(root, tmp_path, cache=None)


def test_folders_that_changed_just_now_are_listed_each_time(root, tmp_path, listings):
    os.utime(root / "train" / "bee", (time.time(), time.time()))
    names(root, tmp_path)
    names(root, tmp_path)
    assert len(listings) == 2


def test_other_classes_folders_and_suffixes_are_kept_apart(root, tmp_path, listings):
    everything = names(root, tmp_path)
    assert names(root, tmp_path, class_folders=["bee"]) == (["train/bee/1.npy"], [0], ("bee",))
    assert names(root, tmp_path, class_folders=["bee", "ant"])[1] == [0, 1, 1]
    assert names(root, tmp_path, suffixes=(".npy", ".bin")) == everything
    assert names(root, tmp_path) == everything
    assert len(listings) == 4


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", b"\x93NUMPY"])
def test_a_damaged_cache_is_written_anew(root, tmp_path, listings, content):
    first = names(root, tmp_path)
    (kept,) = (tmp_path / "cache/index").iterdir()
    kept.write_bytes(content)
    assert names(root, tmp_path) == first
    assert names(root, tmp_path) == first
    assert len(listings) == 2


def test_a_cache_that_cannot_be_written_is_no_error(root, tmp_path, listings):
    (tmp_path / "file").touch()
    assert names(root, tmp_path, cache=tmp_path / "file") == names(root, tmp_path, cache=None)


def test_several_may_keep_it_at_once(root, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: names(root, tmp_path), range(8)))
    assert found == [found[0]] * 8


def test_names_that_are_not_utf8_come_back(root, tmp_path, listings):
    try:
        (root / "train" / os.fsdecode(b"\xff")).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (root / "train" / os.fsdecode(b"\xff") / os.fsdecode(b"\xfe.npy")).touch()
    settle(root)
    assert names(root, tmp_path) == names(root, tmp_path)
    assert len(listings) == 1
    assert np.array_equal(list_kept(root, "train", suffixes=SUFFIXES, cache=tmp_path / "cache").labels, [0, 0, 1, 2])
