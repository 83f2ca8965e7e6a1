"""The feature cache: the same run as live, filled once, whole again after any interruption."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch

from eventclip.blocks import RowStore
from eventclip.datasets.datamodule import grouped
from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.datasets.packing import pack_split
from eventclip.datasets.sampling import sample_few_shot
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer
from eventclip.features import cache as features
from eventclip.features.cache import FeatureCache
from eventclip.models.alignment import write_alignment
from eventclip.models.factory import load_clip
from eventclip.views.augment import Augmentation

PLAIN = Augmentation(max_shift=3)


@pytest.fixture(scope="module")
def encoder(tiny_clip_json):
    return load_clip(None, None, config=tiny_clip_json)


def data_module(root, *, shots=None, augmentation=None, seed=0, **options):
    given = {
        "renderer": FrameRenderer(200),
        "few_shot": partial(sample_few_shot, shots=shots, seed=seed, repeat=True),
        "sensor_hw": (60, 80),
        "p95_events": 600,
        **options,
    }
    data = NCaltech101DataModule(root, augmentation=augmentation, seed=seed, **grouped(given))
    data.connect(image_size=32)
    return data


def cache_in(folder, encoder, **options):
    return FeatureCache(encoder, folder=folder, progress=False, **options)


@pytest.fixture
def encoded(monkeypatch):
    """Numbers of views encoded, call by call."""
    calls = []
    original = features.encode_in_batches

    def counting(encoder, pieces, **options):
        together = list(pieces)
        calls.append(sum(map(len, together)))
        return original(encoder, together, **options)

    monkeypatch.setattr(features, "encode_in_batches", counting)
    return calls


def curve(folder):
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        return [float(row["fit/loss_step"]) for row in csv.DictReader(file) if row.get("fit/loss_step")]


def learned(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def metrics(folder):
    return json.loads((folder / "results.json").read_text())["metrics"]


def test_without_augmentation_a_cached_run_is_the_live_run(run_experiment, tmp_path):
    same = ("data.augmentation=null", "adapter=joint", "adapter.width=16", "adapter.mlp_width=16", "adapter.heads=2")
    live = run_experiment(*same, folder="live")
    for dtype, tolerance in (("fp32", 1e-6), ("fp16", 1e-3)):
        cached = run_experiment(
            *same, "features=cached", f"features.dtype={dtype}", f"paths.cache={tmp_path}", folder=dtype
        )
        np.testing.assert_allclose(curve(cached), curve(live), atol=tolerance)
        assert metrics(cached)["test/top1_probabilities"] == metrics(live)["test/top1_probabilities"]
        assert metrics(cached)["test/loss"] == pytest.approx(metrics(live)["test/loss"], abs=tolerance)


def test_a_copy_for_every_epoch_is_the_live_run_to_the_last_bit(run_experiment, tmp_path):
    # batches of 16 views and more, below which matrix kernels round differently
    same = ("data.batch_size=9", "trainer.max_epochs=3", "fewshot.shots=6", "fewshot.repeat=true", "seed=3")
    live = run_experiment(*same, folder="live")
    cached = run_experiment(
        *same,
        "features=cached",
        "features.copies=3",
        "features.dtype=fp32",
        f"paths.cache={tmp_path}",
        folder="features",
    )
    theirs = learned(cached)
    assert all(torch.equal(value, theirs[name]) for name, value in learned(live).items())
    assert metrics(live) == metrics(cached)


def test_the_picture_stays_in_a_cached_run(run_experiment, tmp_path):
    run = run_experiment("features=cached", "features.copies=1", f"paths.cache={tmp_path}")
    live = run_experiment("trainer.max_epochs=1", folder="live")
    assert (run / "pictures" / "test.png").stat().st_size > 0.5 * (live / "pictures" / "test.png").stat().st_size


def test_epochs_go_round_the_copies(learnable_root, tmp_path, encoder):
    cached = cache_in(tmp_path, encoder, copies=2)(data_module(learnable_root, augmentation=PLAIN).dataset("fit"))
    assert torch.equal(cached[0, 4]["features"], cached[2, 4]["features"])
    assert not torch.equal(cached[0, 4]["features"], cached[1, 4]["features"])


def test_a_cached_sample_is_the_encoded_sample(learnable_root, tmp_path, encoder):
    dataset = data_module(learnable_root).dataset("test")
    cached = cache_in(tmp_path, encoder, dtype="fp32")(dataset)
    assert len(cached) == len(dataset) == 12
    ours, theirs = cached[0, 7], dataset[0, 7]
    assert (ours["label"], ours["index"]) == (theirs["label"], theirs["index"])
    torch.testing.assert_close(ours["features"], encoder.encode_views(theirs["views"]), atol=1e-5, rtol=0)


def test_more_shots_encode_only_recordings_that_are_new(learnable_root, tmp_path, encoder, encoded):
    for shots, views in ((1, 12), (1, 0), (3, 24)):  # 3 classes, 2 views, 2 passes
        encoded.clear()
        module = data_module(learnable_root, shots=shots, augmentation=PLAIN)
        cache_in(tmp_path, encoder, copies=2)(module.dataset("fit"))
        assert sum(encoded) == views, shots
    encoded.clear()
    cache_in(tmp_path, encoder, copies=3)(data_module(learnable_root, shots=3, augmentation=PLAIN).dataset("fit"))
    assert sum(encoded) == 18  # the third pass


def test_seeds_share_views_and_repeats_differ_where_augmented(learnable_root, tmp_path, encoder, encoded):
    for seed in (0, 1):
        cache_in(tmp_path, encoder)(data_module(learnable_root, seed=seed).dataset("test"))
    assert sum(encoded) == 36
    for augmentation, distinct in ((None, 18), (PLAIN, 21)):
        encoded.clear()
        module = data_module(learnable_root, shots=7, augmentation=augmentation)  # 6 recordings per class
        cache_in(tmp_path, encoder, copies=1)(module.dataset("fit"))
        assert sum(encoded) == 2 * distinct


def alignment(folder, config, by):
    """A file that moves one bias of the image tower."""
    clip, path = load_clip(None, None, config=config), folder / f"{by}.safetensors"
    state = {"ln_post.bias": clip.visual.ln_post.bias.detach() + by}
    write_alignment(path, clip, state, tuning={}, made={})
    return path


def test_all_that_shapes_a_feature_changes_its_folder(learnable_root, tmp_path, encoder, tiny_clip_json, monkeypatch):
    def place(*, clip=encoder, cache=None, **data):
        return cache_in(tmp_path, clip, **(cache or {})).place(data_module(learnable_root, **data).dataset("fit"))

    places = [
        place(),
        place(training_views=1),
        place(resize_mode="pad"),
        place(file_format="npy"),
        place(time_unit="ms"),
        place(renderer=FrameRenderer(100)),
        place(renderer=FrameRenderer(200, hot_pixel_std=5.0)),
        place(renderer=FrameRenderer(200, count_non_zero=True)),
        place(renderer=FrameRenderer(200, white_background=False)),
        place(renderer=FrameRenderer(200, color="rgb")),
        place(augmentation=PLAIN),
        place(augmentation=PLAIN, seed=1),
        place(augmentation=Augmentation(max_shift=4)),
        place(augmentation=Augmentation(max_shift=3, image=False)),
        place(cache={"dtype": "fp16"}),
        place(cache={"precision": "bf16-mixed"}),
        place(clip=load_clip(None, None, config=tiny_clip_json, init_seed=1)),
        place(clip=load_clip(None, None, config=tiny_clip_json, aligned=alignment(tmp_path, tiny_clip_json, 0.1))),
        place(clip=load_clip(None, None, config=tiny_clip_json, aligned=alignment(tmp_path, tiny_clip_json, 0.2))),
        place(clip=load_clip(None, None, config=tiny_clip_json, mean=[0.5, 0.5, 0.5])),
        place(clip=load_clip(None, None, config=tiny_clip_json, quick_gelu=True)),
        place(clip=load_clip(None, None, config=tiny_clip_json, precision="bf16")),
    ]
    monkeypatch.setattr("eventclip.views.transform.REVISION", 0)
    places.append(place())
    assert len(set(places)) == len(places)


def test_seed_copies_and_place_leave_plain_views_their_folder(learnable_root, tmp_path, encoder):
    def place(seed, passes, root):
        return cache_in(tmp_path, encoder, copies=passes).place(data_module(root, seed=seed).dataset("test"))

    moved = shutil.copytree(learnable_root, tmp_path / "moved")
    assert place(0, 1, learnable_root) == place(1, 9, moved)


def test_weights_changed_after_loading_have_their_own_folder(learnable_root, tmp_path, tiny_clip_json):
    tuned = load_clip(None, None, config=tiny_clip_json)
    dataset = data_module(learnable_root).dataset("test")
    before = cache_in(tmp_path, tuned).place(dataset)
    with torch.no_grad():
        next(tuned.visual.parameters()).add_(1e-3)
    assert cache_in(tmp_path, tuned).place(dataset) != before


def test_a_recording_that_changed_is_encoded_again(learnable_root, tmp_path, encoder, encoded):
    root = shutil.copytree(learnable_root, tmp_path / "data")
    cache_in(tmp_path / "features", encoder)(data_module(root).dataset("test"))
    changed = root / "testing" / "airplanes" / "airplanes_1.npy"
    np.save(changed, np.load(changed)[:500])
    encoded.clear()
    cache_in(tmp_path / "features", encoder)(data_module(root).dataset("test"))
    assert sum(encoded) == 3 - 1  # 500 events are two windows and one remainder of half a window, which is none


def test_damage_is_found_and_mended(learnable_root, tmp_path, encoder, caplog):
    dataset = data_module(learnable_root).dataset("test")
    cache = cache_in(tmp_path, encoder)
    whole = [cache(dataset)[0, i]["features"] for i in range(12)]
    block = next(cache.place(dataset).glob("*.h5"))
    content = bytearray(block.read_bytes())
    content[len(content) // 2] ^= 4
    block.write_bytes(content)
    again = cache_in(tmp_path, encoder)(dataset)
    assert "1 damaged blocks" in caplog.text
    assert all(torch.equal(again[0, i]["features"], whole[i]) for i in range(12))


def test_rebuild_encodes_everything_again_once(learnable_root, tmp_path, encoder, encoded):
    dataset = data_module(learnable_root).dataset("test")
    cache_in(tmp_path, encoder)(dataset)
    cache = cache_in(tmp_path, encoder, rebuild=True)
    cache(dataset)
    cache(dataset)
    assert encoded == [36, 36]
    assert len(list(cache.place(dataset).glob("*.h5"))) == 1


def test_workers_change_no_bit(learnable_root, tmp_path, encoder):
    kept = []
    for workers in (0, 2):
        cache = cache_in(tmp_path / str(workers), encoder, num_workers=workers, copies=2)
        dataset = data_module(learnable_root, augmentation=PLAIN).dataset("fit")
        cache(dataset)
        kept.append({path.name: path.read_bytes() for path in cache.place(dataset).glob("*.h5")})
    assert kept[0] == kept[1]


def test_a_complete_cache_needs_no_writing(learnable_root, tmp_path, encoder, monkeypatch):
    dataset = data_module(learnable_root).dataset("test")
    cache_in(tmp_path, encoder)(dataset)
    monkeypatch.setattr(features, "held", None)  # whoever wants to write needs it
    assert len(cache_in(tmp_path, encoder)(dataset)) == 12


def test_a_folder_that_cannot_be_written_is_told(learnable_root, tmp_path, encoder):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"cannot be written to .*file/features \(Not a directory\): set features\.folder"
    ):
        cache_in(tmp_path / "file" / "features", encoder)(data_module(learnable_root).dataset("test"))


def test_a_full_disk_is_told_and_leaves_no_half_block(learnable_root, tmp_path, encoder, monkeypatch):
    def full(self, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    dataset = data_module(learnable_root).dataset("test")
    cache = cache_in(tmp_path, encoder)
    with pytest.raises(UserError, match="No space left on device"):
        cache(dataset)
    assert list(cache.place(dataset).glob("*.h5")) == []


def test_a_tower_that_learns_is_refused(learnable_root, tmp_path, tiny_clip_json):
    tuned = load_clip(None, None, config=tiny_clip_json)
    next(tuned.visual.parameters()).requires_grad_()
    with pytest.raises(UserError, match=r"here it learns: set features=live"):
        cache_in(tmp_path, tuned)(data_module(learnable_root).dataset("test"))


@pytest.mark.parametrize(("options", "message"), [({"copies": 0}, "copies"), ({"dtype": "int8"}, "fp16, fp32")])
def test_impossible_options_are_refused(tmp_path, encoder, options, message):
    with pytest.raises(UserError, match=message):
        cache_in(tmp_path, encoder, **options)


def test_augmentation_does_not_depend_on_what_else_was_drawn(learnable_root):
    few = data_module(learnable_root, shots=1, augmentation=PLAIN).dataset("fit")
    many = data_module(learnable_root, shots=7, augmentation=PLAIN).dataset("fit")
    first, repeated = 0, 6  # of the first class: the one shot, and its repeat after all six
    assert many.recordings.relative(first) == many.recordings.relative(repeated) == few.recordings.relative(0)
    assert torch.equal(many[2, first]["views"], few[2, 0]["views"])
    assert not torch.equal(many[2, first]["views"], many[2, repeated]["views"])


# In a process of its own: encode the data set, one recording per block and slowly enough to be killed in between.
BUILD = """
import sys, time
from pathlib import Path
from eventclip.blocks import RowStore
from eventclip.datasets.sampling import sample_few_shot
from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.datasets.packing import pack_split
from eventclip.views.augment import Augmentation
from eventclip.events.frames import FrameRenderer
from eventclip.models.factory import load_clip
from eventclip.features import cache as features

root, folder, clip = map(Path, sys.argv[1:4])
features._ROWS_AT_ONCE = 3
features.rows_in_block = lambda size: 6
write = RowStore.write
def slowly(self, *given):
    time.sleep(0.02)
    write(self, *given)
    print("block", flush=True)
RowStore.write = slowly
module = NCaltech101DataModule(
    root, renderer=FrameRenderer(200), sensor_hw=(60, 80), p95_events=600, augmentation=Augmentation(max_shift=3),
)
module.connect(image_size=32)
encoder = load_clip(None, None, config=clip)
print("ready", flush=True)
features.FeatureCache(encoder, folder=folder, copies=5, progress=False)(module.dataset("fit"))
print("complete", flush=True)
"""


def start_build(root, folder, clip):
    command = [sys.executable, "-c", BUILD, str(root), str(folder), str(clip)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def content(folder):
    """Key -> bytes of all that a folder of features holds."""
    (place,) = {path.parent for path in folder.rglob("*.h5")}
    store = RowStore(place)
    rows = store.rows(store.keys)
    assert store.damaged == []
    return {bytes(key): rows[i].tobytes() for i, key in enumerate(store.keys)}


def build_with_kills(root, folder, clip, *, kills, seed):
    """Kill builds after a random time from the first word on, then let one end; returns how many were still at work."""
    chance, killed = random.Random(seed), 0
    for _ in range(kills):
        with start_build(root, folder, clip) as build:
            assert build.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0, 0.6))
            build.send_signal(signal.SIGKILL)
            killed += build.wait() == -signal.SIGKILL
    with start_build(root, folder, clip) as build:
        assert build.stdout.read().endswith("complete\n")
    return killed


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_after_kills_it_ends_with_the_bytes_of_a_clean_build(learnable_root, tmp_path, tiny_clip_json, kills):
    build_with_kills(learnable_root, tmp_path / "clean", tiny_clip_json, kills=0, seed=0)
    killed = build_with_kills(learnable_root, tmp_path / "killed", tiny_clip_json, kills=kills, seed=1)
    assert killed > 0
    clean = content(tmp_path / "clean")
    assert len(clean) == 5 * 18
    assert content(tmp_path / "killed") == clean


def test_of_two_processes_one_encodes_and_both_end(learnable_root, tmp_path, tiny_clip_json):
    builds = [start_build(learnable_root, tmp_path, tiny_clip_json) for _ in range(2)]
    said = [build.communicate()[0].split() for build in builds]
    assert all(words[-1] == "complete" for words in said)
    assert sorted(words.count("block") for words in said) == [0, 15]
    assert len(content(tmp_path)) == 90


def test_a_pack_keeps_its_features_until_its_events_change(learnable_root, tmp_path, encoder, encoded):
    root = shutil.copytree(learnable_root, tmp_path / "data")
    module, cache = data_module(root), cache_in(tmp_path / "features", encoder)
    assert list(pack_split(module, "all", tmp_path / "one", progress=False, workers=1))
    expected = cache(module.dataset("test"))
    packed = cache(data_module(None, packed=str(tmp_path / "one")).dataset("test"))
    np.testing.assert_array_equal(packed[0, 3]["features"], expected[0, 3]["features"])
    before = len(encoded)
    shutil.move(tmp_path / "one", tmp_path / "moved")
    cache(data_module(None, packed=str(tmp_path / "moved")).dataset("test"))
    assert len(encoded) == before
    changed = root / "testing" / "airplanes" / "airplanes_1.npy"
    np.save(changed, np.load(changed)[:500])
    assert list(pack_split(data_module(root), "all", tmp_path / "two", progress=False, workers=1))
    cache(data_module(None, packed=str(tmp_path / "two")).dataset("test"))
    assert len(encoded) > before
