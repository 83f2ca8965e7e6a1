"""``python -m eventclip.pairs`` as a user types it."""

import subprocess
import sys

import pytest

from eventclip.datasets.pairs import read_pairs
from eventclip.pairs import main


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Two recordings and their images."""
    for name in ("rec/training/ant/1.npy", "rec/testing/ant/2.npy", "img/ant/1.jpg", "img/ant/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_says_what_it_found_and_leaves_nothing_else_behind(place):
    command = [sys.executable, "-m", "eventclip.pairs", "recordings=rec", "images=img", "out=pairs.csv"]
    ran = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True)
    assert ran.stdout == "pairs.csv: 2 of 2 recordings, 2 images\n"
    assert sorted(path.name for path in place.iterdir()) == ["img", "pairs.csv", "rec"]
    assert len(read_pairs(place / "pairs.csv", recordings=place / "rec", images=place / "img")) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "recordings= is missing, the folder of recordings"),
        (("recordings=rec", "images=img"), "out= is missing, the map file to write"),
        (("recordings=rec", "out=p.csv"), "images= is missing, the folder of images"),
        (("recordings=rec", "images=nowhere", "out=p.csv"), "there is no folder nowhere: give images="),
        (("recordings=rec", "originals=nowhere", "out=p.csv"), "there is no folder nowhere: give originals="),
        (("recordings=rec", "originals=rec", "out=p.csv"), "none of the 2 recordings has one of the 2 originals"),
        (("recordings=rec", "images=img", "out=p.csv", "workers=0"), "workers must be a whole number"),
        (("recordings=rec", "images=img", "out=p.txt"), "out=p.txt must be a file that ends in .csv"),
    ],
)
def test_a_mistake_ends_in_one_sentence(place, monkeypatch, arguments, told):
    monkeypatch.setattr(sys, "argv", ["pairs", *arguments, "progress=false"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert str(stopped.value).startswith(f"eventclip: {told}")
    assert "\n" not in str(stopped.value)
    assert sorted(path.name for path in place.iterdir()) == ["img", "rec"]
