"""Scores on disk: the same whoever makes them, however often they were interrupted, and never made twice."""

import os

import numpy as np
import pytest
import torch
from lightning import Fabric

from eventclip.adapters.paper import IdentityAdapter
from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.datasets.sources import EventFiles
from eventclip.errors import UserError
from eventclip.events.array import centre, flip_time, mirror
from eventclip.events.frames import FrameRenderer
from eventclip.features.cache import FeatureCache
from eventclip.models.classifier import EventClassifier
from eventclip.models.encoder import ClipEncoder
from eventclip.models.factory import load_clip
from eventclip.training.scores import ScoreStore, ShardBatches, Shards, check_tta, score_all, tta_loader
from eventclip.training.selection import summarise
from eventclip.views.augment import Augmentation
from eventclip.views.transform import TTA, ViewTransform

KINDS = ("as_is", "mirrored")


class OneOf:
    """As much of Fabric as scoring asks for, as process ``rank`` of ``size``."""

    def __init__(self, rank=0, size=1):
        self.global_rank, self.world_size, self.fabric = rank, size, Fabric(accelerator="cpu", devices=1)
        self.to_device, self.autocast = self.fabric.to_device, self.fabric.autocast

    def barrier(self):
        pass


@pytest.fixture
def data(learnable_root):
    data = NCaltech101DataModule(
        learnable_root, renderer=FrameRenderer(200), sensor_hw=(60, 80), p95_events=600, evaluation_batch_size=6
    )
    data.connect(image_size=32)
    return data


@pytest.fixture(scope="module")
def classifier(tiny_clip_json):
    encoder = load_clip(None, config=tiny_clip_json)
    text = torch.nn.functional.normalize(torch.randn(3, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    return EventClassifier(encoder, IdentityAdapter(text, 10.0))


@pytest.fixture
def score(data, classifier, tmp_path):
    recordings = data.split("training")

    def run(folder, *fabrics, decides=None):
        store = ScoreStore(tmp_path / folder, decides or {"teacher": 1}, recordings.paths, shard_size=5, tta=len(KINDS))
        for fabric in fabrics or (OneOf(),):
            score_all(fabric, classifier, data, recordings, store, tta=KINDS, progress=False)
        return store

    return run


def test_scores_are_the_classifiers_averaged_over_tta(score, data, classifier):
    recordings = data.split("training")
    stored = score("one").read()
    probabilities = []
    for version in KINDS:
        transform, rows = data.view_transform("test", tta=version), []
        for i in range(len(recordings)):
            views = torch.from_numpy(transform(*data.files(recordings.path(i))).pixels)[None]
            with torch.no_grad():
                rows.append(classifier(views).probabilities)
        probabilities.append(torch.cat(rows))
    expected = summarise(torch.stack(probabilities, 1).numpy())
    np.testing.assert_array_equal(stored["label"], expected["label"])
    np.testing.assert_allclose(stored["probability"], expected["probability"], rtol=1e-4)
    np.testing.assert_allclose(stored["top"], expected["top"], rtol=1e-4)


def test_several_processes_score_what_one_does(score):
    assert score("two", OneOf(0, 3), OneOf(1, 3), OneOf(2, 3)).read().tobytes() == score("one").read().tobytes()


def test_an_interrupted_run_goes_on_and_ends_the_same(score, data, monkeypatch):
    whole = score("one").read()
    read = data.files.__class__.__call__
    seen = []

    def fails_at_the_twelfth(self, path):
        seen.append(path.name)
        if len(seen) == 12:
            raise KeyboardInterrupt
        return read(self, path)

    monkeypatch.setattr(data.files.__class__, "__call__", fails_at_the_twelfth)
    with pytest.raises(KeyboardInterrupt):
        score("two")
    assert score("two").read().tobytes() == whole.tobytes()
    assert len(seen) == 12 + 18 - 10  # two shards of five were whole
    score("two")
    assert len(seen) == 20  # nothing is scored twice


def test_another_teacher_begins_a_folder_of_its_own(score):
    first, other = score("one"), score("one", decides={"teacher": 2})
    assert first.folder != other.folder
    assert other.missing(range(4)) == []


def test_a_feature_cache_gives_the_same_and_is_read_next_time(score, data, classifier, tmp_path, monkeypatch):
    live = score("live").read()
    data.feature_cache = FeatureCache(classifier.encoder, folder=tmp_path / "features", progress=False)
    cached = score("cached").read()
    np.testing.assert_array_equal(cached["label"], live["label"])
    np.testing.assert_allclose(cached["probability"], live["probability"], rtol=1e-4)
    assert len({folder.name for folder in (tmp_path / "features").iterdir() if folder.is_dir()}) == len(KINDS)
    monkeypatch.setattr(ClipEncoder, "encode_views", None)
    assert score("again").read().tobytes() == cached.tobytes()


def test_damaged_scores_are_found_and_made_again(score, damage):
    store = score("one")
    whole, path = store.read(), min(store.folder.glob("*.h5"))
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-40] ^= 1  # in the numbers
    for mutant in (b"", content[:100], bytes(flipped), content + b"\0", *damage.mutants(content, 30)):
        path.write_bytes(mutant)
        if mutant != content:
            again = score("one", OneOf(3, 4))  # a process whose own shard is whole
            with pytest.raises(UserError, match=r"5 of 18 scores .* gone or damaged: run the same command again"):
                again.read()
    os.mkfifo(path)
    assert score("one", OneOf(3, 4)).missing(range(4)) == [0]
    assert score("one").read().tobytes() == whole.tobytes()


def test_a_recording_without_a_shard_is_refused(data, tmp_path):
    with pytest.raises(UserError, match=r"pseudo\.shard_size must be 1"):
        ScoreStore(tmp_path, {}, data.split("training").paths, shard_size=0, tta=1)


@pytest.mark.parametrize("kind", TTA)
def test_tta_is_the_centred_events_flipped_and_mirrored(data, kind):
    events, sensor_hw = EventFiles(sensor_hw=(60, 80))(data.split("training").path(0))
    changed = centre(events, sensor_hw)
    if kind in ("flipped", "both"):
        changed = flip_time(changed)
    if kind in ("mirrored", "both"):
        changed = mirror(changed, sensor_hw[1])
    views = ViewTransform(data.renderer, image_size=32, max_views=3, tta=kind)(events, sensor_hw)
    expected = ViewTransform(data.renderer, image_size=32, max_views=3)(changed, sensor_hw)
    np.testing.assert_array_equal(views.pixels, expected.pixels)
    np.testing.assert_array_equal(views.spans, expected.spans)


def test_kinds_differ_and_an_augmented_one_is_refused(data):
    recordings, data.evaluation_batch_size = data.split("training"), 12
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


@pytest.mark.parametrize("tta", [[], ["sideways"], ["mirrored", "mirrored"]])
def test_tta_that_is_none_is_refused_with_the_choices(tta):
    with pytest.raises(UserError, match="as_is, mirrored, flipped, both"):
        check_tta(tta)


def test_tta_comes_in_one_order():
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
