"""Guesses on disk: the same whoever makes them, however often they were interrupted, and never made twice."""

import os

import numpy as np
import pytest
import torch
from lightning import Fabric

from eventclip.adapters.paper import IdentityAdapter
from eventclip.datasets.ncaltech101 import NCaltech101DataModule
from eventclip.datasets.pseudo_labels import summarise
from eventclip.datasets.tta import Shards
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer
from eventclip.features.cache import FeatureBank
from eventclip.models.classifier import EventClassifier
from eventclip.models.encoder import ClipEncoder
from eventclip.training.guessing import GuessStore, guess_all

VERSIONS = ("as_is", "mirrored")


class OneOf:
    """As much of Fabric as guessing asks for, as process ``rank`` of ``size``."""

    def __init__(self, rank=0, size=1):
        self.global_rank, self.world_size, self.fabric = rank, size, Fabric(accelerator="cpu", devices=1)
        self.to_device, self.autocast = self.fabric.to_device, self.fabric.autocast

    def barrier(self):
        pass


@pytest.fixture
def data(learnable_root):
    return NCaltech101DataModule(
        root=learnable_root,
        renderer=FrameRenderer(200),
        sensor_hw=(60, 80),
        percentile_events=600,
        image_size=32,
        evaluation_batch_size=6,
    )


@pytest.fixture(scope="module")
def classifier(tiny_clip_json):
    encoder = ClipEncoder(None, config=tiny_clip_json)
    text = torch.nn.functional.normalize(torch.randn(3, 32, generator=torch.Generator().manual_seed(0)), dim=-1)
    return EventClassifier(encoder, IdentityAdapter(text, 10.0))


@pytest.fixture
def guess(data, classifier, tmp_path):
    recordings = data.split("training")

    def run(folder, *fabrics, decides=None):
        store = GuessStore(
            tmp_path / folder, decides or {"teacher": 1}, shards=Shards(len(recordings), 5), versions=len(VERSIONS)
        )
        for fabric in fabrics or (OneOf(),):
            guess_all(fabric, classifier, data, recordings, store, versions=VERSIONS, progress=False)
        return store

    return run


def test_guesses_are_the_classifiers_own_averaged_over_versions(guess, data, classifier):
    recordings = data.split("training")
    stored = guess("one").read()
    probabilities = []
    for version in VERSIONS:
        make, rows = data.view_maker("test", version=version), []
        for i in range(len(recordings)):
            views, valid = make(*data.files(recordings.path(i)))
            with torch.no_grad():
                rows.append(
                    classifier(torch.from_numpy(valid)[None], views=torch.from_numpy(views)[None]).probabilities
                )
        probabilities.append(torch.cat(rows))
    expected = summarise(torch.stack(probabilities, 1).numpy())
    np.testing.assert_array_equal(stored["label"], expected["label"])
    np.testing.assert_allclose(stored["probability"], expected["probability"], rtol=1e-4)
    np.testing.assert_allclose(stored["top"], expected["top"], rtol=1e-4)


def test_several_processes_guess_what_one_does(guess):
    assert guess("two", OneOf(0, 3), OneOf(1, 3), OneOf(2, 3)).read().tobytes() == guess("one").read().tobytes()


def test_an_interrupted_guess_goes_on_and_ends_the_same(guess, data, monkeypatch):
    whole = guess("one").read()
    read = data.files.__class__.__call__
    seen = []

    def fails_at_the_twelfth(self, path):
        seen.append(path.name)
        if len(seen) == 12:
            raise KeyboardInterrupt
        return read(self, path)

    monkeypatch.setattr(data.files.__class__, "__call__", fails_at_the_twelfth)
    with pytest.raises(KeyboardInterrupt):
        guess("two")
    assert guess("two").read().tobytes() == whole.tobytes()
    assert len(seen) == 12 + 18 - 10  # two shards of five were whole
    guess("two")
    assert len(seen) == 20  # nothing is guessed twice


def test_another_teacher_begins_a_folder_of_its_own(guess):
    first, other = guess("one"), guess("one", decides={"teacher": 2})
    assert first.folder != other.folder
    assert other.missing(range(4)) == []


def test_a_feature_bank_of_all_versions_gives_the_same_guesses_and_is_read_the_next_time(
    guess, data, classifier, tmp_path, monkeypatch
):
    online = guess("online").read()
    data.bank = FeatureBank(classifier.encoder, folder=tmp_path / "bank", progress=False)
    banked = guess("banked").read()
    np.testing.assert_array_equal(banked["label"], online["label"])
    np.testing.assert_allclose(banked["probability"], online["probability"], rtol=1e-4)
    assert len({folder.name for folder in (tmp_path / "bank").iterdir() if folder.is_dir()}) == len(VERSIONS)
    monkeypatch.setattr(ClipEncoder, "encode_views", None)
    assert guess("again").read().tobytes() == banked.tobytes()


def test_damaged_guesses_are_found_and_made_again(guess, damage):
    store = guess("one")
    whole, path = store.read(), store.folder / "000000.npy"
    content = path.read_bytes()
    old = content[:-32]  # as they were written without a checksum
    flipped = bytearray(content)
    flipped[-40] ^= 1  # in the numbers
    for mutant in (b"", old, bytes(flipped), content + b"\0", *damage.mutants(content, 60)):
        path.write_bytes(mutant)
        if mutant != content:
            assert store.missing(range(4)) == [0]
            with pytest.raises(UserError, match=r"000000\.npy is gone or damaged: run the same command again"):
                store.read()
    path.unlink()
    os.mkfifo(path)
    assert store.missing(range(4)) == [0]
    path.unlink()
    path.write_bytes(content[:100])
    assert guess("one").read().tobytes() == whole.tobytes()
    assert path.read_bytes() == content
