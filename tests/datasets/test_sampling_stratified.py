"""What is held out: a stable part of each class, that never takes a shot away while there is another recording."""

from pathlib import Path

import numpy as np
import pytest

from eventclip.datasets.recordings import Recordings
from eventclip.datasets.sampling import stratified_split
from eventclip.errors import UserError


def of(counts):
    paths = [f"{folder}/{i:03}.npy".encode() for folder, count in counts.items() for i in range(count)]
    labels = np.repeat(np.arange(len(counts)), list(counts.values()))
    return Recordings(Path("/set"), np.array(paths, dtype=np.bytes_), labels.astype(np.int64), tuple(counts))


def names(recordings, held_out):
    return {recordings.relative(i) for i in np.flatnonzero(held_out)}


@pytest.mark.parametrize(("size", "fraction", "expected"), [(10, 0.2, 2), (10, 0.01, 1), (2, 0.9, 1), (3, 0.5, 2)])
def test_each_class_gives_its_fraction_and_never_all(size, fraction, expected):
    recordings = of({"cat": size, "dog": size})
    held_out = stratified_split(recordings, fraction, seed=0)
    assert recordings.subset(np.flatnonzero(held_out)).class_counts().tolist() == [expected, expected]


def test_it_depends_on_the_seed_and_the_class_alone():
    whole, alone = of({"cat": 9, "dog": 12}), of({"dog": 12})
    of_dog = {name for name in names(whole, stratified_split(whole, 0.4, seed=3)) if name.startswith("dog")}
    assert names(alone, stratified_split(alone, 0.4, seed=3)) == of_dog
    shuffled = whole.subset(np.random.default_rng(0).permutation(len(whole)))
    assert names(shuffled, stratified_split(shuffled, 0.4, seed=3)) == names(
        whole, stratified_split(whole, 0.4, seed=3)
    )
    assert names(alone, stratified_split(alone, 0.4, seed=4)) != of_dog


def test_what_is_spared_is_taken_only_where_needed():
    recordings = of({"cat": 10})
    free = stratified_split(recordings, 0.5, seed=0)
    spared = free & (np.cumsum(free) <= 2)
    instead = stratified_split(recordings, 0.5, seed=0, spared=spared)
    assert not (instead & spared).any()
    assert (instead & free).sum() == 3  # the others of the five stay held out
    everything = np.ones(10, dtype=bool)
    np.testing.assert_array_equal(stratified_split(recordings, 0.5, seed=0, spared=everything), free)


def test_a_class_of_one_recording_is_told():
    with pytest.raises(UserError, match="'dog' of /set has 1 recording, where at least 2 are needed"):
        stratified_split(of({"cat": 2, "dog": 1}), 0.2, seed=0)
