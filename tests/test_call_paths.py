"""How many times a call crosses from file to file: a stranger who follows one sample reads that many pages."""

import sys
from pathlib import Path

import pytest
from lightning import Trainer

import eventclip
from eventclip import (
    Augmentation,
    EventClassifier,
    EventCLIP,
    FrameRenderer,
    LitEventClassifier,
    NCaltech101DataModule,
    TextAdapter,
    load_clip,
)
from eventclip.models.prompts import encode_classes
from eventclip.training.optim import AdamWarmupCosine

PACKAGE = str(Path(eventclip.__file__).parent) + "/"
TINY = PACKAGE + "assets/tiny_clip/tiny.json"


def file_changes(call):
    """Changes of file among the functions of eventclip that a call enters, one after the other."""
    entered = []

    def note(frame, what, _):
        if what == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            entered.append(frame.f_code.co_filename.removeprefix(PACKAGE))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    changes = [now for before, now in zip(["", *entered], entered, strict=False) if now != before]
    return len(changes) - 1, changes


@pytest.fixture(scope="module")
def module(learnable_root):
    augmentation = Augmentation(max_shift=4)
    data = NCaltech101DataModule(
        learnable_root, renderer=FrameRenderer(200), sensor_hw=(60, 80), augmentation=augmentation
    )
    data.connect(image_size=64)  # of the tiny CLIP
    return data


def test_a_training_sample_crosses_16_files(module):
    samples = module.dataset("fit")
    samples[0, 0]
    count, files = file_changes(lambda: samples[1, 1])
    assert count <= 16, (count, *files)


def test_a_training_step_crosses_8_files(module):
    encoder = load_clip(None, None, config=TINY)
    names = module.class_names
    adapter = TextAdapter(encode_classes(encoder, names, ["a {}"]), encoder.logit_scale)
    learner = LitEventClassifier(EventClassifier(encoder, adapter), AdamWarmupCosine(lr=1e-3), num_classes=len(names))
    learner.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    learner.log = lambda *_, **__: None  # which is for a loop that runs
    batch = next(iter(module.train_dataloader()))
    learner.training_step(batch, 0)
    count, files = file_changes(lambda: learner.training_step(batch, 0))
    assert count <= 8, (count, *files)


def test_classifying_a_recording_crosses_20_files(learnable_root):
    model = EventCLIP.zero_shot(["star", "anchor"], clip="tiny", events_per_frame=200)
    recording = next(learnable_root.glob("testing/*/*.npy"))
    model.classify(recording, sensor_hw=(60, 80))
    count, files = file_changes(lambda: model.classify(recording, sensor_hw=(60, 80)))
    assert count <= 20, (count, *files)
