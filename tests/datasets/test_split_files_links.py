"""Links: the labels that were guessed as class folders, in the data set's own layout."""

import os
from dataclasses import replace

import numpy as np
import pytest

from eventclip.datasets.recordings import list_recordings
from eventclip.datasets.split_files import link_recordings
from eventclip.errors import UserError


@pytest.fixture
def recordings(tmp_path):
    for split, classes in (("training", ("cat", "dog")), ("testing", ("cat", "dog"))):
        for name in classes:
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(2):
                (tmp_path / "set" / split / name / f"{number}.npy").write_text(f"{split} {name} {number}")
    return list_recordings(tmp_path / "set", "training", suffixes=(".npy",))


def test_links_lie_in_the_guessed_class_beside_the_other_splits(recordings, tmp_path):
    guessed = recordings.relabelled([0, 1, 1, 0], np.ones(4, bool))
    assert link_recordings(tmp_path / "links", guessed.subset([0, 1, 2])) == 3
    found = {
        str(path.relative_to(tmp_path / "links")): path.read_text()
        for path in (tmp_path / "links").rglob("*.npy")
        if "testing" not in path.parts
    }
    assert found == {
        "training/cat/0.npy": "training cat 0",
        "training/dog/1.npy": "training cat 1",
        "training/dog/0.npy": "training dog 0",
    }
    assert (tmp_path / "links" / "testing" / "dog" / "1.npy").read_text() == "testing dog 1"


def test_two_recordings_of_one_name_in_a_class_both_stay(recordings, tmp_path):
    assert link_recordings(tmp_path / "links", recordings.relabelled([0, 0, 0, 1], np.ones(4, bool))) == 4
    assert (tmp_path / "links/training/cat/cat_0.npy").read_text() == "training cat 0"
    assert (tmp_path / "links/training/cat/dog_0.npy").read_text() == "training dog 0"
    assert (tmp_path / "links/training/cat/1.npy").read_text() == "training cat 1"


def test_a_repeated_recording_is_linked_once(recordings, tmp_path):
    assert link_recordings(tmp_path / "links", recordings.subset([0, 0, 1])) == 2


def test_a_folder_in_use_is_refused(recordings, tmp_path):
    with pytest.raises(UserError, match=r"links=.*set is not empty"):
        link_recordings(tmp_path / "set", recordings)


@pytest.mark.parametrize("name", ["../../escape", "/escape", "..", "", "a/b", "a\nb", "a\\b", "\ud800"])
def test_no_link_is_made_outside_its_folder(recordings, tmp_path, name):
    classes = replace(recordings, class_folders=(name, "dog"))
    paths = replace(recordings, paths=np.array([f"{name}/cat/0.npy".encode("utf-8", "replace")] * 4))
    for odd in (classes, paths) if name not in ("a/b", "\ud800") else (classes,):
        with pytest.raises(UserError, match="cannot be linked"):
            link_recordings(tmp_path / "deep" / "links", odd)
    assert not (tmp_path / "deep").exists()
    assert not list(tmp_path.glob("escape*"))


def test_a_pack_has_no_files_to_link_to(recordings, tmp_path):
    (tmp_path / "pack.h5").touch()
    with pytest.raises(UserError, match=r"links= leads to the recordings' own files and .*pack\.h5 is no folder"):
        link_recordings(tmp_path / "links", replace(recordings, root=tmp_path / "pack.h5"))


def test_names_that_are_not_utf8_are_linked(tmp_path):
    odd = os.fsdecode(b"caf\xe9")
    (tmp_path / "set" / odd).mkdir(parents=True)
    (tmp_path / "set" / odd / "20240131.npy").write_text("here")
    listed = list_recordings(tmp_path / "set", ".", suffixes=(".npy",))
    assert link_recordings(tmp_path / "links", listed) == 1
    assert (tmp_path / "links" / odd / "20240131.npy").read_text() == "here"
