"""``python -m eventclip.data_check`` as a user types it."""

import json
import shutil
import subprocess
import sys

import pytest

from eventclip.data_check import main

SMALL = ("data.sensor_hw=[60,80]", "data.num_workers=0", "progress=false")


@pytest.fixture
def check(monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["data_check", *SMALL, *arguments])
        main()

    return run


def test_a_sound_data_set_ends_well_and_leaves_only_what_was_asked_for(check, learnable_root, tmp_path, capsys):
    check("data=ncaltech101", f"data.root={learnable_root}", "out=found.json")
    assert "no damage found" in capsys.readouterr().out
    assert json.loads((tmp_path / "here" / "found.json").read_text())["splits"]["test"]["recordings"] == 12
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["found.json"]


def test_damage_is_named_and_ends_in_a_failure(check, learnable_root, tmp_path, capsys):
    root = shutil.copytree(learnable_root, tmp_path / "copy")
    (root / "testing" / "airplanes" / "airplanes_0.npy").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"^eventclip: 1 damaged, named above: mend or remove") as stopped:
        check("data=ncaltech101", f"data.root={root}", "splits=[test]", "out=found.json")
    assert stopped.value.code != 0
    assert "testing/airplanes/airplanes_0.npy" in capsys.readouterr().out
    assert (tmp_path / "here" / "found.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("data.root=/nowhere",), "there is no folder /nowhere"),
        (("data=folder",), "data.root"),
        (("splits=[tset]",), "splits[0] must be one of training, validation, test, got 'tset'"),
        (("data.sensor_hw=180",), "data"),
        (("splits=[test]", "out=/proc/no/such.json"), "out=/proc/no/such.json cannot be written"),
    ],
)
def test_a_mistake_ends_in_one_sentence(check, learnable_root, arguments, told):
    with pytest.raises(SystemExit, match=r"^eventclip: ") as stopped:
        check(f"data.root={learnable_root}", *arguments) if "data=folder" not in arguments else check(*arguments)
    assert told in str(stopped.value)
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize("data", ["ncars", "nimagenet", "nimagenet_mini", "folder"])
def test_every_data_set_can_be_checked(check, data, ncars_root, nimagenet_root, capsys):
    root, sensor = (nimagenet_root, "[480,640]") if "nimagenet" in data else (ncars_root, "[100,120]")
    options = ["splits=[training,test]"] if data == "folder" else []
    check(f"data={data}", f"data.root={root}", f"data.sensor_hw={sensor}", *options)
    assert "no damage found" in capsys.readouterr().out


def test_help_needs_no_torch():
    code = "import sys, eventclip.data_check; sys.exit(any(m in sys.modules for m in ('torch', 'numba', 'lightning')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
