"""Test-time versions: what each shows, and shards that do not depend on who makes them."""

import numpy as np
import pytest
import torch

from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.datasets.sources import EventFiles
from eventclip.datasets.tta import ShardBatches, Shards, check_versions, versions_loader
from eventclip.errors import UserError
from eventclip.events.array import centre, flip_time, mirror
from eventclip.events.frames import FrameRenderer
from eventclip.views.transform import VERSIONS, Augmentation, ViewMaker

SENSOR = (60, 80)


@pytest.fixture
def data(learnable_root):
    return NCaltech101DataModule(
        root=learnable_root,
        renderer=FrameRenderer(200),
        sensor_hw=SENSOR,
        percentile_events=600,
        image_size=32,
        evaluation_batch_size=12,
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_is_the_centred_events_flipped_and_mirrored(data, version):
    events, sensor_hw = EventFiles(sensor_hw=SENSOR)(data.split("training").path(0))
    changed = centre(events, sensor_hw)
    if version in ("flipped", "both"):
        changed = flip_time(changed)
    if version in ("mirrored", "both"):
        changed = mirror(changed, sensor_hw[1])
    views, valid = ViewMaker(data.renderer, image_size=32, max_views=3, version=version)(events, sensor_hw)
    expected, expected_valid = ViewMaker(data.renderer, image_size=32, max_views=3)(changed, sensor_hw)
    np.testing.assert_array_equal(views, expected)
    np.testing.assert_array_equal(valid, expected_valid)


def test_versions_differ_and_an_augmented_one_is_refused(data):
    recordings = data.split("training")
    batch = next(iter(versions_loader(data, recordings, VERSIONS, Shards(len(recordings), 4), [0])))
    assert batch["views"].shape == (3, 4, 3, 1, 32, 32)
    assert batch["valid"].shape == (3, 4, 3)
    for i in range(4):
        for j in range(i):
            assert not torch.equal(batch["views"][:, i], batch["views"][:, j])
    with pytest.raises(ValueError, match="without augmentation"):
        ViewMaker(data.renderer, image_size=32, max_views=3, augmentation=Augmentation(), version="mirrored")


@pytest.mark.parametrize("versions", [[], ["sideways"], ["mirrored", "mirrored"]])
def test_versions_that_are_none_are_refused_with_the_choices(versions):
    with pytest.raises(UserError, match="as_is, mirrored, flipped, both"):
        check_versions(versions)


def test_versions_come_in_one_order():
    assert check_versions(["both", "as_is"]) == ("as_is", "both")


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
