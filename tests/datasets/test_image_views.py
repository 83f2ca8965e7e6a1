"""Images as event views: a sample depends on seed, epoch and image alone, and brings the feature of what it shows."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from eventclip import FrameRenderer
from eventclip.datasets import image_views
from eventclip.datasets.image_datamodule import ImageDataModule
from eventclip.datasets.image_views import ImageDataset, SimulatedViews, Together, as_view, collate_views, one_view
from eventclip.datasets.images import Crops, HeldOut, find_images
from eventclip.datasets.pairs import Pairs
from eventclip.datasets.sources import EventFiles
from eventclip.errors import RecordingError, UserError
from eventclip.simulation.ranges import SimulationRanges
from eventclip.views.resize import clip_resize

RANGES = SimulationRanges(sensors=[(24, 32), (20, 20)])
SIZE = 32


def named_targets(dataset, copies):
    """A teacher whose feature of a row names its copy and its image."""
    rows = np.arange(copies * len(dataset))
    return np.stack([rows // len(dataset), rows % len(dataset)], axis=1)[:, None].astype(np.float16)


def simulated(images, *, crops=None, copies=1, **options):
    dataset = ImageDataset(images, image_size=SIZE, crops=crops, seed=options.get("seed", 0))
    given = {"ranges": RANGES, "renderer": FrameRenderer(500), "copies": copies, **options}
    return SimulatedViews(dataset, named_targets(dataset, copies), **given)


def assert_same(one, other):
    assert torch.equal(one["view"], other["view"])
    assert torch.equal(one["target"], other["target"])
    assert (one["image"] is None) == (other["image"] is None)
    if one["image"] is not None:
        assert torch.equal(one["image"], other["image"])


@pytest.fixture(scope="module")
def images(shapes_root):
    return find_images(shapes_root)


@pytest.fixture
def module(shapes_root):
    """A data module of the drawn images, not yet connected."""

    def make(**options):
        given = {"renderer": FrameRenderer(500), "ranges": RANGES, "heldout": HeldOut(share=0.2), "batch_size": 4}
        return ImageDataModule(shapes_root, **{**given, "progress": False, **options})

    return make


def test_a_sample_is_what_it_says(images):
    sample = simulated(images, keep_share=1.0)[0, 3]
    assert sample["view"].shape == (1, SIZE, SIZE)
    assert sample["view"].dtype == torch.uint8
    assert sample["view"].unique().numel() > 2
    assert sample["image"].shape == (3, SIZE, SIZE)
    assert sample["target"].tolist() == [0, 3]
    assert sample["target"].dtype == torch.float32
    assert sample["index"] == 3
    colored = simulated(images, renderer=FrameRenderer(500, color="rgb"))[0, 3]
    assert colored["view"].shape == (3, SIZE, SIZE)


def test_a_sample_depends_on_seed_epoch_and_image_alone(images):
    every = simulated(images, crops=Crops(), copies=3, keep_share=0.5)
    some = simulated(images.subset(np.array([7, 3])), crops=Crops(), copies=3, keep_share=0.5)
    for epoch in range(4):
        for own, place in enumerate((7, 3)):
            one, other = some[epoch, own], every[epoch, place]
            assert_same({**one, "target": other["target"]}, other)
            assert one["target"].tolist() == [epoch % 3, own]
    for changed in (simulated(images, seed=1), simulated(images, purpose="held out")):
        assert not torch.equal(changed[0, 3]["view"], simulated(images)[0, 3]["view"])
    assert not torch.equal(every[0, 3]["view"], every[1, 3]["view"])


def test_the_same_images_elsewhere_look_alike(shapes_root, tmp_path):
    shutil.copytree(shapes_root, tmp_path / "moved")
    here, there = (simulated(find_images(root), keep_share=0.5) for root in (shapes_root, tmp_path / "moved"))
    for place in (0, 8, 20):
        assert_same(here[2, place], there[2, place])


def test_neither_workers_nor_batches_change_a_sample(module):
    seen = []
    for workers, batch_size in ((0, 4), (2, 4), (0, 5)):
        own = module(num_workers=workers, batch_size=batch_size, crops=Crops())
        own.connect(image_size=SIZE, teacher=named_targets, copies=2)
        loader = own.train_dataloader()
        samples = {}
        for batch in loader:
            for place, index in enumerate(batch["index"].tolist()):
                kept = (batch["kept"] == place).nonzero().flatten().tolist()
                image = batch["images"][kept[0]] if kept else None
                samples[index] = {"view": batch["views"][place], "target": batch["targets"][place], "image": image}
        seen.append(samples)
        assert batch["share"] == (batch["views"].shape[0],) * 2
    for samples in seen[1:]:
        assert samples.keys() == seen[0].keys() == set(range(17))
        for index, sample in samples.items():
            assert_same(sample, seen[0][index])
    assert any(sample["image"] is not None for sample in seen[0].values())
    assert any(sample["image"] is None for sample in seen[0].values())


def test_a_view_is_of_the_part_that_its_target_is_of(images):
    crops = Crops(area=0.3, whole=0.0)
    views = simulated(images, crops=crops, copies=2, keep_share=1.0)
    assert not torch.equal(views[0, 5]["image"], views[1, 5]["image"])
    for epoch in range(4):
        sample = views[epoch, 5]
        copy = epoch % 2
        assert sample["target"].tolist() == [copy, 5]
        assert torch.equal(sample["image"], views.images[copy, 5]["views"][0])


def test_part_of_another_image_is_put_beside_for_the_teacher_too(images):
    alone = ImageDataset(images, image_size=SIZE, crops=Crops(whole=1.0))
    dataset = ImageDataset(images, image_size=SIZE, crops=Crops(whole=1.0, beside=0.5))
    shown = [[dataset[copy, 5]["views"], alone[copy, 5]["views"]] for copy in range(40)]
    changed = [copy for copy, (one, other) in enumerate(shown) if not torch.equal(one, other)]
    assert 10 <= len(changed) <= 30
    assert torch.equal(shown[changed[0]][0], dataset[changed[0], 5]["views"])
    views = simulated(images, crops=dataset.crops, copies=40, keep_share=1.0)
    assert torch.equal(views[changed[0], 5]["image"], shown[changed[0]][0][0])
    fewer = ImageDataset(images.subset(np.arange(6)), image_size=SIZE, crops=dataset.crops)
    assert fewer.describe() != dataset.describe()  # another image may stand there


def test_without_crops_every_epoch_shows_the_whole_image(module):
    own = module()
    own.connect(image_size=SIZE, teacher=named_targets, copies=7)
    for epoch in range(3):
        assert own._training[epoch, 2]["target"].tolist() == [0, 2]
    assert torch.equal(own._simulated.images[0, 2]["views"], own._simulated.images[5, 2]["views"])


def test_the_teacher_sees_what_clips_own_preprocessing_gives(images):
    picture = Image.open(images.path(4)).convert("RGB")
    seen = ImageDataset(images, image_size=SIZE)[0, 4]["views"]
    assert torch.equal(seen[0], torch.from_numpy(clip_resize(np.asarray(picture)[None], SIZE)[0]))
    assert torch.equal(as_view(picture, SIZE), seen)


def test_the_share_of_kept_images_is_the_one_asked_for(images, monkeypatch):
    monkeypatch.setattr(
        SimulationRanges, "simulate", lambda self, picture, rng: (np.zeros(30, image_views_events()), (24, 32))
    )
    for share in (0.0, 0.3, 1.0):
        views = simulated(images, keep_share=share)
        kept = sum(views[epoch, place]["image"] is not None for epoch in range(10) for place in range(len(images)))
        assert kept / (10 * len(images)) == pytest.approx(share, abs=0.1 if 0 < share < 1 else 0)


def image_views_events():
    from eventclip import EVENT_DTYPE

    return EVENT_DTYPE


def test_a_view_is_mirrored_and_flipped_in_time_at_random(images):
    transform = simulated(images).transform
    assert transform.max_views == 1
    assert transform.augmentation.mirror
    assert transform.augmentation.flip_time
    assert not transform.augmentation.max_shift
    assert not transform.augmentation.image
    events = np.zeros(40, image_views_events())
    events["x"], events["y"], events["t"], events["p"] = np.arange(40) % 7, np.arange(40) % 24, np.arange(40), 1
    seen = {transform(events, (24, 32), np.random.default_rng(seed)).pixels.tobytes() for seed in range(20)}
    assert len(seen) >= 2
    every, window = one_view(FrameRenderer(10), SIZE), one_view(FrameRenderer(10), SIZE, all_events=False)
    spans = [made(events, (24, 32), np.random.default_rng(0)).spans[0] for made in (every, window)]
    assert [int(stop - start) for start, stop in spans] == [40, 10]


def test_a_batch_holds_views_targets_and_the_kept_images(images):
    views = simulated(images, keep_share=0.5)
    samples = [views[0, place] for place in range(8)]
    batch = collate_views(samples)
    kept = [place for place, sample in enumerate(samples) if sample["image"] is not None]
    assert 0 < len(kept) < 8
    assert batch["kept"].tolist() == kept
    assert batch["images"].shape == (len(kept), 3, SIZE, SIZE)
    assert torch.equal(batch["images"][0], samples[kept[0]]["image"])
    assert batch["targets"].shape == (8, 2)
    none = collate_views([{**sample, "image": None} for sample in samples])
    assert none["images"].shape == (0, 3, SIZE, SIZE)
    assert none["kept"].dtype == torch.int64


@pytest.fixture
def pairs(images, tmp_path):
    """Five recordings, each of an image."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(5):
        columns = rng.integers(0, 32, 900), rng.integers(0, 24, 900), np.arange(900) / 1e4, rng.integers(0, 2, 900)
        np.save(tmp_path / f"{number}.npy", np.stack(columns, axis=1).astype(np.float32))
        paths.append(bytes(tmp_path / f"{number}.npy"))
    return Pairs(tmp_path, np.array(paths), images.paths[[3, 3, 0, 20, 7]])


def test_recordings_of_a_real_camera_are_mixed_in(module, pairs):
    own = module(pairs=pairs, pair_files=EventFiles(sensor_hw=(24, 32)), keep_share=1.0)
    own.connect(image_size=SIZE, teacher=named_targets)
    assert own.training_size == len(own._training) == 17 + 5
    assert own.describe()["pairs"] == 5
    assert own.kept_share == 17 / 22
    recorded = [own._training[0, 17 + place] for place in range(5)]
    assert [sample["target"].tolist() for sample in recorded] == [[0, place] for place in range(5)]
    assert [sample["index"] for sample in recorded] == list(range(17, 22))
    assert all(sample["image"] is None for sample in recorded)
    assert recorded[0]["view"].shape == (1, SIZE, SIZE)
    views = [own._training[epoch, 18]["view"] for epoch in (0, *range(8))]
    assert torch.equal(views[0], views[1])
    assert len({view.numpy().tobytes() for view in views}) > 2
    seen = [index for batch in own.train_dataloader() for index in batch["index"].tolist()]
    assert sorted(seen) == list(range(22))


def test_parts_follow_each_other_and_empty_ones_are_left_out(images):
    one, two = simulated(images.subset(np.arange(3))), simulated(images.subset(np.arange(3, 5)))
    both = Together([one, simulated(images.subset(np.arange(0))), two])
    assert len(both) == 5
    assert torch.equal(both[0, 2]["view"], one[0, 2]["view"])
    assert torch.equal(both[1, 3]["view"], two[1, 0]["view"])
    assert both[1, 4]["index"] == 4


def test_held_out_views_are_the_same_whenever_asked_for(module):
    own = module(crops=Crops(), num_workers=1)
    own.connect(image_size=SIZE, teacher=named_targets, copies=2)
    one, two = ([batch["views"] for batch in own.val_dataloader()] for _ in range(2))
    assert torch.equal(torch.cat(one), torch.cat(two))
    assert len(torch.cat(one)) == len(own.held_out) == 4
    assert own.held_out_targets().tolist() == [[0, place] for place in range(4)]
    assert own.shown_places(3) == [0, 2, 3]
    assert torch.equal(own.shown_views(3), torch.cat(one)[[0, 2, 3]])
    assert own.shown_image(2).shape == (3, SIZE, SIZE)
    assert torch.equal(
        torch.cat(list(own.views_once())), torch.stack([own._simulated[0, i]["view"] for i in range(17)])
    )


def test_a_picture_without_events_is_named_by_a_worker(images, monkeypatch):
    def nothing(self, picture, rng):
        raise RecordingError("the picture gives no events: take it out")

    monkeypatch.setattr(image_views.SimulationRanges, "simulate", nothing)
    with pytest.raises(RecordingError, match=r"ant/image_00\.png: the picture gives no events"):
        simulated(images)[0, 0]
    with pytest.raises(RecordingError, match=r"ant/image_00\.png: the picture gives no events"):
        next(iter(DataLoader(simulated(images), batch_sampler=[[(0, 0)]], collate_fn=collate_views, num_workers=1)))


def test_an_image_that_is_gone_or_changes_is_noticed(images, tmp_path):
    moved = tmp_path / "a.png"
    shutil.copy(images.path(0), moved)
    dataset = ImageDataset(find_images(tmp_path), image_size=SIZE)
    before = dataset.row_name(0)
    assert dataset.row_name(0) == before
    moved.write_bytes(images.path(1).read_bytes() + b" ")
    assert dataset.row_name(0) != before
    moved.unlink()
    with pytest.raises(UserError, match=r"a\.png cannot be read \(No such file or directory\)"):
        dataset.row_name(0)


def test_what_decides_an_image_is_described(images):
    described = [
        ImageDataset(images, image_size=size, crops=crops, seed=seed).describe()
        for size, crops, seed in ((32, None, 0), (32, None, 1), (64, None, 0), (32, Crops(), 0), (32, Crops(), 1))
    ]
    assert described[0] == described[1]  # without crops there is nothing to draw
    assert len({str(one) for one in described}) == 4
    assert described[3]["images"]["crops"] == {**dataclasses.asdict(Crops()), "seed": 0}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"batch_size": 1}, "batch_size must be 2 or more, got 1: views are told apart within a batch"),
        ({"on_bad_image": "keep"}, "on_bad_image must be error or skip, got 'keep'"),
    ],
)
def test_an_option_outside_its_range_is_refused(module, given, told):
    with pytest.raises(UserError, match=told):
        module(**given)


def test_more_processes_than_samples_are_refused(module, monkeypatch):
    own = module(batch_size=2)
    own.connect(image_size=SIZE, teacher=named_targets)
    monkeypatch.setattr(ImageDataModule, "ranks", lambda self: {"rank": 0, "world_size": 5})
    with pytest.raises(UserError, match="batch_size=2 is the batch of all 5 processes together"):
        own.train_dataloader()
    with pytest.raises(UserError, match="4 held-out images cannot be shared among 5 processes"):
        own.val_dataloader()
