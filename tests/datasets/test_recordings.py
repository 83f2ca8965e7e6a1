"""What exists on disk, and a sentence for each way a data set can be laid out wrongly."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from eventclip.datasets.recordings import Recordings, list_recordings
from eventclip.errors import UserError

SUFFIXES = (".npy", ".bin")


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


@pytest.fixture
def root(tmp_path):
    return make(tmp_path / "set", "training/dog/b.npy", "training/dog/a.npy", "training/Cat/x.bin", "testing/dog/c.npy")


def listed(root, folder="training", **options):
    recordings = list_recordings(root, folder, **{"suffixes": SUFFIXES, **options})
    return [(recordings.relative(i), int(label)) for i, label in enumerate(recordings.labels)]


def test_classes_and_files_are_sorted_by_name(root):
    assert listed(root) == [("training/Cat/x.bin", 0), ("training/dog/a.npy", 1), ("training/dog/b.npy", 1)]
    recordings = list_recordings(root, "training", suffixes=SUFFIXES)
    assert recordings.class_folders == ("Cat", "dog")
    assert recordings.class_counts().tolist() == [1, 2]
    assert recordings.path(1) == root / "training/dog/a.npy"
    assert recordings.path(1).is_file()


def test_given_classes_keep_their_order_and_leave_others_out(root):
    make(root, "training/emu/e.npy")
    assert listed(root, class_folders=["dog", "Cat"])[0] == ("training/dog/a.npy", 0)
    assert [label for _, label in listed(root, class_folders=["dog", "Cat"])] == [0, 0, 1]


def test_classes_may_lie_directly_in_the_root(tmp_path):
    assert listed(make(tmp_path, "dog/a.npy"), ".") == [("dog/a.npy", 0)]


def test_hidden_and_unreadable_files_are_ignored(root):
    make(root, "training/dog/.a.npy", "training/dog/notes.txt", "training/.cache/a.npy", "training/.DS_Store")
    make(root, "training/README.txt", "training/dog/folder.npy/inside.txt")
    assert len(listed(root)) == 3


def test_suffixes_match_in_any_case_and_may_be_double(root):
    make(root, "training/Cat/A.NPY", "training/Cat/obj_td.dat.npy")
    assert [name for name, _ in listed(root)][:3] == [
        "training/Cat/A.NPY",
        "training/Cat/obj_td.dat.npy",
        "training/Cat/x.bin",
    ]
    with pytest.raises(UserError, match="has no recording"):
        listed(root, suffixes=(".dat.npy",))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow UTF-8 names only")
def test_names_that_are_not_even_utf8_are_found_again(root):
    (root / "training/dog/ü.npy").touch()
    Path(os.fsdecode(os.fsencode(root / "training/dog") + b"/\xff.npy")).touch()
    recordings = list_recordings(root, "training", suffixes=SUFFIXES)
    assert len(recordings) == 5
    assert all(recordings.path(i).is_file() for i in range(5))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda root: ("nowhere", None), "nowhere"),
        (lambda root: ("validation", None), "validation"),
        (lambda root: ("training", ["dog", "emu"]), "emu"),
        (lambda root: make(root, "training/stray.npy") and ("training", None), r"stray\.npy"),
        (lambda root: make(root, "training/emu/a.txt") and ("training", None), "emu"),
        (lambda root: (root / "empty").mkdir() or ("empty", None), "empty"),
    ],
)
def test_a_wrong_layout_is_told_with_what_was_expected(root, change, told):
    folder, classes = change(root)
    place = root if folder != "nowhere" else root / "nowhere"
    with pytest.raises(UserError, match=told) as error:
        listed(place, folder, class_folders=classes)
    assert "<class>" in str(error.value)
    assert str(root) in str(error.value)


def test_a_subset_keeps_order_repeats_and_classes(root):
    recordings = list_recordings(root, "training", suffixes=SUFFIXES)
    subset = recordings.subset([2, 0, 2])
    twice, once = "training/dog/b.npy", "training/Cat/x.bin"
    assert [subset.relative(i) for i in range(len(subset))] == [twice, once, twice]
    assert subset.class_folders == recordings.class_folders
    assert subset.class_counts().tolist() == [1, 2]
    assert len(recordings.subset([])) == 0


def of(paths, labels, root="/a"):
    return Recordings(Path(root), np.array(paths, dtype=np.bytes_), np.array(labels, np.int64), ("k", "l"))


def test_the_checksum_tells_content_but_not_order_or_place():
    recordings = of([b"k/1", b"k/2", b"l/1"], [0, 0, 1])
    checksum = recordings.checksum()
    assert len(checksum) == 64
    assert recordings.subset([2, 0, 1]).checksum() == checksum
    assert of([b"k/1", b"k/2", b"l/1"], [0, 0, 1], root="/b").checksum() == checksum
    others = [recordings.subset([0, 1]), recordings.subset([0, 1, 2, 2]), of([b"k/1", b"k/2", b"l/1"], [0, 1, 1])]
    assert len({checksum, *(other.checksum() for other in others)}) == 4


def test_a_million_paths_are_flat_memory(root):
    recordings = list_recordings(root, "training", suffixes=SUFFIXES)
    assert recordings.paths.dtype == np.dtype("S18")
    assert recordings.labels.dtype == np.int64


def test_links_that_lead_nowhere_are_listed_as_recordings(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "good.npy").touch()
    (tmp_path / "a" / "loop.npy").symlink_to("loop.npy")
    (tmp_path / "a" / "gone.npy").symlink_to("nowhere")
    (tmp_path / "round").symlink_to("round")
    listed = list_recordings(tmp_path, ".", suffixes=(".npy",))
    assert [listed.relative(i) for i in range(len(listed))] == ["a/gone.npy", "a/good.npy", "a/loop.npy"]
    assert listed.class_folders == ("a",)
