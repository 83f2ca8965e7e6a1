"""``python -m eventclip.align`` as a user types it."""

import subprocess
import sys

import pytest
from PIL import Image

from eventclip import load_clip
from eventclip.align import main
from eventclip.datasets.images import find_images
from eventclip.models.alignment import aligned_state, read_alignment, write_alignment
from eventclip.models.tuning import tune

SMALL = (
    *("clip=tiny", "tuning=batchnorm", "num_workers=1", "simulation.sensors=[[24,32]]", "batch_size=6"),
    *("trainer.max_epochs=2", "heldout.share=0.3"),
)


@pytest.fixture
def place(shapes_root, tmp_path, monkeypatch):
    """Ten images, and nothing else."""
    (tmp_path / "images").mkdir()
    for number in range(10):
        (tmp_path / "images" / f"{number}.png").write_bytes(find_images(shapes_root).path(number).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EVENTCLIP_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def typed(monkeypatch):
    """Type the command; gives the sentence it ends with."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["align", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert "\n" not in str(ended.value)
        return str(ended.value)

    return run


def test_it_writes_a_file_and_says_how_to_use_it(place):
    words = [sys.executable, "-m", "eventclip.align", "images=images", *SMALL, "out=aligned.safetensors"]
    ran = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "recall@1 of held-out images: " in ran.stdout + ran.stderr
    assert "aligned.safetensors: give it as clip.aligned=aligned.safetensors; pictures and results: " in (
        ran.stdout + ran.stderr
    )
    assert sorted(path.name for path in place.iterdir()) == [
        "aligned.safetensors",
        "aligned.safetensors.run",
        "cache",
        "images",
    ]
    made = sorted(path.name for path in (place / "aligned.safetensors.run").iterdir())
    assert made == [
        ".hydra",
        "align.log",
        "checkpoints",
        "csv",
        "pictures",
        "results.json",
        "starts.json",
        "tensorboard",
    ]
    assert load_clip("tiny", aligned=place / "aligned.safetensors").describe()["aligned"]
    log = (place / "aligned.safetensors.run" / "align.log").read_text()
    assert "Traceback" not in log
    assert "arning" not in ran.stderr, ran.stderr
    again = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr.startswith("eventclip: out=aligned.safetensors is there already")
    assert again.stderr.count("\n") == 1


def test_a_tilde_is_the_home_for_the_file_and_its_run(place, monkeypatch):
    (place / "home").mkdir()
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.setattr(sys, "argv", ["align", "images=images", *SMALL, "num_workers=0", "out=~/a,b=c.safetensors"])
    main()
    assert sorted(path.name for path in (place / "home").iterdir()) == ["a,b=c.safetensors", "a,b=c.safetensors.run"]
    assert not (place / "~").exists()


MISTAKES = [
    (("out=a.safetensors",), "images= is missing, the folder of images: eventclip align images=DIR"),
    (("images=images",), "out= is missing, the file to write"),
    (("images=nowhere", "out=a.safetensors"), "there is no folder nowhere: images= is a folder with images"),
    (("images=images/0.png", "out=a.safetensors"), "there is no folder images/0.png"),
    (("images=cache", "out=a.safetensors"), "there is no image in cache: expected files that end in"),
    (("images=images", "out=a.safetensors", "pairs.map=p.csv"), "there is no file p.csv: pairs.map is what eventclip"),
    (
        ("images=images", "out=a.safetensors", "clip.aligned=x.safetensors"),
        "clip.aligned=x.safetensors is an alignment",
    ),
    (("images=images", "out=a.safetensors", "resume=x.ckpt"), "there is no checkpoint x.ckpt"),
    (("images=images", "out=a.safetensors", "batch_size=1"), "batch_size must be a whole number from 2"),
    (("images=images", "out=a.safetensors", "on_bad_image=keep"), "on_bad_image must be one of error, skip"),
    (("images=images", "out=a.safetensors", "heldout.share=1"), "heldout.share must be"),
    (("images=images", "out=a.safetensors", "loss.distance=l2"), "loss.distance must be one of"),
    (("images=images", "out=a.safetensors", "simulation.speed=fast"), "simulation.speed"),
    (("images=images", "out=a.safetensors", "simulation.sensors=[[3,4]]"), "simulation.sensors"),
    (("images=images", "out=a.safetensors", "clip.precision=fp16"), "tuning=full with clip.precision=fp16 would lose"),
    (("images=images", "out=a.safetensors", "features=live"), "features=live keeps nothing of what frozen CLIP sees"),
    (("images=images", "out=a.pt"), "out=a.pt must end in .safetensors"),
    (("images=images", "out=images/0.png/a.safetensors"), "images/0.png/a.safetensors"),
    (("images=images", "out=a.safetensors", "loss.keep=1"), "loss.keep"),
]


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_ends_in_one_sentence(place, typed, words, told):
    (place / "cache").mkdir()
    said = typed("clip=tiny", "num_workers=0", *words)
    assert said.startswith("eventclip: ")
    assert told in said
    assert sorted(path.name for path in place.iterdir()) == ["cache", "images"]
    assert not list((place / "cache").iterdir())


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named(place, typed, workers):
    (place / "images" / "bad.jpg").write_bytes(b"no image")
    said = typed("images=images", "out=a.safetensors", *SMALL, f"num_workers={workers}")
    assert said.startswith(f"eventclip: {place / 'images' / 'bad.jpg'} cannot be read as an image")
    (place / "images" / "bad.jpg").unlink()
    Image.new("RGB", (40, 30), (9, 9, 9)).save(place / "images" / "one.png")
    said = typed("images=images", "out=a.safetensors", *SMALL, f"num_workers={workers}")
    assert said == (
        f"eventclip: {place / 'images' / 'one.png'} is of a single gray or colour, which gives no events: take it out"
    )


def test_an_alignment_begins_at_clip_itself(place, typed):
    encoder = load_clip("tiny")
    tune(encoder, "batchnorm")
    write_alignment(place / "old.safetensors", encoder, aligned_state(encoder.visual), tuning={"parts": "x"}, made={})
    read_alignment(place / "old.safetensors")
    said = typed("images=images", "out=a.safetensors", *SMALL, "clip.aligned=old.safetensors")
    assert said.endswith("is an alignment already, and each begins at CLIP itself: give clip.aligned=null")
