"""N-ImageNet: a thousand different names, the nine variants, the Mini, and whatever folders a user has."""

import shutil
from pathlib import Path

import pytest

import eventclip
from eventclip.datasets.datamodule import grouped
from eventclip.datasets.nimagenet import NImageNetDataModule, imagenet_names
from eventclip.datasets.recordings import read_class_list
from eventclip.datasets.sampling import read_split, sample_few_shot
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer

MINI = str(Path(eventclip.__file__).parent / "assets" / "nimagenet_mini_classes.txt")
PAPER = (
    "mode_1",
    "mode_5",
    "mode_6",
    "mode_7",
    "mode_3",
    "brightness_4",
    "brightness_5",
    "brightness_6",
    "brightness_7",
)


def build(root, **options):
    given = {"sensor_hw": (480, 640), "p95_events": 135_000, "augmentation": None, **options}
    data = NImageNetDataModule(root=root, renderer=FrameRenderer(70_000), **grouped(given))
    data.connect(image_size=32)
    return data


def test_all_thousand_names_differ_also_in_lower_case():
    names = imagenet_names()
    assert len(names) == 1000
    assert len({name.lower() for name in names.values()}) == 1000
    assert not [name for name in names.values() if "_" in name]
    assert names["n04008634"] == "projectile"
    assert names["n03773504"] == "missile"
    assert names["n04355933"] == "sunglass"
    assert names["n04356056"] == "sunglasses"
    assert (names["n01440764"], names["n15075141"]) == ("tench", "toilet paper")  # first and last


def test_the_minis_hundred_names_are_the_published_ones(golden_folder):
    lines = (golden_folder / "nimagenet_mini_classes.txt").read_text().splitlines()
    published = dict(line.split(" ", 1) for line in lines)
    assert read_class_list(MINI) == sorted(published)
    assert {wnid: imagenet_names()[wnid] for wnid in published} == published


def test_names_counts_and_views(nimagenet_root):
    data = build(nimagenet_root)
    assert data.class_names == ["tench", "goldfish", "vulture"]
    assert [len(data.split(split)) for split in ("training", "test")] == [18, 12]
    assert (data.training_views, data.evaluation_views) == (2, 2)


def test_the_mini_takes_its_classes_and_says_how_many_are_there(nimagenet_root, caplog):
    data = build(nimagenet_root, classes=MINI)
    assert data.class_folders == ("n01443537", "n01616318")
    assert data.class_names == ["goldfish", "vulture"]
    assert [len(data.split(split)) for split in ("training", "test")] == [12, 8]
    assert "extracted_train has 2 of the 100 classes asked for" in caplog.text


def test_variants_are_tested_on_by_name_and_by_the_papers_number(nimagenet_root):
    for number, name in enumerate(PAPER, 1):
        assert build(nimagenet_root, variant=number).variant == build(nimagenet_root, variant=name).variant == name
    data = build(nimagenet_root, variant=9)
    assert data.split("test").relative(0).startswith("extracted_val_brightness_7/n01440764/")
    assert data.split("training").relative(0).startswith("extracted_train/")
    assert data.describe()["recordings"] == {"training": 18, "test": 9}
    with pytest.raises(UserError, match=r"there is no folder .*/extracted_val_mode_5"):
        build(nimagenet_root, variant=2).split("test")


@pytest.mark.parametrize("variant", ["mode_2", 0, 10, "1.5"])
def test_another_variant_is_refused_with_the_choices(nimagenet_root, variant):
    with pytest.raises(UserError, match=r"one of mode_1, .*brightness_7, or its number from 1"):
        build(nimagenet_root, variant=variant)


def test_a_folder_that_is_no_wnid_is_told_and_may_be_named(nimagenet_root, tmp_path):
    root = shutil.copytree(nimagenet_root, tmp_path / "copy")
    for folder in root.iterdir():
        shutil.copytree(folder / "n01440764", folder / "n99999999")
    with pytest.raises(UserError, match=r"'n99999999' of .* none of ImageNet's 1000 wnids.*data\.class_names="):
        _ = build(root).class_names
    assert build(root, class_names={"n99999999": "unicorn"}).class_names[-1] == "unicorn"


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "cannot be read"), ("# nothing\n\n", "no name"), ("n1 a\nn2\nn1\n", "n1 twice"), (b"\xff\xfe\xff", "read")],
)
def test_a_class_list_that_is_none_is_told(nimagenet_root, tmp_path, content, told):
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"class list .*classes\.txt.*{told}"):
        build(nimagenet_root, classes=str(path))


def test_classes_of_which_none_is_there_are_an_error(nimagenet_root):
    with pytest.raises(UserError, match="n01644900 is missing"):
        build(nimagenet_root, classes=["n01644900"]).split("test")


@pytest.mark.parametrize(("prefix", "classes"), [("nimagenet-", None), ("nimagenetmini-", MINI)])
def test_the_official_splits_find_their_recordings(golden_folder, tmp_path, prefix, classes):
    files = sorted((golden_folder / "official_splits").glob(f"{prefix}*.json"))
    assert len(files) >= 2
    listed = {name for file in files for name, _ in read_split(file).pairs}
    listed |= {f"extracted_val/{name.split('/')[1]}/a.npz" for name in listed}
    for folder in {(tmp_path / name).parent for name in listed}:
        folder.mkdir(parents=True)
    for name in listed:
        (tmp_path / name).touch()
    for file in files:
        data = build(
            tmp_path,
            classes=classes,
            few_shot=lambda recordings, file=file: sample_few_shot(recordings, shots=5, split_file=file),
        )
        drawn = [(data.training.relative(i), int(label)) for i, label in enumerate(data.training.labels)]
        assert drawn == read_split(file).pairs
