import os
import threading
from pathlib import Path

import numpy as np
import pytest

from eventclip.datasets import symbols
from eventclip.datasets.symbols import make_symbols, simulate_symbol
from eventclip.errors import UserError
from eventclip.io.formats import read_events
from eventclip.rng import generator
from eventclip.simulation.drawings import CLASSES


def make(folder, **options):
    return make_symbols(folder, **({"training": 1, "testing": 1, "sensor_hw": (32, 32), "progress": False} | options))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make(tmp_path_factory.mktemp("cache"), training=2)


def test_the_layout_is_that_of_ncaltech101(root):
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.npy"))
    names = [name.replace(" ", "_") for name in CLASSES]
    assert files == sorted(
        [f"testing/{name}/000.npy" for name in names]
        + [f"training/{name}/{i:03d}.npy" for name in names for i in (0, 1)]
    )


def test_a_file_holds_the_events_that_its_generator_gives(root):
    events, _ = read_events(root / "training" / "chess_king" / "001.npy")
    expected = simulate_symbol("chess king", (32, 32), generator(0, "symbols training chess king", index=1))
    np.testing.assert_array_equal(events, expected)


def test_a_recording_does_not_depend_on_the_others(root, tmp_path):
    other = make(tmp_path, training=1, workers=1)
    for path in other.rglob("*.npy"):
        assert path.read_bytes() == (root / path.relative_to(other)).read_bytes()


def test_seed_and_split_change_every_recording(root, tmp_path):
    other = make(tmp_path, seed=1)
    for path in root.glob("*/*/000.npy"):
        assert path.read_bytes() != (other / path.relative_to(root)).read_bytes()
    for path in root.glob("testing/*/000.npy"):
        assert path.read_bytes() != (root / "training" / path.parent.name / path.name).read_bytes()


def test_settings_have_folders_of_their_own(tmp_path):
    roots = {make(tmp_path, **options) for options in ({}, {"seed": 1}, {"testing": 2}, {"sensor_hw": (32, 48)})}
    assert len(roots) == 4


def test_what_is_there_is_not_made_again(root, monkeypatch):
    monkeypatch.setattr(symbols, "simulate_symbol", None)
    assert make(root.parent, training=2) == root


def test_two_that_start_at_once_make_it_once(tmp_path, monkeypatch):
    filmed, film = [], symbols.simulate_symbol
    monkeypatch.setattr(symbols, "simulate_symbol", lambda *a: filmed.append(a[0]) or film(*a))
    roots = []
    threads = [threading.Thread(target=lambda: roots.append(make(tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(roots)) == 1
    assert len(roots) == 3
    assert len(filmed) == 2 * len(CLASSES)


def test_an_interrupted_making_leaves_nothing_complete(tmp_path, monkeypatch):
    film = symbols.simulate_symbol

    def stop_at_hearts(name, *rest):
        if name == "heart":
            raise KeyboardInterrupt
        return film(name, *rest)

    monkeypatch.setattr(symbols, "simulate_symbol", stop_at_hearts)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    monkeypatch.undo()
    assert len(list(make(tmp_path).rglob("*.npy"))) == 2 * len(CLASSES)


def test_a_cache_that_cannot_be_written_names_its_setting(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match=r"cannot be written to .*file.*set paths\.cache to"):
        make(blocked / "cache")
    assert [*tmp_path.iterdir()] == [blocked]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_says_which_setting_to_change(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match=r"set paths\.cache to"):
        make(tmp_path)


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, array):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(UserError, match=r"No space left on device.*paths\.cache"):
        make(tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"training": 0}, "at least 1 training"),
        ({"testing": -1}, "at least 1 training"),
        ({"sensor_hw": (16, 128)}, "at least 32x32"),
        ({"workers": 0}, "at least 1 worker"),
    ],
)
def test_numbers_out_of_range_are_named(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        make(tmp_path, **options)
    assert not any(Path(tmp_path).iterdir())


def test_a_recording_lasts_three_saccades_half_of_it_picture():
    noisy = simulate_symbol("star", (128, 128), np.random.default_rng(0))
    assert 15_000 < len(noisy) < 100_000
    assert 250_000 < noisy["t"][-1] - noisy["t"][0] <= 300_000
