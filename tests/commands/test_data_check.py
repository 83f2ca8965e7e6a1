"""``python -m eventclip.data_check`` as a user types it."""

import json
import os
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


def test_a_sound_data_set_leaves_only_what_was_asked_for(check, learnable_root, tmp_path, capsys):
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
    check(f"data={data}", f"data.root={root}", f"data.sensor_hw={sensor}")
    assert "no damage found" in capsys.readouterr().out


def test_help_needs_no_torch():
    code = "import sys, eventclip.data_check; sys.exit(any(m in sys.modules for m in ('torch', 'numba', 'lightning')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


ROWS = "x,y,t,p\n" + "".join(f"{number % 60},{number % 50},{number * 100},{number % 2}\n" for number in range(200))


def write_set(root, *classes, count=2):
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.csv").write_text(ROWS)
    return f"data.root={root}"


OWN = ("data=folder", "data.sensor_hw=[60,80]", "data.time_unit=us", "data.num_workers=0", "progress=false")


@pytest.mark.parametrize("layout", [("train/a", "train/b", "test/a", "test/b"), ("a", "b")])
def test_a_whole_folder_without_a_validation_split_has_no_damage(check, tmp_path, capsys, layout):
    check(*OWN, write_set(tmp_path / "set", *layout))
    assert "no damage found" in capsys.readouterr().out


def test_a_missing_split_is_told_with_a_way_on(check, tmp_path, capsys):
    root = write_set(tmp_path / "set", "train/a", "test/a")
    with pytest.raises(SystemExit) as stopped:
        check(*OWN, root, "splits=[training,validation,test]")
    told = str(stopped.value)
    assert "validation cannot be listed, see above" in told
    way = told.rpartition(" ")[2]
    assert way == "splits=[training,test]"
    capsys.readouterr()
    check(*OWN, root, way)
    assert "no damage found" in capsys.readouterr().out


def test_one_damaged_recording_is_named_and_the_rest_is_read(check, tmp_path, capsys):
    root = write_set(tmp_path / "set", "train/a", "test/a", count=3)
    (tmp_path / "set/test/a/0.csv").write_bytes(b"\x00\xff" * 40)
    (tmp_path / "set/test/a/pipe.csv").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "set/test/a/pipe.csv")
    (tmp_path / "set/test/a/loop.csv").symlink_to("loop.csv")
    with pytest.raises(
        SystemExit, match=r"^eventclip: 3 damaged, named above: mend or remove them, or train without them"
    ):
        check(*OWN, root)
    told = capsys.readouterr().out
    for name in ("0.csv", "pipe.csv", "loop.csv"):
        assert f"test/a/{name}" in told
    assert "training: events" in told


def test_names_that_are_numbers_or_no_utf8_are_checked(check, tmp_path, capsys):
    odd = os.fsdecode(b"caf\xe9")
    write_set(tmp_path / "here" / "7", "20240131", odd)
    check(*OWN, "data.root=7", "out=5")
    assert "no damage found" in capsys.readouterr().out
    said = json.loads((tmp_path / "here" / "5").read_text(encoding="utf-8"))
    assert sorted(said["splits"]["training"]["per_class"]) == ["20240131", odd]


def test_what_was_sorted_left_out_or_told_from_numbers_is_said(check, tmp_path, capsys):
    root = write_set(tmp_path / "set", "train/a", "test/a")
    lines = ROWS.splitlines()
    lines[5], lines[6] = lines[6], lines[5]
    (tmp_path / "set/test/a/1.csv").write_text("\n".join([*lines, "79,60,90000,1"]) + "\n")
    with pytest.raises(SystemExit, match="1 damaged"):
        check(*OWN, root)
    capsys.readouterr()
    check(*OWN, root, "data.sort=true", "data.drop_outside=true", "out=found.json")
    told = capsys.readouterr().out
    assert "test: 1 of 2 recordings, the first test/a/1.csv: 1 of 200 events were out of order" in told
    assert "test: 1 of 2 recordings, the first test/a/1.csv: 1 of 201 events lie outside the sensor" in told
    assert len(json.loads((tmp_path / "here" / "found.json").read_text())["splits"]["test"]["notes"]) == 2
