"""What the check of a data set finds, and that it finds nothing where there is nothing."""

import shutil

import numpy as np
import pytest

from eventclip.datasets.audit import check_data
from eventclip.datasets.datamodule import grouped
from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.datasets.packing import pack_split
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer


def build(root, **options):
    given = {"sensor_hw": (60, 80), "p95_events": 500, "augmentation": None, **options}
    data = NCaltech101DataModule(root=root, renderer=FrameRenderer(700), **grouped(given))
    data.connect(image_size=32)
    return data


def check(root, splits=None, **options):
    return check_data(build(root, **options), splits, progress=False)


@pytest.fixture
def root(learnable_root, tmp_path):
    return shutil.copytree(learnable_root, tmp_path / "copy")


def words(table):
    return [" ".join(line.split()) for line in table.splitlines()]


def test_a_sound_data_set_is_told_by_its_counts_and_percentiles(root):
    found = check(root)
    assert found.damaged == 0
    lines = words(found.table())
    assert "class training validation test" in lines
    assert "airplanes 6 2 4" in lines
    assert "all 3 18 6 12" in lines
    assert "training: events 600 600 600 600" in lines
    assert "no damage found" in lines
    percents = "100.0 % have fewer events than one frame takes (frames.events_per_frame=700), 100.0 % more than"
    assert any(line.startswith(f"test: {percents} data.p95_events=500") for line in lines)


def test_percentiles_and_damage_are_in_the_plain_values(root):
    for number, events in enumerate((100, 200, 300, 400)):
        path = root / "testing" / "airplanes" / f"airplanes_{number}.npy"
        np.save(path, np.load(path)[:events])
    broken = root / "testing" / "Faces_easy" / "Faces_easy_0.npy"
    broken.write_bytes(b"")
    test = check(root, ["test"]).as_dict()["splits"]["test"]
    assert test["recordings"] == 12
    assert test["per_class"] == {"Faces_easy": 4, "airplanes": 4, "yin_yang": 4}
    sizes = [100, 200, 300, 400] + [600] * 7  # the broken one counts for nothing
    assert test["events"] == {f"p{p}": np.percentile(sizes, p) for p in (5, 50, 95)} | {"max": 600}
    assert list(test["damaged"]) == ["testing/Faces_easy/Faces_easy_0.npy"]
    assert "is an empty file" in test["damaged"]["testing/Faces_easy/Faces_easy_0.npy"]


def test_damage_of_a_kind_is_told_once_with_how_often(root):
    for number in range(4):
        path = root / "testing" / "airplanes" / f"airplanes_{number}.npy"
        table = np.load(path)
        table[number + 3, 0] = 80 + number
        np.save(path, table)
    (root / "training" / "yin_yang" / "yin_yang_0.npy").write_bytes(b"rubbish")
    found = check(root)
    assert found.damaged == 5
    lines = words(found.table())
    assert sum("outside the sensor" in line for line in lines) == 1
    assert any(line.startswith("test: 4 damaged of 12, the first Event 3 at x=80") for line in lines)
    assert "testing/airplanes/airplanes_0.npy" in lines
    assert "and 1 more" in lines
    assert any(line.startswith("training: 1 damaged of 18, the first is no whole .npy file") for line in lines)
    assert "no damage found" not in lines


def test_equal_recordings_and_lost_polarity_are_no_damage(root):
    original = root / "training" / "airplanes" / "airplanes_1.npy"
    shutil.copy(original, root / "testing" / "airplanes" / "airplanes_9.npy")
    one_sided = root / "validation" / "yin_yang" / "yin_yang_0.npy"
    table = np.load(one_sided)
    table[:, 3] = 1
    np.save(one_sided, table)
    found = check(root)
    assert found.damaged == 0
    assert [sorted(group) for group in found.alike] == [
        ["testing/airplanes/airplanes_9.npy", "training/airplanes/airplanes_1.npy"]
    ]
    assert (
        "groups of recordings with the same events: 1, such as training/airplanes/airplanes_1.npy and " in found.table()
    )
    assert "validation: 1 recordings have events of one polarity only, such as validation/yin_yang" in found.table()


def test_a_split_that_cannot_be_listed_is_damage(root):
    shutil.rmtree(root / "validation")
    found = check(root)
    assert found.damaged == 1
    assert set(found.splits) == {"training", "test"}
    assert "validation cannot be listed: there is no folder" in found.table()


def test_nothing_to_read_and_an_unknown_split_are_errors(root, tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        check(tmp_path / "nowhere")
    with pytest.raises(UserError, match="splits names 'tset'"):
        check(root, ["tset"])


def test_workers_change_nothing(root):
    assert check(root).as_dict() == check(root, num_workers=2).as_dict()


def test_a_pack_is_checked_like_the_folder_it_was_made_of(root, tmp_path):
    shutil.copy(root / "training" / "airplanes" / "airplanes_1.npy", root / "testing" / "airplanes" / "airplanes_9.npy")
    out = tmp_path / "packed"
    list(pack_split(build(root), "all", out, workers=1, progress=False))
    folder, packed = check(root).as_dict(), check(None, packed=str(out)).as_dict()
    assert len(packed["alike"]) == 1
    for split in folder["splits"].values():  # what a pack tells no more
        assert list(split.pop("notes").values()) == [len(split["damaged"]) + split["recordings"]]
    for split in packed["splits"].values():
        assert split.pop("notes") == {}
    assert {**packed, "root": folder["root"]} == folder
