"""A recording is classified the same from file or memory, alone or in a list, here or in training's own test."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from eventclip import EventCLIP, FrameRenderer, ViewTransform
from eventclip.errors import RecordingError, UserError
from eventclip.events.array import EVENT_DTYPE
from eventclip.events.frames import events_per_frame_for
from eventclip.models.checkpoint import read_checkpoint

SENSOR = (128, 128)


def test_sketches_are_told_apart_by_their_names_alone(model, films):
    results = model.classify(list(films.values()), sensor_hw=SENSOR)
    assert [result.label for result in results] == list(films)
    for result in results:
        probabilities = [label.probability for label in result.labels]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert result.top(2) == result.labels[:2]
        np.testing.assert_allclose(result.view_probabilities.mean(axis=0), result.probabilities, rtol=1e-5)
        assert result.view_probabilities.shape == (len(result.views), 3)
        assert result.top(1, view=0)[0].probability == pytest.approx(result.view_probabilities[0].max())


def test_file_or_memory_alone_or_in_a_list_is_the_same(model, films, folder):
    files = sorted((folder / "deep").iterdir())
    together = model.classify(files, sensor_hw=SENSOR)
    mixed = model.classify([str(files[0]), films["star"], files[2]], sensor_hw=SENSOR)
    small = EventCLIP(model._batches.classifier, model.class_names, views=model.reader, device="cpu", batch_views=1)
    alone = [small.classify(films[file.stem], sensor_hw=SENSOR) for file in files]
    for a, b, c in zip(together, mixed, alone, strict=True):
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-6)
        np.testing.assert_allclose(a.probabilities, c.probabilities, atol=1e-6)
        np.testing.assert_allclose(a.view_probabilities, c.view_probabilities, atol=1e-6)


def test_arrays_of_other_layouts_are_the_same_events(model, films):
    events = films["star"]
    structured = np.zeros(len(events), [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "i1")])
    for name in "txy":
        structured[name] = events[name]
    structured["p"] = 2 * events["p"].astype(np.int8) - 1
    est = np.stack([events["x"], events["y"], events["t"] / 1e6, structured["p"]], axis=1)
    expected = model.classify(events, sensor_hw=SENSOR).probabilities
    for array in (structured, est):
        np.testing.assert_array_equal(model.classify(array, sensor_hw=SENSOR).probabilities, expected)


def test_views_tell_their_events_and_times(model, films):
    events = films["umbrella"]
    views = model.views(events, sensor_hw=SENSOR)
    assert views.events == len(events)
    assert views.events_per_frame == events_per_frame_for(SENSOR) == 10_800
    for (first, past), times in zip(views.spans, views.times, strict=True):
        assert past - first == 10_800
        np.testing.assert_array_equal(times, events["t"][[first, past - 1]])


@pytest.mark.parametrize(("sensor_hw", "expected"), [((180, 240), 20_000), ((480, 640), 70_000), ((1, 1), 21)])
def test_events_per_frame_pass_through_the_papers_own(sensor_hw, expected):
    assert events_per_frame_for(sensor_hw) == expected


def test_a_window_is_classified_as_a_recording_by_itself(model, films, folder):
    windows = list(
        model.classify_windows(folder / "deep" / "star.npy", window_us=90_000, step_us=45_000, sensor_hw=SENSOR)
    )
    assert len(windows) >= 5
    for one in windows:
        alone = model.classify(films["star"][one.window.first :][: len(one.window.events)], sensor_hw=SENSOR)
        np.testing.assert_allclose(one.found.probabilities, alone.probabilities, atol=1e-6)


def test_a_window_of_time_without_events_is_not_classified(model, films):
    late = films["star"].copy()
    late["t"][len(late) // 2 :] += 1_000_000
    found = [one.found for one in model.classify_windows(late, window_us=100_000, sensor_hw=SENSOR)]
    assert found[0] is not None
    assert found[-1] is not None
    assert None in found


def test_a_window_prints_as_one_line(model, films):
    late = films["star"].copy()
    late["t"][len(late) // 2 :] += 1_000_000
    printed = [repr(one) for one in model.classify_windows(late, window_us=100_000, sensor_hw=SENSOR)]
    assert printed[0].startswith(
        f"WindowClassification({late['t'][0]:,} to {late['t'][0] + 100_000:,} µs: Classification("
    )
    assert "; 1 view))" in printed[0]
    assert any(line.endswith(" µs: no events)") for line in printed)
    assert not any("\n" in line for line in printed)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, learnable_root):
    """A joint adapter trained on N-Caltech101's layout; its folder and the probabilities of its own test."""
    from hydra import compose, initialize_config_dir

    from eventclip.config.composition import CONFIG_DIR, register_schema
    from eventclip.training.experiment import run

    output = tmp_path_factory.mktemp("trained")
    register_schema()
    overrides = [
        "experiment=fewshot_ncaltech", f"data.root={learnable_root}", "data.sensor_hw=[60,80]", "clip=tiny",
        "adapter=joint", "frames.events_per_frame=200", "data.p95_events=600", "data.num_workers=0",
        "data.augmentation.max_shift=3", "fewshot.shots=3", "data.batch_size=4", "optim.lr=0.01",
        "trainer.max_epochs=3", "callbacks.progress=null", f"paths.output={output}", "views.resize_mode=pad",
    ]  # fmt: skip
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        run(compose("train", overrides))
    return output


def test_a_checkpoint_says_what_the_test_of_its_training_said(trained, learnable_root):
    from eventclip.training.experiment import assemble

    model = EventCLIP.from_checkpoint(trained / "checkpoints" / "last.ckpt", device="cpu")
    files = sorted((learnable_root / "testing").glob("*/*.npy"))
    found = model.classify(files)
    correct = np.mean([one.label == model.class_names[i // 4] for i, one in enumerate(found)])
    results = json.loads((trained / "results.json").read_text())
    assert correct == pytest.approx(results["metrics"]["test/top1_probabilities"])

    from omegaconf import OmegaConf

    checkpoint = read_checkpoint(trained / "checkpoints" / "last.ckpt")
    parts = assemble(OmegaConf.create(checkpoint["eventclip"]["config"]))
    parts.classifier.load_learned_state_dict(checkpoint["state_dict"])
    batch = next(iter(parts.datamodule.test_dataloader()))
    with torch.no_grad():
        expected = parts.lit.eval()(batch).probabilities.numpy()
    np.testing.assert_allclose([one.probabilities for one in found], expected, atol=1e-5)


def test_a_recording_of_another_sensor_is_refused_unless_told(trained, films):
    path = trained / "checkpoints" / "last.ckpt"
    with pytest.raises(
        RecordingError, match=r"128x128 pixels and the checkpoint .*last.ckpt was trained on 60x80.*other_sensors"
    ):
        EventCLIP.from_checkpoint(path).classify(films["star"], sensor_hw=SENSOR)
    found = EventCLIP.from_checkpoint(path, other_sensors=True).classify(films["star"], sensor_hw=SENSOR)
    assert found.views.sensor_hw == SENSOR


def test_a_unit_that_the_numbers_do_not_tell_can_be_given(tmp_path):
    path = tmp_path / "whole_seconds.npy"
    np.save(path, np.array([[3, 4, 0, 1], [5, 6, 1, -1], [7, 8, 2, 1]], np.float32))
    words = {"classes": ["star", "heart"], "clip": "tiny", "device": "cpu"}
    with pytest.raises(RecordingError, match="unit cannot be told: give time_unit="):
        EventCLIP.zero_shot(**words).classify(path, sensor_hw=SENSOR)
    model = EventCLIP.zero_shot(**words, time_unit="s")
    assert model.views(path, sensor_hw=SENSOR).times.max() == 2_000_000
    assert [w.window.events["t"][-1] for w in model.classify_windows(path, window_events=3, sensor_hw=SENSOR)] == [2e6]
    with pytest.raises(UserError, match="time_unit must be one of s, ms, us, ns"):
        EventCLIP.zero_shot(**words, time_unit="h")


def test_another_clip_than_the_checkpoints_is_refused(trained, tiny_clip_json):
    with pytest.raises(UserError, match="give the same CLIP"):
        EventCLIP.from_checkpoint(
            trained / "checkpoints" / "last.ckpt",
            clip={"arch": None, "config": str(tiny_clip_json), "pretrained": None},
        )


@pytest.mark.parametrize(
    "target", ["subprocess.run", "eventclip.events.frames.math.prod", "eventclip.models.weights.Path.unlink", "nowhere"]
)
def test_code_that_is_not_ours_is_not_run_unless_trusted(trained, tmp_path, target):
    checkpoint = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    checkpoint["eventclip"]["config"]["adapter"]["nested"] = [{"_target_": target}]
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    with pytest.raises(UserError, match=f"asks for {target}, which is no part of eventclip"):
        EventCLIP.from_checkpoint(tmp_path / "bad.ckpt")


def test_words_need_no_hydra_and_checkpoints_no_lightning(trained):
    code = (
        "import sys; from eventclip import EventCLIP; assert 'torch' in sys.modules;"
        "EventCLIP.zero_shot(classes=['star', 'anchor'], clip='tiny');"
        "assert not {'lightning', 'hydra'} & set(sys.modules);"
        f"EventCLIP.from_checkpoint({str(trained / 'checkpoints' / 'last.ckpt')!r});"
        "assert 'lightning' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"classes": []}, "classes is an empty list"),
        ({"classes": ["star", "anchor", "star"]}, "classes names 'star' twice"),
        ({"classes": ["star", " "]}, "class 2 of 2 has an empty name"),
        ({"classes": "star"}, "is one name: give a list"),
        ({"clip": "tiny2"}, "names no CLIP"),
        ({"clip": "ViT-B-99/openai"}, "ViT-B-99"),
        ({"clip": {"pretraind": "x"}}, "clip cannot be built.*pretraind"),
        ({"prompts": "a star"}, "must hold {} once"),
        ({"events_per_frame": 0}, "events_per_frame must be a whole number of 1 or more"),
        ({"max_views": 0}, "max_views must be a whole number of 1 or more"),
        ({"resize_mode": "squash"}, "resize_mode must be one of crop, pad, stretch"),
        ({"device": "cuda:99"}, "device=cuda:99 cannot be used"),
        ({"batch_views": 0}, "batch_views must be a whole number of 1 or more"),
    ],
)
def test_a_mistake_is_one_sentence(options, told):
    with pytest.raises(UserError, match=told) as raised:
        EventCLIP.zero_shot(**{"classes": ["star", "anchor"], "clip": "tiny", **options})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("events", "sensor_hw", "told"),
    [
        (
            np.zeros(5, EVENT_DTYPE),
            None,
            r"does not say how large its sensor is: .*sensor_hw=\[480,640\]",
        ),
        (np.zeros(0, EVENT_DTYPE), SENSOR, "the events array holds no events"),
        (np.ones(5, EVENT_DTYPE), (1, 1), "lies outside the sensor of 1 rows"),
        (np.zeros(5, EVENT_DTYPE), (5,), r"sensor_hw must be \[height, width\]"),
        (np.zeros((5, 3)), SENSOR, r"the events array holds an array of shape \(5, 3\)"),
        ("/nowhere/a.npy", SENSOR, "/nowhere/a.npy cannot be read"),
    ],
)
def test_a_recording_that_cannot_be_classified_says_why(model, events, sensor_hw, told):
    with pytest.raises(UserError, match=told):
        model.classify(events, sensor_hw=sensor_hw)
    with pytest.raises(UserError, match=told):
        list(model.classify_windows(events, window_events=5, sensor_hw=sensor_hw))


def test_a_bad_recording_among_good_ones_keeps_its_place(model, films):
    star = films["star"]
    found = list(model.classify_each([star, "/nowhere.npy", star], sensor_hw=SENSOR))
    assert isinstance(found[1], RecordingError)
    assert found[0].label == found[2].label == "star"
    with pytest.raises(RecordingError, match="nowhere"):
        model.classify([star, "/nowhere.npy"], sensor_hw=SENSOR)


def test_a_wide_sensor_is_cropped_or_shown_whole(films):
    wide = films["star"].copy()
    wide["x"][0], wide["y"][0] = 399, 0  # a far corner, so that centring leaves the star at the left
    sensor = (128, 400)
    shown = {
        mode: EventCLIP.zero_shot(["star", "anchor"], clip="tiny", resize_mode=mode, events_per_frame=10_800)
        .views(wide, sensor_hw=sensor)
        .pixels
        for mode in ("crop", "pad", "stretch")
    }
    ink = {mode: (frames < 240).mean(axis=(0, 1)) for mode, frames in shown.items()}
    assert ink["crop"].sum() < 0.2 * ink["pad"].sum()  # the star lies beyond the middle square
    assert ink["pad"][:20].sum() == 0  # a band of background above and below
    assert ink["stretch"][:20].sum() > 0
    assert ink["stretch"].shape == ink["pad"].shape == (64, 64)


def test_features_are_of_unit_length_and_one_row_a_recording(model, films):
    recordings = list(films.values())
    features = model.features(recordings, sensor_hw=SENSOR)
    assert features.shape == (3, model.encoder.width)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    by_view = model.features(recordings, per_view=True, sensor_hw=SENSOR)
    for recording, mean, views in zip(recordings, features, by_view, strict=True):
        seen = model.views(recording, sensor_hw=SENSOR)
        assert views.shape == (len(seen), model.encoder.width)
        with torch.no_grad():
            raw = torch.nn.functional.normalize(model.encoder.encode_views(torch.from_numpy(seen.pixels)), dim=-1)
        np.testing.assert_allclose(views, raw, atol=1e-5)
        np.testing.assert_allclose(mean, views.mean(0) / np.linalg.norm(views.mean(0)), atol=1e-6)
    np.testing.assert_array_equal(model.features(recordings[1], sensor_hw=SENSOR), features[1:2])
    assert model.features([], sensor_hw=SENSOR).shape == (0, model.encoder.width)
    with pytest.raises(RecordingError, match="nowhere"):
        model.features(["/nowhere.npy"])


def test_a_classifier_of_ones_own_needs_no_plumbing(model, films):
    own = EventCLIP(model._batches.classifier, model.class_names, device="cpu")
    for events in films.values():
        ours, theirs = (one.classify(events, sensor_hw=SENSOR) for one in (own, model))
        assert np.array_equal(ours.probabilities, theirs.probabilities)
    transform = ViewTransform(FrameRenderer(5_000), image_size=own.encoder.image_size, max_views=2)
    few = EventCLIP(model._batches.classifier, model.class_names, views=transform, device="cpu")
    views = few.views(films["star"], sensor_hw=SENSOR)
    assert (len(views), views.events_per_frame) == (2, 5_000)
    assert np.array_equal(views.pixels, transform(films["star"], SENSOR).pixels)
