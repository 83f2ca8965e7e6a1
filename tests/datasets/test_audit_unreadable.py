"""Damaged recordings: each is told by path and cause, stops a run or is left out and named, never silently."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from eventclip.datasets.audit import check_first, find_unreadable, inspect, without
from eventclip.datasets.datamodule import grouped
from eventclip.datasets.nimagenet import NImageNetDataModule
from eventclip.datasets.recordings import Recordings
from eventclip.datasets.sampling import sample_few_shot
from eventclip.errors import RecordingError, UserError
from eventclip.events.frames import FrameRenderer

FIELDS = [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "?")]


def build(root, **options):
    given = {"sensor_hw": (480, 640), "p95_events": 600, "augmentation": None, **options}
    data = NImageNetDataModule(root=root, renderer=FrameRenderer(200), **grouped(given))
    data.connect(image_size=32)
    return data


@pytest.fixture
def root(nimagenet_root, tmp_path):
    return shutil.copytree(nimagenet_root, tmp_path / "copy")


def truncated(path, events):
    path.write_bytes(path.read_bytes()[:-200])


def save(path, events, **changes):
    names = [name for name in events.dtype.names if name not in changes]
    kinds = [(name, events.dtype[name]) for name in names] + [(name, new.dtype) for name, new in changes.items()]
    changed = np.zeros(len(events), kinds)
    for name in changed.dtype.names:
        changed[name] = changes.get(name, events[name] if name in names else 0)
    np.savez_compressed(path, event_data=changed)


def not_finite(path, events):
    save(path, events, t=np.where(np.arange(len(events)) == 7, np.nan, events["t"] / 1e6))


def backwards(path, events):
    save(path, events, t=events["t"][::-1].copy())


def outside(path, events):
    save(path, events, x=np.where(np.arange(len(events)) == 5, 640, events["x"]))


DAMAGE = {
    "truncated": (truncated, r"is no whole \.npz file"),
    "no file at all": (lambda path, events: path.write_bytes(b""), "is an empty file"),
    "no events": (lambda path, events: save(path, events[:0]), "holds no events"),
    "text for numbers": (lambda path, events: save(path, events, x=events["x"].astype("U4")), "column x of type <U4"),
    "no numbers at all": (
        lambda path, events: np.savez(path, event_data=np.array(["a"])),
        "type <U1: expected numbers",
    ),
    "a column missing": (lambda path, events: np.savez(path, event_data=events[["x", "y", "p"]]), "and none for t"),
    "times that are none": (not_finite, "has t = nan at row 7"),
    "time backwards": (backwards, "runs backwards in time at row 1"),
    "beyond the sensor": (outside, "Event 5 at x=640, y=.* outside the sensor of 480 rows and 640 columns"),
    "another polarity": (lambda path, events: save(path, events, p=events["p"] + 1), "ha(ve|s) p = 2 at row"),
    "an unknown unit": (lambda path, events: save(path, events, t=np.arange(600) / 1.0), "data.time_unit="),
}


def damage(path, kind):
    events = np.load(path)["event_data"]
    DAMAGE[kind][0](path, events)
    return path


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_damage_is_told_with_path_and_cause_in_one_sentence(root, kind):
    path = damage(root / "extracted_val" / "n01443537" / "n01443537_2.npz", kind)
    with pytest.raises(RecordingError, match=DAMAGE[kind][1]) as told:
        list(build(root).test_dataloader())
    assert str(told.value).startswith(str(path))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("unit", "factor"), [(None, 1), (None, 1e-6), ("ms", 1e-3), ("ns", 1000)])
def test_polarity_codings_and_units_mean_the_same_recording(root, signed, unit, factor):
    path = root / "extracted_val" / "n01443537" / "n01443537_2.npz"
    events = np.load(path)["event_data"]
    expected, _ = build(root).files(path)
    polarity = events["p"].astype(np.int8)
    save(path, events, t=events["t"] * factor, p=2 * polarity - 1 if signed else polarity)
    np.testing.assert_array_equal(build(root, time_unit=unit).files(path)[0], expected)


def test_a_unit_that_does_not_exist_is_refused(root):
    with pytest.raises(UserError, match=r"data\.time_unit must be one of s, ms, us, ns, or null, got 'min'"):
        build(root, time_unit="min")


def test_inspection_counts_what_is_there_whoever_reads(root):
    damage(root / "extracted_val" / "n01443537" / "n01443537_0.npz", "truncated")
    data = build(root)
    alone = inspect(data.split("test"), data.files, progress=False)
    helped = inspect(data.split("test"), data.files, workers=2, progress=False)
    assert alone.causes == helped.causes
    assert list(alone.causes) == [4]
    assert not alone.sound[4]
    assert alone.sound.sum() == 11
    assert alone.events.tolist() == helped.events.tolist() == [600] * 4 + [0] + [600] * 7
    events, _ = data.files(data.split("test").path(0))
    assert alone.duration_us[0] == events["t"][-1] - events["t"][0]
    assert alone.on_events[0] == events["p"].sum()


def test_skipping_leaves_out_the_damaged_and_names_them(root, caplog):
    bad = {
        "training": damage(root / "extracted_train" / "n01440764" / "n01440764_3.npz", "time backwards"),
        "test": damage(root / "extracted_val" / "n01443537" / "n01443537_2.npz", "truncated"),
    }
    data = build(root, on_bad_recording="skip", batch_size=4, num_workers=1)
    assert [len(data.training), len(data.recordings("test"))] == [17, 11]
    assert data.steps_per_epoch == 5
    described = data.describe()
    assert described["recordings"] == {"training": 17, "test": 11}
    for split, path in bad.items():
        name = str(path.relative_to(root))
        assert described["skipped"][split]["count"] == 1
        assert str(path) in described["skipped"][split]["causes"][name]
        assert str(path) in caplog.text
        assert name.encode() in data.split(split).paths
        assert name.encode() not in data.used(split).paths
    assert sum(len(batch["label"]) for batch in data.test_dataloader()) == 11


def test_a_damaged_shot_drawn_twice_is_read_once(root):
    damage(root / "extracted_train" / "n01440764" / "n01440764_0.npz", "truncated")
    draws = {"shots": 12, "repeat": True}
    data = build(root, on_bad_recording="skip", few_shot=lambda recordings: sample_few_shot(recordings, **draws))
    assert data.training.class_counts().tolist() == [10, 12, 12]


def test_without_damage_skipping_changes_nothing(root):
    skipping, strict = build(root, on_bad_recording="skip"), build(root)
    assert skipping.describe() == strict.describe()
    assert strict.describe()["skipped"] == {}


def test_a_setting_that_fits_no_recording_is_no_damage(root):
    with pytest.raises(UserError, match=r"not one of the 18 recordings can be used, the first because: .* 10 rows"):
        _ = build(root, on_bad_recording="skip", sensor_hw=(10, 640)).training


def test_an_unknown_way_with_bad_recordings_is_refused(root):
    with pytest.raises(UserError, match=r"data\.on_bad_recording must be error or skip, got 'ignore'"):
        build(root, on_bad_recording="ignore")


def test_every_process_leaves_out_what_the_first_one_does(root):
    class Strategy:
        def broadcast(self, _):
            return {"training": {"extracted_train/n01440764/n01440764_1.npz": "broken for rank 0"}, "test": {}}

    class Trainer:
        world_size, strategy = 2, Strategy()

    data = build(root, on_bad_recording="skip")
    assert len(data.training) == 18
    data.trainer = Trainer()
    data.setup("fit")
    assert len(data.training) == 17


def test_paths_that_are_left_out_may_be_any(root):
    recordings = build(root).split("test")
    assert without(recordings, {}) is recordings
    assert len(without(recordings, {"elsewhere": "gone", recordings.relative(2): "bad"})) == len(recordings) - 1
    assert find_unreadable(recordings, build(root).files, workers=0, title="") == {}


def test_a_run_that_skips_names_what_it_left_out(run_data_set, root):
    damage(root / "extracted_val" / "n01443537" / "n01443537_2.npz", "truncated")
    overrides = (f"data.root={root}", "adapter=identity", "data.on_bad_recording=skip")
    skipped = run_data_set("fewshot_nimagenet", *overrides)
    assert skipped["data"]["recordings"]["test"] == 11
    (cause,) = skipped["data"]["skipped"]["test"]["causes"].values()
    assert re.search(r"n01443537_2\.npz is no whole \.npz file", cause)
    (root / "extracted_val" / "n01443537" / "n01443537_2.npz").unlink()
    absent = run_data_set("fewshot_nimagenet", *overrides, folder="absent")
    assert absent["metrics"] == skipped["metrics"]


def test_the_first_of_each_suffix_is_read_and_no_other(tmp_path):
    for name in ("a/0.npy", "a/1.npy", "a/2.csv", "b/3.npy", "b/4.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths = np.array([b"a/0.npy", b"a/1.npy", b"a/2.csv", b"b/3.npy", b"b/4.csv"])
    recordings = Recordings(tmp_path, paths, np.array([0, 0, 0, 1, 1]), ("a", "b"))
    seen = []
    check_first(recordings, SimpleNamespace(look=lambda path: seen.append(path.name)))
    assert seen == ["0.npy", "2.csv"]
