"""Samples have as many views as there are; only a batch is padded."""

import numpy as np
import pytest
import torch

from eventclip.datasets.dataset import RecordingDataset, collate
from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.datasets.samplers import SharedBatch
from eventclip.errors import RecordingError
from eventclip.events.frames import FrameRenderer
from eventclip.views.augment import Augmentation
from eventclip.views.transform import ViewTransform

SENSOR = (60, 80)


def sample(count, *, name="views", index=0):
    values = torch.randint(1, 256, (count, 1, 4, 4), dtype=torch.uint8) if name == "views" else torch.rand(count, 8)
    return {name: values, "label": index % 3, "index": index}


@pytest.fixture
def data(learnable_root):
    data = NCaltech101DataModule(
        learnable_root,
        renderer=FrameRenderer(200),
        sensor_hw=SENSOR,
        p95_events=1000,
        augmentation=None,
        batch_size=4,
    )
    data.connect(image_size=32)
    return data


@pytest.mark.parametrize("name", ["views", "features"])
def test_missing_views_are_zeros_and_marked(name):
    samples = [sample(2, name=name), sample(1, name=name, index=4), sample(3, name=name, index=7)]
    for max_views in (3, 5):
        batch = collate(samples, max_views=max_views)
        assert batch[name].dtype == samples[0][name].dtype
        assert batch["valid"].tolist() == [[v < count for v in range(max_views)] for count in (2, 1, 3)]
        for row, one in zip(batch[name], samples, strict=True):
            assert torch.equal(row[: len(one[name])], one[name])
            assert not row[len(one[name]) :].any()
        assert batch["label"].tolist() == [0, 1, 1]
        assert batch["index"].tolist() == [0, 4, 7]
    assert collate(samples)[name].shape[:2] == (3, 3)


@pytest.mark.parametrize("counts", [(0, 1), (3, 1)])
def test_samples_that_cannot_be_padded_are_refused(counts):
    with pytest.raises(ValueError, match="1 to 2 views"):
        collate([sample(count) for count in counts], max_views=2)


def test_a_sample_has_as_many_views_as_there_are(data):
    dataset = data.dataset("test")
    assert dataset.transform.max_views == 5
    assert set(dataset[0, 0]) == {"views", "label", "index"}
    assert dataset[0, 0]["views"].shape == (3, 1, 32, 32)
    batch = next(iter(data.test_dataloader()))
    assert batch["views"].shape == (12, 5, 1, 32, 32)
    assert batch["valid"].sum(dim=1).tolist() == [3] * 12


def test_a_position_alone_is_of_the_first_epoch(data):
    dataset = data.dataset("test")
    assert torch.equal(dataset[3]["views"], dataset[0, 3]["views"])


def test_a_training_batch_knows_its_share(data, monkeypatch):
    batches = list(data.train_dataloader())
    assert [batch["share"] for batch in batches] == [(4, 4)] * 4 + [(2, 2)]
    monkeypatch.setattr(data, "ranks", lambda: {"rank": 2, "world_size": 3})
    assert [batch["share"] for batch in data.train_dataloader()] == [(1, 4)] * 4 + [(0, 2)]
    assert all(len(batch["label"]) == 1 for batch in data.train_dataloader())


def test_the_share_comes_out_of_worker_processes_too(data):
    data.num_workers = 1
    loader = data.train_dataloader()
    assert [batch["share"] for batch in loader] == [(4, 4)] * 4 + [(2, 2)]
    assert SharedBatch([(0, 1)], (1, 2)) == [(0, 1)]


def test_a_shift_that_leaves_nothing_is_told_with_the_path(data):
    recordings = data.split("training")
    transform = ViewTransform(data.renderer, image_size=32, augmentation=Augmentation(max_shift=30_000))
    with pytest.raises(RecordingError, match=r"Faces_easy_0\.npy: none of 600 events was left .*max_shift"):
        RecordingDataset(recordings, data.files, transform)[0, 0]
    assert np.isin(data.training.paths, recordings.paths).all()
