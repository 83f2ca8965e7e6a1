"""A map file is written whole, comes back as it was, and leads nowhere but into its two folders."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from eventclip.datasets.dataset import PairedViews
from eventclip.datasets.pairs import read_pairs, write_pairs
from eventclip.datasets.sources import EventFiles
from eventclip.errors import RecordingError, UserError
from eventclip.events.frames import FrameRenderer
from eventclip.views.augment import Augmentation
from eventclip.views.transform import ViewTransform

PAIRS = {"training/ant/b, 1.npy": "ant/b.jpg", 'training/ant/a "x".npy': "ant/a.jpg", "testing/ant/c.npy": "ant/a.jpg"}


@pytest.fixture
def place(tmp_path):
    """A folder with a map file, and all that it names."""
    write_pairs(tmp_path / "pairs.csv", PAIRS)
    for recording, image in PAIRS.items():
        for path in (tmp_path / "rec" / recording, tmp_path / "img" / image):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return tmp_path


def read(place, name="pairs.csv"):
    return read_pairs(place / name, recordings=place / "rec", images=place / "img")


def test_pairs_come_back_as_they_were_in_order(place):
    pairs = read(place)
    assert len(pairs) == 3
    for position, recording in enumerate(sorted(PAIRS)):
        assert pairs.recording(position) == place / "rec" / recording
        assert pairs.image(position) == place / "img" / PAIRS[recording]
        assert os.fsdecode(pairs.recordings[position]) == str(pairs.recording(position))


def test_the_same_pairs_are_the_same_bytes(place):
    write_pairs(place / "other.csv", dict(reversed(PAIRS.items())))
    assert (place / "other.csv").read_bytes() == (place / "pairs.csv").read_bytes()
    assert (place / "other.csv").read_text(encoding="utf-8").splitlines()[0] == "recording,image"


def test_names_that_are_no_utf8_keep_their_bytes(place):
    recording, image = os.fsdecode(b"ant/\xff.npy"), "ant/\u00e4\u4e2d.jpg"
    for path in (place / "rec" / recording, place / "img" / image):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    write_pairs(place / "odd.csv", {recording: image})
    pairs = read(place, "odd.csv")
    assert os.fsencode(pairs.recording(0)).endswith(b"ant/\xff.npy")
    assert pairs.image(0).name == "\u00e4\u4e2d.jpg"


def test_a_relative_folder_gives_absolute_paths(place, monkeypatch):
    monkeypatch.chdir(place)
    pairs = read_pairs("pairs.csv", recordings="rec", images="img")
    assert pairs.recording(0).is_absolute()
    assert pairs.image(0).is_file()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "begins with ''"),
        (b"recording,image\n", "names no recording"),
        (b"image,recording\na.npy,a.jpg\n", "begins with 'image,recording'"),
        (b"recording\na.npy\n", "begins with 'recording'"),
        (b"recording,image,more\na.npy,a.jpg,1\n", "begins with 'recording,image,more'"),
        (b"recording,image\na.npy\n", "1 columns in line 2"),
        (b"recording,image\na.npy,a.jpg,x\n", "3 columns in line 2"),
        (b"recording,image\n\n", "0 columns in line 2"),
        (b"recording,image\na.npy,\n", "'', which is no path"),
        (b'recording,image\n"a.npy,a.jpg\n', "is no CSV"),
        (b"recording,image\n/etc/passwd,a.jpg\n", "'/etc/passwd', which is no path below a folder, in line 2"),
        (b"recording,image\na.npy,../a.jpg\n", "'../a.jpg', which is no path"),
        (b"recording,image\na.npy,ant/../../a.jpg\n", "'ant/../../a.jpg', which is no path"),
        (b"recording,image\na.npy,a\\b.jpg\n", "which is no path"),
        (b"recording,image\na.npy,a\0b.jpg\n", "line 2"),
        (b"recording,image\na.npy,b.jpg\na.npy,c.jpg\n", "names the recording 'a.npy' 2 times"),
        (b"\x89PNG\r\n\x1a\n\0\0", "pairs.csv"),
        (b"recording,image\ntraining/ant/x.npy,ant/a.jpg\n", "1 of the 1 recordings that map file"),
        (b"recording,image\ntesting/ant/c.npy,ant\n", "1 of the 1 images that map file"),
        (b"recording,image\ntesting/ant/c.npy/d.npy,ant/a.jpg\n", "1 of the 1 recordings that map file"),
    ],
)
def test_a_file_that_is_no_map_is_told_in_one_sentence(place, content, told):
    (place / "pairs.csv").write_bytes(content)
    with pytest.raises(UserError) as raised:
        read(place)
    assert told in str(raised.value)
    assert "pairs.csv" in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_map_that_is_not_there_is_told(place):
    with pytest.raises(UserError, match=r"nowhere\.csv cannot be read"):
        read(place, "nowhere.csv")
    with pytest.raises(UserError, match=r"there is no folder .*/nowhere"):
        read_pairs(place / "pairs.csv", recordings=place / "rec", images=place / "nowhere")


@pytest.mark.parametrize("link", ["ant", "ant/a.jpg"])
def test_a_link_that_leads_out_is_refused_and_one_within_is_not(place, link):
    linked = place / "img" / link
    linked.rename(place / "img" / "kept")
    linked.symlink_to(place / "img" / "kept")
    assert len(read(place)) == 3
    (place / "img" / "kept").rename(place / "elsewhere")
    linked.unlink()
    linked.symlink_to(place / "elsewhere")
    with pytest.raises(UserError, match="leads out of"):
        read(place)


def test_a_killed_writer_leaves_the_older_map(place):
    before = (place / "pairs.csv").read_bytes()
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from eventclip.datasets.pairs import write_pairs\n"
        "write_pairs(Path(sys.argv[1]), {'a.npy': 'a.jpg'})"
    )
    done = subprocess.run([sys.executable, "-c", code, place / "pairs.csv"], check=False)
    assert done.returncode == -9
    assert (place / "pairs.csv").read_bytes() == before


@pytest.fixture
def pairs(learnable_root, tmp_path):
    """All testing recordings, all with one image."""
    names = [path.relative_to(learnable_root).as_posix() for path in learnable_root.glob("testing/*/*.npy")]
    (tmp_path / "a.jpg").touch()
    write_pairs(tmp_path / "pairs.csv", dict.fromkeys(names, "a.jpg"))
    return read_pairs(tmp_path / "pairs.csv", recordings=learnable_root, images=tmp_path)


def views(pairs, *, augmented, seed=0):
    augmentation = Augmentation(max_shift=4) if augmented else None
    transform = ViewTransform(FrameRenderer(200), image_size=32, max_views=2, augmentation=augmentation)
    return PairedViews(pairs, EventFiles(sensor_hw=(60, 80)), transform, seed=seed)


def test_a_view_depends_on_seed_epoch_and_recording_alone(pairs):
    dataset = views(pairs, augmented=True)
    assert len(dataset) == 12
    sample = dataset[1, 5]
    assert (sample["views"].dtype, tuple(sample["views"].shape), sample["index"]) == (torch.uint8, (2, 1, 32, 32), 5)
    alone = type(pairs)(pairs.root, pairs.recordings[5:6], pairs.images[5:6])
    assert torch.equal(views(alone, augmented=True)[1, 0]["views"], sample["views"])
    others = [dataset[2, 5], dataset[1, 6], views(pairs, augmented=True, seed=1)[1, 5]]
    assert not any(torch.equal(other["views"], sample["views"]) for other in others)


def test_a_view_without_augmentation_is_the_same_each_epoch(pairs):
    dataset = views(pairs, augmented=False)
    assert torch.equal(dataset[0, 3]["views"], dataset[7, 3]["views"])
    assert torch.equal(dataset[0, 3]["views"], dataset[3]["views"])


def test_a_damaged_recording_of_a_pair_is_named(pairs, tmp_path):
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY")
    torn = np.array([os.fsencode(tmp_path / "torn.npy")])
    with pytest.raises(RecordingError, match=r"torn\.npy"):
        views(type(pairs)(tmp_path, torn, torn), augmented=False)[0, 0]
