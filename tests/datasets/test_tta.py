"""Test-time versions: what each shows, and shards that do not depend on who makes them."""

import numpy as np
import pytest
import torch

from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.datasets.sources import EventFiles
from eventclip.datasets.tta import ShardBatches, Shards, check_tta, tta_loader
from eventclip.errors import UserError
from eventclip.events.array import centre, flip_time, mirror
from eventclip.events.frames import FrameRenderer
from eventclip.views.augment import Augmentation
from eventclip.views.transform import TTA, ViewTransform

SENSOR = (60, 80)


@pytest.fixture
def data(learnable_root):
    return NCaltech101DataModule(
        root=learnable_root,
        renderer=FrameRenderer(200),
        sensor_hw=SENSOR,
        p95_events=600,
        image_size=32,
        evaluation_batch_size=12,
    )


@pytest.mark.parametrize("kind", TTA)
def test_tta_is_the_centred_events_flipped_and_mirrored(data, kind):
    events, sensor_hw = EventFiles(sensor_hw=SENSOR)(data.split("training").path(0))
    changed = centre(events, sensor_hw)
    if kind in ("flipped", "both"):
        changed = flip_time(changed)
    if kind in ("mirrored", "both"):
        changed = mirror(changed, sensor_hw[1])
    views = ViewTransform(data.renderer, image_size=32, max_views=3, tta=kind)(events, sensor_hw)
    expected = ViewTransform(data.renderer, image_size=32, max_views=3)(changed, sensor_hw)
    np.testing.assert_array_equal(views.pixels, expected.pixels)
    np.testing.assert_array_equal(views.spans, expected.spans)


def test_versions_differ_and_an_augmented_one_is_refused(data):
    recordings = data.split("training")
    batch = next(iter(tta_loader(data, recordings, tuple(TTA), Shards(len(recordings), 4), [0])))
    assert batch["views"].shape == (3 * 4, 3, 1, 32, 32)
    assert batch["valid"].shape == (3 * 4, 3)
    assert batch["index"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    views = batch["views"].unflatten(0, (3, 4))
    for i in range(4):
        for j in range(i):
            assert not torch.equal(views[:, i], views[:, j])
    with pytest.raises(UserError, match="without augmentation"):
        ViewTransform(data.renderer, image_size=32, max_views=3, augmentation=Augmentation(), tta="mirrored")


@pytest.mark.parametrize("versions", [[], ["sideways"], ["mirrored", "mirrored"]])
def test_versions_that_are_none_are_refused_with_the_choices(versions):
    with pytest.raises(UserError, match="as_is, mirrored, flipped, both"):
        check_tta(versions)


def test_versions_come_in_one_order():
    assert check_tta(["both", "as_is"]) == ("as_is", "both")


@pytest.mark.parametrize(("size", "shard_size", "ranks"), [(18, 4, 1), (18, 4, 3), (7, 512, 2), (0, 4, 2)])
def test_shards_of_all_ranks_are_every_recording_once(size, shard_size, ranks):
    shards = Shards(size, shard_size)
    seen = [i for rank in range(ranks) for shard in shards.of_rank(rank, ranks) for i in shards.positions(shard)]
    assert sorted(seen) == list(range(size))


def test_no_batch_crosses_from_one_shard_to_the_next():
    shards = Shards(18, 4)
    batches = ShardBatches(shards, [1, 4], 3)
    assert list(batches) == [[4, 5, 6], [7], [16, 17]]
    assert len(batches) == 3
