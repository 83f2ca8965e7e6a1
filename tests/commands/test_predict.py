"""``python -m eventclip.predict`` and ``show`` as a user types them."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageSequence

from eventclip import EventCLIP
from eventclip.datasets.symbols import simulate_symbol
from eventclip.io.formats import read_events, readable_suffixes
from eventclip.plots.views import enlargement
from eventclip.predict import main as predict
from eventclip.prediction_table import Table
from eventclip.show import main as show

SENSOR = (128, 128)
MODEL = ("clip=tiny", "classes=[star,anchor,umbrella]", "device=cpu")
KNOWN = "sensor_hw=[128,128]"


@pytest.fixture
def films(tmp_path):
    """Three recordings in a folder."""
    for name in ("star", "anchor", "umbrella"):
        (tmp_path / "films" / "deep").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / "films" / "deep" / f"{name}.npy", simulate_symbol(name, SENSOR, np.random.default_rng(7)))
    return tmp_path / "films"


@pytest.fixture
def run(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()

    def run_command(command, *arguments):
        monkeypatch.chdir(tmp_path / "here")
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        command()

    return run_command


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_folder_becomes_one_row_a_recording_equal_to_the_api(run, films, tmp_path, capsys):
    run(predict, f"recordings={films}", *MODEL, KNOWN, "out=p.csv", "top=2")
    assert capsys.readouterr().err.splitlines()[-1] == "eventclip: p.csv: 3 recordings"
    run(predict, f"recordings='{films}/*/*.npy'", *MODEL, KNOWN, "out=p.jsonl")
    table = rows(tmp_path / "here" / "p.csv")
    lines = [json.loads(line) for line in (tmp_path / "here" / "p.jsonl").read_text().splitlines()]
    model = EventCLIP.zero_shot(["star", "anchor", "umbrella"], clip="tiny", device="cpu")
    assert [row["label"] for row in table] == ["anchor", "star", "umbrella"]
    for row, line in zip(table, lines, strict=True):
        found = model.classify(row["recording"], sensor_hw=SENSOR)
        assert float(row["probability"]) == pytest.approx(found.probability, abs=2e-6)
        assert [label["label"] for label in line["labels"]] == [label.name for label in found.labels]
        assert len(line["views"]) == int(row["views"]) == len(found.views)
        assert row["error"] == ""
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"p.csv", "p.jsonl"}


def test_an_unreadable_file_is_a_row_and_an_exit_status(films, tmp_path):
    (films / "deep" / "broken.npy").write_bytes(b"nonsense")
    command = [sys.executable, "-m", "eventclip.predict", f"recordings={films}", *MODEL, KNOWN]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    table = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["label"] for row in table] == ["anchor", "", "star", "umbrella"]
    assert "broken.npy is no whole .npy file" in table[1]["error"]
    assert "eventclip: 1 of 4 recordings could not be classified: " in done.stderr
    assert done.stderr.startswith("classifying: 4 of 4 rec in ")
    assert "Traceback" not in done.stderr


def test_an_interrupted_table_goes_on_and_ends_the_same(run, films, tmp_path, monkeypatch):
    arguments = (f"recordings={films}", *MODEL, KNOWN, "batch_views=1")
    for name, further in (("whole.csv", ()), ("windows.csv", ("window_us=100_000",))):
        run(predict, *arguments, *further, f"out={name}")
        expected = (tmp_path / "here" / name).read_text()
        (tmp_path / "here" / name).unlink()
        add, added = Table.add, []

        def stopping(self, new, add=add, added=added):
            if len(added) == 2:
                raise KeyboardInterrupt
            added.append(new)
            add(self, new)

        monkeypatch.setattr(Table, "add", stopping)
        with pytest.raises(SystemExit) as stopped:
            run(predict, *arguments, *further, f"out={name}")
        assert stopped.value.code == 130
        monkeypatch.setattr(Table, "add", add)
        (part,) = (tmp_path / "here").glob("*.part")
        part.write_text(part.read_text() + "torn in the mid")
        run(predict, *arguments, *further, f"out={name}")
        assert (tmp_path / "here" / name).read_text() == expected
        assert not list((tmp_path / "here").glob("*.part"))


def test_windows_give_a_row_each_and_a_timeline(run, films, tmp_path):
    recording = films / "deep" / "star.npy"
    run(predict, f"recordings={recording}", *MODEL, KNOWN, "out=w.csv", "window_us=50_000", "timeline=t.png")
    table = rows(tmp_path / "here" / "w.csv")
    events, _ = read_events(recording)
    assert sum(int(row["events"]) for row in table) == len(events)
    assert [int(row["window"]) for row in table] == list(range(len(table)))
    assert {row["label"] for row in table} <= {"star", "anchor", "umbrella"}
    with Image.open(tmp_path / "here" / "t.png") as image:
        picture = np.asarray(image.convert("L"))
    assert (picture < 128).sum() > 1000
    run(predict, f"recordings={films}", *MODEL, KNOWN, "out=w.csv", "window_events=20_000", "timeline=lines")
    assert {path.stem for path in (tmp_path / "here" / "lines").iterdir()} == {"star", "anchor", "umbrella"}


def test_show_draws_every_pixel_of_every_view_as_clip_gets_it(run, films, tmp_path):
    recording = films / "deep" / "star.npy"
    model = EventCLIP.zero_shot(["star", "anchor", "umbrella"], clip="tiny", device="cpu")
    views = model.views(recording, sensor_hw=SENSOR)
    for out in ("a.png", "a.gif"):
        run(show, f"recording={recording}", *MODEL, KNOWN, f"out={out}")
        with Image.open(tmp_path / "here" / out) as picture:
            pages = [np.asarray(page.convert("L")) for page in ImageSequence.Iterator(picture)]
        scale, side = enlargement(64), 64 * enlargement(64)
        for number, frame in enumerate(views.pixels[:, 0]):
            page = pages[number] if out == "a.gif" else pages[0]
            left = 9 + (0 if out == "a.gif" else number * (side + 2 + 8))
            wanted = np.kron(frame, np.ones((scale, scale), np.uint8))
            tops = range(page.shape[0] - side)
            assert any(np.array_equal(page[top : top + side, left : left + side], wanted) for top in tops), out
        assert len(pages) == (len(views) if out == "a.gif" else 1)


@pytest.mark.shared
def test_real_recordings_pass_through_predict_and_show(run, shared, tmp_path):
    folder = shared / "data" / "recordings"
    files = [p for p in folder.rglob("*") if p.suffix in readable_suffixes()]
    one_of_each = {(p.relative_to(folder).parts[0], p.suffix, p.stem if p.suffix == ".raw" else ""): p for p in files}
    chosen = sorted(one_of_each.values())
    assert {p.suffix for p in chosen} >= {".dat", ".bin", ".raw", ".aedat4", ".hdf5"}
    for number, path in enumerate(chosen):
        events, own = read_events(path)
        sensor = [] if own else [f"sensor_hw=[{events['y'].max() + 1},{events['x'].max() + 1}]"]
        run(predict, f"recordings='{path}'", *MODEL, *sensor, f"out={number}.csv", "progress=false")
        (row,) = rows(tmp_path / "here" / f"{number}.csv")
        assert row["label"] in ("star", "anchor", "umbrella")
        run(show, f"recording='{path}'", *MODEL, *sensor, f"out={number}.png")
        with Image.open(tmp_path / "here" / f"{number}.png") as image:
            assert image.size[0] > 192


@pytest.mark.parametrize(
    ("command", "arguments", "told"),
    [
        (predict, MODEL, "recordings= is missing"),
        (predict, ("recordings=a.npy",), "give either classes="),
        (predict, ("recordings=a.npy", "checkpoint=a.ckpt", "classes=[a,a]"), "classes names 'a' twice"),
        (predict, ("recordings=a.npy", "checkpoint=a.ckpt", "classes=[a,b]"), "there is no checkpoint a.ckpt"),
        (predict, ("recordings=a.npy", "classes=[]"), "classes is an empty list"),
        (predict, ("recordings=a.npy", "clip=tiny", "classes=[a,a]"), "classes names 'a' twice"),
        (
            predict,
            ("recordings=a.npy", "checkpoint=a.ckpt", "views.resize_mode=pad"),
            "views.resize_mode is what the checkpoint says",
        ),
        (predict, ("recordings=a.npy", "checkpoint=a.ckpt"), "there is no checkpoint a.ckpt"),
        (predict, ("recordings='*.npz'", *MODEL), "nothing matches recordings="),
        (predict, ("recordings=.", *MODEL), "there is no recording in ."),
        (predict, ("recordings=[]", *MODEL), "recordings= is an empty list"),
        (predict, ("recordings=a.npy", *MODEL, "out=a.txt"), "must end in .csv or .jsonl"),
        (predict, ("recordings=a.npy", *MODEL, "timeline=t.png"), "timeline= shows windows"),
        (predict, ("recordings=a.npy", *MODEL, "trust=true"), "trust=true is for checkpoints"),
        (
            predict,
            ("recordings=a.npy", *MODEL, "window_us=5", "step_us=6", "out=o.csv"),
            "step_us=6 must be no longer than window_us=5",
        ),
        (predict, ("recordings={star}", *MODEL, "out=o.csv"), "does not say how large its sensor is"),
        (predict, ("recordings={star}", *MODEL, "top=???"), "wrong at 'top': Missing mandatory value"),
        (show, (), "recording= is missing"),
        (show, ("recording={star}", KNOWN, "out=a.jpg"), "must end in .png or .gif"),
        (show, ("recording={star}",), "does not say how large its sensor is"),
        (show, ("recording={star}", KNOWN, "views.resize_mode=squash"), "resize_mode must be one of"),
    ],
)
def test_a_mistake_ends_in_one_sentence(run, films, command, arguments, told):
    with pytest.raises(SystemExit) as stopped:
        run(command, *(argument.format(star=films / "deep" / "star.npy") for argument in arguments))
    assert str(stopped.value).startswith("eventclip: ")
    assert told in str(stopped.value)
    assert "\n" not in str(stopped.value)


def test_sentences_of_the_words_come_from_a_file(run, films, tmp_path, capsys):
    sentences = {name: [f"the symbol {name}", "a photo of something"] for name in ("star", "anchor", "umbrella")}
    (tmp_path / "own.json").write_text(json.dumps(sentences))
    given = (f"recordings={films}", *MODEL, KNOWN, "out=p.csv")
    run(predict, *given, f"prompts_file={tmp_path / 'own.json'}")
    model = EventCLIP.zero_shot(list(sentences), clip="tiny", device="cpu", prompts_file=sentences)
    table = rows(tmp_path / "here" / "p.csv")
    for row in table:
        assert float(row["probability"]) == pytest.approx(
            model.classify(row["recording"], sensor_hw=SENSOR).probability, abs=2e-6
        )
    plain = EventCLIP.zero_shot(list(sentences), clip="tiny", device="cpu").classify(
        table[0]["recording"], sensor_hw=SENSOR
    )
    assert float(table[0]["probability"]) != pytest.approx(plain.probability, abs=1e-5)


def test_the_words_that_a_file_lacks_are_told(run, films, tmp_path, capsys):
    (tmp_path / "own.json").write_text('{"star": ["the symbol star"], "anchors": ["a sketch of an anchor"]}')
    with pytest.raises(SystemExit) as raised:
        run(predict, f"recordings={films}", *MODEL, KNOWN, f"prompts_file={tmp_path / 'own.json'}")
    error = f"{raised.value} {capsys.readouterr().err}"
    assert "has no sentences of class 'anchor' and 1 more classes: its anchors is close" in error
    assert "Traceback" not in error
