"""How often the work on one recording goes from file to file: a reader follows it without getting lost."""

import sys
from pathlib import Path

import numpy as np

import eventclip

PACKAGE = str(Path(eventclip.__file__).parent)


def changes_of_file(work):
    """How often a call goes to another file of the package than the call before."""
    files = []

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            files.append(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return sum(one != other for one, other in zip(files, files[1:], strict=False))


def test_classifying_a_recording_goes_straight_on(tmp_path):
    rng, count = np.random.default_rng(0), 30_000
    columns = (rng.integers(0, 240, count), rng.integers(0, 180, count), np.sort(rng.random(count)) * 0.3)
    path = tmp_path / "a.npy"
    np.save(path, np.stack([*columns, rng.choice([-1, 1], count)], axis=1).astype(np.float32))
    model = eventclip.EventCLIP.zero_shot(["star", "anchor"], clip="tiny", device="cpu")

    def classify():
        model.classify(path, sensor_hw=(180, 240))

    classify()  # what is done once only
    assert changes_of_file(classify) <= 20
