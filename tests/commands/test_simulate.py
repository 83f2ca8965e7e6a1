"""``python -m eventclip.simulate`` as a user types it."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from eventclip.config.composition import CONFIG_DIR
from eventclip.simulate import main
from eventclip.simulation.camera import EventCamera
from eventclip.simulation.folder import Simulation

SMALL = ("sensor_hw=[30,40]", "amplitude_px=4", "saccade_us=20_000")


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    for name in ("ant", "bass"):
        (root / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (24, 32), np.uint8)
            Image.fromarray(pixels).save(root / name / f"image_{number}.jpg")
    return root


def run_here(monkeypatch, tmp_path, *arguments):
    (tmp_path / "here").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", ["simulate", *arguments])
    main()


def test_it_says_what_it_made_and_leaves_nothing_else_behind(images, tmp_path):
    (tmp_path / "here").mkdir()
    command = [sys.executable, "-m", "eventclip.simulate", f"images={images}", "out=../out", "workers=2", *SMALL]
    ran = subprocess.run(command, cwd=tmp_path / "here", capture_output=True, text=True, check=True)
    assert "2 classes, 2 training, 2 validation, 2 testing recordings, 6 of them new" in ran.stdout
    assert "simulating: 6 of 6 img in " in ran.stderr
    assert len(list((tmp_path / "out").rglob("*.npy"))) == 6
    assert not list((tmp_path / "here").iterdir())


def test_a_relative_out_is_found_again_by_a_second_run(images, tmp_path, monkeypatch, capsys):
    for new in (6, 0):
        run_here(monkeypatch, tmp_path, f"images={images}", "out=made", "progress=false", *SMALL)
        assert f"{new} of them new" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["made"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "eventclip: images= is missing, "),
        (("images={images}",), "eventclip: out= is missing, "),
        (("images=nowhere", "out=made"), "eventclip: there is no folder nowhere"),
        (("images={images}", "out=made", "camera.log_eps=0"), "eventclip: The event camera's log_eps"),
        (("images={images}", "out=made", "split.training=0.5"), "eventclip: split must"),
        (("images={images}", "out=made", "+camera.gain=2"), "eventclip: camera.gain is no setting"),
        (("images={images}", "out=made", "+speed=2"), "eventclip: speed is no setting"),
        (("images={images}", "out=made", "sensor_hw=180"), "eventclip: sensor_hw must"),
        (("images={images}", "out=made", "leave_out=ant"), "eventclip: leave_out must"),
        (("images={images}", "out={images}/made"), "eventclip: the recordings cannot lie within the images"),
    ],
)
def test_a_mistake_ends_in_one_sentence(images, tmp_path, monkeypatch, arguments, told):
    filled = [argument.format(images=images) for argument in arguments]
    with pytest.raises(SystemExit) as stopped:
        run_here(monkeypatch, tmp_path, *filled)
    assert str(stopped.value).startswith(told)
    assert "\n" not in str(stopped.value)
    assert not list((tmp_path / "here").iterdir())


def test_the_configuration_names_every_setting_and_no_other():
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("simulate")
    fields = {field.name for field in dataclasses.fields(Simulation)}
    assert set(cfg) == fields | {"images", "out", "leave_out", "workers", "progress"}
    assert set(cfg.camera) == {field.name for field in dataclasses.fields(EventCamera)}
    assert dict(cfg.split) == Simulation(camera=EventCamera()).split
