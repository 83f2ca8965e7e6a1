"""The data modules: layouts, names, samples, and a sentence for everything that may be wrong with a data set."""

import shutil

import numpy as np
import pytest
import torch

from eventclip.datasets.datamodule import grouped
from eventclip.datasets.folder import FolderDataModule
from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.datasets.sampling import sample_few_shot
from eventclip.errors import RecordingError, UserError
from eventclip.events.frames import FrameRenderer
from eventclip.views.augment import Augmentation

SENSOR = (60, 80)


def build(kind, root, **options):
    renderer = FrameRenderer(200)
    given = {"sensor_hw": SENSOR, "p95_events": 600, "augmentation": None, **options}
    data = kind(root=root, renderer=renderer, **grouped(given))
    data.connect(image_size=32)
    return data


@pytest.fixture
def copied_root(learnable_root, tmp_path):
    return shutil.copytree(learnable_root, tmp_path / "copy")


def test_ncaltech_names_and_counts(learnable_root):
    data = build(NCaltech101DataModule, learnable_root)
    assert data.class_folders == ("Faces_easy", "airplanes", "yin_yang")
    assert data.class_names == ["face", "airplane", "yin yang"]
    assert [len(data.split(split)) for split in ("training", "validation", "test")] == [18, 6, 12]
    assert (data.training_views, data.evaluation_views) == (2, 3)


def test_a_batch_is_uint8_views_with_their_padding_marked(learnable_root):
    data = build(NCaltech101DataModule, learnable_root, evaluation_batch_size=5)
    batch = next(iter(data.test_dataloader()))
    assert batch["views"].shape == (5, 3, 1, 32, 32)
    assert batch["views"].dtype == torch.uint8
    assert batch["valid"].dtype == torch.bool
    assert batch["valid"].all()
    assert batch["label"].tolist() == [0, 0, 0, 0, 1]
    assert batch["index"].tolist() == [0, 1, 2, 3, 4]


def test_evaluation_repeats_and_training_is_keyed_by_epoch(learnable_root):
    data = build(NCaltech101DataModule, learnable_root, augmentation=Augmentation(max_shift=3))
    evaluation, training = data.test_dataloader().dataset, data.train_dataloader().dataset
    assert torch.equal(evaluation[0, 3]["views"], evaluation[9, 3]["views"])
    assert torch.equal(training[4, 16]["views"], training[4, 16]["views"])
    assert not torch.equal(training[4, 16]["views"], training[5, 16]["views"])


@pytest.mark.parametrize("names", [("train", "test"), ("training", "testing")])
def test_a_users_folder_is_found_under_the_usual_split_names(learnable_root, tmp_path, names):
    for ours, theirs in zip(("training", "testing"), names, strict=True):
        shutil.copytree(learnable_root / ours, tmp_path / theirs)
    data = build(FolderDataModule, tmp_path)
    assert [len(data.split(split)) for split in ("training", "test")] == [18, 12]
    with pytest.raises(UserError, match=r"no folder for its validation split.*data\.splits\.validation"):
        data.split("validation")


def test_a_folder_without_splits_splits_off_a_seeded_part(learnable_root):
    parts = {}
    for seed in (0, 0, 1):
        data = build(FolderDataModule, learnable_root / "training", split_fraction=0.3, seed=seed)
        training, test = data.split("training"), data.split("test")
        assert test.class_counts().tolist() == [2, 2, 2]
        assert not set(training.paths) & set(test.paths)
        assert len(training) + len(test) == 18
        parts.setdefault(seed, []).append(test.checksum())
    assert parts[0][0] == parts[0][1] != parts[1][0]


def test_class_names_can_be_given_by_folder_or_in_order(learnable_root):
    assert build(FolderDataModule, learnable_root, class_names={"yin_yang": "tao"}).class_names[-1] == "tao"
    assert build(FolderDataModule, learnable_root, class_names=["a", "b", "c"]).class_names == ["a", "b", "c"]
    with pytest.raises(UserError, match="2 names and"):
        _ = build(FolderDataModule, learnable_root, class_names=["a", "b"]).class_names
    with pytest.raises(UserError, match="no class folder"):
        _ = build(FolderDataModule, learnable_root, class_names={"x": "y"}).class_names


def test_a_missing_data_set_says_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*nowhere: expected .*/testing/<class>/<recording>"):
        build(NCaltech101DataModule, tmp_path / "nowhere").split("test")


def test_an_empty_class_is_named(copied_root):
    for path in (copied_root / "testing" / "airplanes").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="class 'airplanes' has no recording"):
        build(NCaltech101DataModule, copied_root).split("test")


def test_a_class_that_is_in_one_split_only_is_named(copied_root):
    shutil.rmtree(copied_root / "training" / "airplanes")
    with pytest.raises(UserError, match="'airplanes' is in one of them only"):
        _ = build(NCaltech101DataModule, copied_root).training


def test_fewer_files_than_shots_is_told_with_the_remedy(learnable_root):
    data = build(NCaltech101DataModule, learnable_root, few_shot=lambda r: sample_few_shot(r, shots=7))
    with pytest.raises(UserError, match=r"'Faces_easy' .* has 6 training recordings, too few for 7 shots"):
        _ = data.training


def first_test_recording(root):
    return root / "testing" / "Faces_easy" / "Faces_easy_0.npy"


def test_an_unreadable_recording_is_told_with_its_path(copied_root):
    path = first_test_recording(copied_root)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RecordingError, match=r"Faces_easy_0\.npy is no whole \.npy file"):
        next(iter(build(NCaltech101DataModule, copied_root).test_dataloader()))


def test_an_event_outside_the_sensor_is_told_with_path_and_place(copied_root):
    with pytest.raises(RecordingError, match=r"Faces_easy_0\.npy: .*x=79, y=59 lies outside the sensor of 50 rows"):
        next(iter(build(NCaltech101DataModule, copied_root, sensor_hw=(50, 80)).test_dataloader()))


def test_an_empty_recording_is_an_error_not_another_sample(copied_root):
    np.save(first_test_recording(copied_root), np.zeros((0, 4), np.float32))
    with pytest.raises(RecordingError, match="holds no events"):
        next(iter(build(NCaltech101DataModule, copied_root).test_dataloader()))


def test_a_sensor_that_nobody_knows_is_asked_for(learnable_root):
    with pytest.raises(RecordingError, match=r"data\.sensor_hw"):
        next(iter(build(FolderDataModule, learnable_root, sensor_hw=None).test_dataloader()))


@pytest.mark.parametrize(
    "options",
    [
        {"selection": "best"},
        {"batch_size": 0},
        {"num_workers": -1},
        {"split_fraction": 1.0},
        {"splits": {"trian": "x"}},
    ],
)
def test_impossible_options_are_refused(learnable_root, options):
    with pytest.raises(UserError):
        build(FolderDataModule, learnable_root, **options)
