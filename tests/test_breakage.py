"""What somebody in a hurry gives to the public names: told in a sentence, or taken for what it is."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch

from eventclip import (
    EVENT_DTYPE,
    Augmentation,
    EventClassifier,
    EventCLIP,
    FrameRenderer,
    NCaltech101DataModule,
    TextAdapter,
    ViewTransform,
    VisualAdapter,
    load_clip,
    open_stream,
    read_events,
    register_format,
    write_events,
)
from eventclip.datasets.symbols import simulate_symbol
from eventclip.errors import RecordingError, UserError
from eventclip.events.array import as_events
from eventclip.io.formats import Opened
from eventclip.models.checkpoint import load_classifier
from eventclip.training.optim import AdamWarmupCosine

HW = (128, 128)
EVENTS = simulate_symbol("star", HW, np.random.default_rng(7))
TRANSFORM = ViewTransform(FrameRenderer(5_000), image_size=64)


@pytest.fixture(scope="module")
def model():
    return EventCLIP.zero_shot(["star", "anchor"], clip="tiny")


@pytest.mark.parametrize("odd", [None, 5, [], iter(()), "x", np.zeros((), EVENT_DTYPE), torch.zeros(3, 4)])
def test_what_is_no_event_array_is_told(odd):
    for look in (FrameRenderer(5_000), TRANSFORM):
        with pytest.raises(UserError, match="one-dimensional array of EVENT_DTYPE"):
            look(odd, HW)


@pytest.mark.parametrize("sensor", [128, (128,), (128.0, 128.0), ("a", "b"), (1, 2, 3), (0, 5)])
def test_an_odd_sensor_is_told(sensor):
    for look in (FrameRenderer(5_000), TRANSFORM):
        with pytest.raises(UserError, match=r"sensor_hw must be \[height, width\]"):
            look(EVENTS, sensor)
    with pytest.raises(UserError, match=r"sensor_hw must be \[height, width\]"):
        FrameRenderer(5_000, sensor_hw=sensor)


def test_a_sensor_may_come_as_list_array_or_tensor():
    expected = TRANSFORM(EVENTS, HW).pixels
    for sensor in (list(HW), np.array(HW), torch.tensor(HW)):
        assert np.array_equal(TRANSFORM(EVENTS, sensor).pixels, expected)
        assert FrameRenderer(5_000)(EVENTS, sensor).shape == (len(expected) * 1, *HW)
    assert hash(FrameRenderer(5_000, sensor_hw=[128, 128])) == hash(FrameRenderer(5_000, sensor_hw=HW))


def test_off_as_minus_one_is_told_where_it_wrapped():
    wrapped = EVENTS.copy()
    wrapped["p"] = np.where(EVENTS["p"] == 0, 255, 1)
    for look in (FrameRenderer(5_000), TRANSFORM):
        with pytest.raises(UserError, match="has the polarity 255, expected 1"):
            look(wrapped, HW)


def test_events_of_another_byte_order_are_the_same_events():
    assert np.array_equal(as_events(EVENTS.astype(EVENT_DTYPE.newbyteorder())), EVENTS)


@pytest.mark.parametrize(
    "build",
    [
        lambda: FrameRenderer(1.5),
        lambda: FrameRenderer("5000"),
        lambda: FrameRenderer(float("nan")),
        lambda: ViewTransform(FrameRenderer(5), image_size=64.5),
        lambda: ViewTransform(FrameRenderer(5), image_size=64, max_views="3"),
        lambda: Augmentation(max_shift=1.5),
    ],
)
def test_what_is_no_whole_number_is_told(build):
    with pytest.raises(UserError, match="must be a whole number"):
        build()


def test_a_seed_is_no_generator():
    transform = ViewTransform(FrameRenderer(5_000), image_size=64, augmentation=Augmentation())
    with pytest.raises(UserError, match=r"np\.random\.default_rng"):
        transform(EVENTS, HW, 0)


def test_home_is_understood_where_files_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_events("~/a.npy", EVENTS)
    assert len(read_events("~/a.npy")[0]) == len(EVENTS)
    with pytest.raises(UserError, match="chunk_events must be"):
        open_stream("~/a.npy", chunk_events=0)


@pytest.mark.parametrize(
    ("gives", "told"),
    [
        (lambda: None, "gave a NoneType, expected Opened"),
        (lambda: Opened(iter([EVENTS, None, EVENTS])), "gave NoneType as a piece"),
        (lambda: Opened(iter([EVENTS["x"]])), "as a piece"),
        (lambda: Opened(iter([EVENTS.astype([(n, EVENT_DTYPE[n]) for n in "txyp"])])), "as a piece"),
        (lambda: Opened(iter([EVENTS]), sensor_hw="abc"), "sensor_hw must be"),
    ],
)
def test_an_own_format_is_kept_to_its_word(tmp_path, gives, told):
    register_format("own", [".own"], lambda path, options, chunk: gives())
    (tmp_path / "a.own").write_bytes(b"x")
    with pytest.raises(RecordingError, match=told) as error:
        read_events(tmp_path / "a.own")
    assert "a.own" in str(error.value)


def test_an_own_format_may_give_lists(tmp_path):
    register_format("own", [".own"], lambda path, options, chunk: Opened([EVENTS], sensor_hw=[128, 128]))
    (tmp_path / "a.own").write_bytes(b"x")
    events, sensor_hw = read_events(tmp_path / "a.own")
    assert np.array_equal(events, EVENTS)
    assert sensor_hw == HW


def test_one_odd_recording_does_not_end_the_others(model):
    odd = [None, 5, b"a.npy", torch.zeros(3, 4), [1, 2]]
    found = list(model.classify_each([*odd, EVENTS], sensor_hw=HW))
    assert all(isinstance(one, RecordingError) and "no recording" in str(one) for one in found[:-1])
    assert found[-1].label == "star"
    for one in odd[:-1]:
        for ask in (model.classify, model.features):
            with pytest.raises(UserError, match="is no recording"):
                ask(one, sensor_hw=HW)


def test_classes_may_come_from_a_generator():
    model = EventCLIP.zero_shot((name for name in ("star", "anchor")), clip="tiny")
    assert model.class_names == ("star", "anchor")


@pytest.mark.parametrize("clip", [None, 5, load_clip])
def test_a_clip_that_is_none_is_told(clip):
    with pytest.raises(UserError, match="names no CLIP"):
        EventCLIP.zero_shot(["a", "b"], clip=clip)


def test_names_and_classifier_must_fit(model):
    classifier = model._batches.classifier
    with pytest.raises(UserError, match="2 classes and 3 class names"):
        EventCLIP(classifier, ["a", "b", "c"]).classify(EVENTS, sensor_hw=HW)
    with pytest.raises(UserError, match="image_size=64"):
        EventCLIP(classifier, ["a", "b"], views=ViewTransform(FrameRenderer(5), image_size=32))


def test_eight_threads_find_what_one_does(model):
    expected, found = model.classify(EVENTS, sensor_hw=HW).probabilities, []
    threads = [
        threading.Thread(target=lambda: found.append(model.classify(EVENTS, sensor_hw=HW).probabilities))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(np.array_equal(one, expected) for one in found)


def test_copies_of_a_model_are_the_model(model):
    expected = model.classify(EVENTS, sensor_hw=HW).probabilities
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(twin.classify(EVENTS, sensor_hw=HW).probabilities, expected)


def test_weights_may_be_given_as_a_path(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_clip("ViT-B-32", tmp_path / "none.pt")


def test_a_stage_that_is_none_is_not_another(learnable_root):
    data = NCaltech101DataModule(learnable_root)
    for odd in ("train", "training", None):
        with pytest.raises(UserError, match="the stages are fit, validate and test"):
            data.dataset(odd)
    with pytest.raises(UserError, match=r"airplanes.* twice"):
        NCaltech101DataModule(learnable_root, classes=["airplanes", "airplanes"])


def test_no_recordings_pass_the_visual_adapter():
    adapter = VisualAdapter(torch.eye(3, 16), 100.0, width=32, heads=2)
    assert adapter(torch.zeros(0, 4, 16), torch.zeros(0, 4, dtype=torch.bool)).shape == (0, 4, 3)


def test_a_checkpoint_without_metadata_says_what_to_do(tmp_path):
    encoder = load_clip("tiny")
    classifier = EventClassifier(encoder, TextAdapter(torch.eye(2, 128), 100.0))
    path = tmp_path / "own.ckpt"
    torch.save({"state_dict": classifier.learned_state_dict(), "eventclip": {}}, path)
    with pytest.raises(UserError, match="load_learned_state_dict"):
        load_classifier(path)
    classifier.load_learned_state_dict(torch.load(path)["state_dict"])


def test_nothing_that_learns_is_told():
    with pytest.raises(UserError, match="nothing learns"):
        AdamWarmupCosine(lr=1e-3)([], 10)
