"""Few-shot draws: the published ones to the file, ours nested and independent from class to class."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from eventclip.datasets.recordings import Recordings
from eventclip.datasets.sampling import reference_sample, sample_few_shot, seeded_sample
from eventclip.errors import UserError

GOLDEN = json.loads((Path(__file__).resolve().parents[1] / "golden" / "fewshot_splits.json").read_text())


def of(files, root="/set"):
    """Recordings of {class folder: file names}."""
    paths = [f"{folder}/{name}".encode() for folder, names in files.items() for name in names]
    labels = np.repeat(np.arange(len(files)), [len(names) for names in files.values()])
    return Recordings(Path(root), np.array(paths, dtype=np.bytes_), labels.astype(np.int64), tuple(files))


def names(recordings, positions):
    return [recordings.relative(i) for i in positions]


FILES = {"cat": [f"{i:02}.npy" for i in range(12)], "dog": [f"{i:02}.npy" for i in range(3)], "emu": ["a.npy", "b.npy"]}


@pytest.fixture
def recordings():
    return of(FILES)


@pytest.mark.parametrize("key", sorted(GOLDEN["splits"]))
def test_the_reference_sample_is_the_published_one(key):
    shots, repeat = key.removeprefix("shots=").split(",repeat=")
    recordings = of(GOLDEN["class_files"])
    drawn = reference_sample(recordings, int(shots), repeat=repeat == "True")
    assert names(recordings, drawn) == GOLDEN["splits"][key]


def test_reference_sampling_does_not_depend_on_the_listing():
    expected = GOLDEN["splits"]["shots=5,repeat=True"]
    backwards = of(dict(reversed(GOLDEN["class_files"].items())))
    assert names(backwards, reference_sample(backwards, 5, repeat=True)) == expected
    shuffled = of(GOLDEN["class_files"])
    shuffled = shuffled.subset(np.random.default_rng(0).permutation(len(shuffled)))
    assert names(shuffled, reference_sample(shuffled, 5, repeat=True)) == expected


@pytest.mark.parametrize("repeat", [False, True])
def test_fewer_shots_are_contained_in_more(recordings, repeat):
    largest = 30 if repeat else 2
    drawn = [Counter(seeded_sample(recordings, shots, 0, repeat=repeat).tolist()) for shots in range(1, largest + 1)]
    for fewer, more in pairwise(drawn):
        assert fewer <= more


@pytest.mark.parametrize("shots", [1, 2, 3, 7])
def test_every_class_gives_as_many_as_asked(recordings, shots):
    drawn = recordings.subset(seeded_sample(recordings, shots, 0, repeat=True))
    assert drawn.class_counts().tolist() == [shots] * 3


def test_a_class_that_runs_out_gives_each_equally_often(recordings):
    drawn = Counter(seeded_sample(recordings, 7, 0, repeat=True).tolist())
    assert sorted(drawn[i] for i in (12, 13, 14)) == [2, 2, 3]
    assert all(drawn[i] <= 1 for i in range(12))


def test_a_class_is_drawn_alike_whatever_other_classes_there_are(recordings):
    alone = of({"dog": FILES["dog"]})
    of_dog = [name for name in names(recordings, seeded_sample(recordings, 2, 3, repeat=False)) if "dog" in name]
    assert names(alone, seeded_sample(alone, 2, 3, repeat=False)) == of_dog


def test_a_seeded_sample_does_not_depend_on_the_order_of_files(recordings):
    shuffled = recordings.subset(np.random.default_rng(1).permutation(len(recordings)))
    drawn = names(shuffled, seeded_sample(shuffled, 2, 0, repeat=False))
    assert drawn == names(recordings, seeded_sample(recordings, 2, 0, repeat=False))


def test_seeds_differ_and_reach_every_recording(recordings):
    seen = Counter(i for seed in range(100) for i in seeded_sample(recordings, 1, seed, repeat=False).tolist())
    assert set(seen) == set(range(len(recordings)))


def test_too_few_recordings_are_told_with_class_count_and_remedy(recordings):
    with pytest.raises(UserError, match=r"'dog'.* 3 .* 5 shots.*fewshot\.repeat=true"):
        sample_few_shot(recordings, shots=5)
    assert len(sample_few_shot(recordings, shots=5, sampling="reference")) == 5 + 3 + 2


@pytest.mark.parametrize("repeat", [False, True])
def test_a_class_without_recordings_never_borrows_from_another(recordings, repeat):
    without = recordings.subset(np.flatnonzero(recordings.labels != 1))
    with pytest.raises(UserError, match="'dog'"):
        seeded_sample(without, 1, 0, repeat=repeat)


@pytest.mark.parametrize("shots", [0, -1, 1.5, "5", True])
def test_shots_must_be_a_positive_whole_number(recordings, shots):
    with pytest.raises(UserError, match=r"fewshot\.shots"):
        sample_few_shot(recordings, shots=shots)


def test_no_shots_given_takes_everything(recordings):
    assert sample_few_shot(recordings, shots=None).paths.tolist() == recordings.paths.tolist()


def test_an_unknown_draw_is_refused_with_the_choices(recordings):
    with pytest.raises(UserError, match="seeded, reference"):
        sample_few_shot(recordings, shots=1, sampling="random")
