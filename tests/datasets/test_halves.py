"""Half of the classes learned, the other half tested: which recordings and names each side has."""

from functools import partial

import numpy as np
import pytest

from eventclip.datasets.datamodule import grouped
from eventclip.datasets.folder import FolderDataModule
from eventclip.datasets.sampling import sample_few_shot
from eventclip.errors import UserError

CLASSES = ("anchor", "bell", "crown", "drum", "egg")


@pytest.fixture
def root(tmp_path):
    for split in ("training", "testing"):
        for name in CLASSES:
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                np.save(folder / f"{number}.npy", np.zeros((1, 4)))
    return tmp_path


def build(root, half="all", *, shots=2, seed=3, **options):
    few_shot = partial(sample_few_shot, shots=shots, seed=seed)
    given = {
        "splits": {"training": "training", "test": "testing"},
        "sensor_hw": (8, 8),
        "few_shot": few_shot,
        "half": half,
        **options,
    }
    return FolderDataModule(root=root, **grouped(given))


def paths(recordings):
    return recordings.paths.tolist()


def test_halves_part_the_classes_in_their_order(root):
    base, new = build(root, "base"), build(root, "new")
    assert base.class_names == base.tested_names == new.class_names == ["anchor", "bell", "crown"]
    assert new.tested_names == ["drum", "egg"]
    everything = build(root).recordings("test")
    assert sorted(paths(base.recordings("test")) + paths(new.recordings("test"))) == sorted(paths(everything))
    assert new.recordings("test").labels.tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize("half", ["base", "new"])
def test_the_shots_of_a_class_are_those_of_all_classes(root, half):
    everything = build(root)
    learned = [path for path in paths(everything.training) if path.split(b"/")[1].decode() in CLASSES[:3]]
    assert paths(build(root, half).training) == learned


def test_validation_has_the_learned_classes(root):
    splits = {"training": "training", "validation": "testing", "test": "testing"}
    new = build(root, "new", selection="validation", splits=splits)
    assert set(new.recordings("validate").labels.tolist()) == {0, 1, 2}
    assert not set(paths(new.recordings("validate"))) & set(paths(new.training))


def test_names_are_given_for_all_classes(root):
    names = ["Anker", "Glocke", "Krone", "Trommel", "Ei"]
    new = build(root, "new", class_names=names)
    assert (new.class_names, new.tested_names) == (names[:3], names[3:])
    mapped = build(root, "new", class_names={"egg": "an egg"})
    assert mapped.tested_names == ["drum", "an egg"]


def test_too_few_classes_and_a_half_that_is_none_are_told(root):
    with pytest.raises(UserError, match=r"fewshot\.classes=base needs two classes or more in each half, and .* has 3"):
        _ = build(root, "base", classes=["anchor", "bell", "crown"]).class_names
    with pytest.raises(UserError, match=r"fewshot\.classes must be one of all, base, new, got 'old'"):
        build(root, "old")
