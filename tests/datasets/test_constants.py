"""What a data set says of itself: the same to who composes a configuration and to who does not."""

from dataclasses import asdict
from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate

from eventclip.config.composition import CONFIG_DIR, register_schema
from eventclip.datasets.datamodule import EventDataModule, ViewOptions, grouped
from eventclip.datasets.folder import FolderDataModule
from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.datasets.sampling import Sampling, sample_few_shot
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer
from eventclip.io.formats import ReadOptions

DATA_SETS = ("ncaltech101", "ncars", "nimagenet", "nimagenet_mini", "folder", "symbols")


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_class_has_the_constants_of_its_configuration(name):
    register_schema()
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("train", [f"data={name}", "clip=vit_b_32", "paths.cache=/nowhere"])
    kind = get_class(cfg.data._target_)
    assert issubclass(kind, EventDataModule)
    assert cfg.data.sensor_hw == (None if kind.sensor_hw is None else list(kind.sensor_hw))
    assert cfg.data.p95_events == kind.p95_events
    assert instantiate(cfg.data.augmentation) == kind.augmentation
    assert instantiate(cfg.frames) == FrameRenderer(kind.events_per_frame, **kind.frames)
    assert cfg.data.get("split_fraction", 0.2) == Sampling().split_fraction
    assert dict(cfg.views) == asdict(ViewOptions())
    reading = {key: cfg.data[key] for key in asdict(ReadOptions()) if key in cfg.data}
    assert ReadOptions(**reading) == ReadOptions()


def test_a_data_set_works_without_a_configuration(learnable_root):
    data = NCaltech101DataModule(learnable_root, sensor_hw=(60, 80), batch_size=6)
    data.connect(image_size=32)
    assert data.renderer == FrameRenderer(20_000)
    assert data.augmentation == NCaltech101DataModule.augmentation
    assert data.class_names == ["face", "airplane", "yin yang"]
    batch = next(iter(data.train_dataloader()))
    assert batch["views"].shape == (6, 2, 1, 32, 32)
    assert batch["valid"].tolist() == [[True, False]] * 6
    assert batch["share"] == (6, 6)
    assert not torch.equal(batch["views"][0], batch["views"][1])


def test_ones_own_data_set_is_its_constants(learnable_root):
    class Own(FolderDataModule):
        sensor_hw = (60, 80)
        events_per_frame = 200
        p95_events = 600
        folders = {"training": "training", "test": "validation"}
        names = {"yin_yang": "tao"}

    data = Own(learnable_root, sampling=Sampling(few_shot=partial(sample_few_shot, shots=2)))
    assert (len(data.training), len(data.recordings("test"))) == (6, 6)
    assert data.class_names == ["faces easy", "airplanes", "tao"]
    assert (data.training_views, data.evaluation_views) == (2, 3)
    assert data.dataset("test")[0]["views"].shape == (3, 1, 224, 224)


def test_what_is_known_later_comes_by_one_call(learnable_root):
    data = NCaltech101DataModule(learnable_root, sensor_hw=(60, 80))
    data.connect(tested="training")
    assert len(data.recordings("test")) == 18
    data.connect(image_size=16)
    assert data.dataset("test")[0]["views"].shape[-1] == 16
    for wrong in ({"image_size": 0}, {"tested": "testing"}):
        with pytest.raises(UserError, match=next(iter(wrong))):
            data.connect(**wrong)


def test_settings_side_by_side_become_options():
    flat = {"columns": "xytp", "sort": True, "selection": "test", "training_views": 1, "batch_size": 3}
    assert grouped(flat) == {
        "reading": ReadOptions(columns="xytp", sort=True),
        "views": ViewOptions(training_views=1),
        "sampling": Sampling(selection="test"),
        "batch_size": 3,
    }
