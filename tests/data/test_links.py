"""Links: the labels that were guessed as class folders, in the data set's own layout."""

import numpy as np
import pytest

from eventclip.data.links import link_recordings
from eventclip.data.recordings import list_recordings
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
