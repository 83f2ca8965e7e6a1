"""Half of the classes learned, the other half tested: which recordings and names each side has."""

import json
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


@pytest.mark.parametrize("classes", [None, ("egg", "bell", "crown", "anchor", "drum")])
@pytest.mark.parametrize("half", ["base", "new"])
def test_the_shots_of_the_reference_are_those_of_all_classes(root, classes, half):
    drawn = partial(sample_few_shot, shots=6, sampling="reference", repeat=True)  # of four: some come again
    everything = build(root, few_shot=drawn, classes=classes).training
    found = build(root, half, few_shot=drawn, classes=classes)
    learned = (classes or CLASSES)[:3]
    assert paths(found.training) == [path for path in paths(everything) if path.split(b"/")[1].decode() in learned]
    named = [found.training.class_folders[label] for label in found.training.labels]
    assert named == [path.split(b"/")[1].decode() for path in paths(found.training)]


def test_the_shots_of_a_half_are_drawn_where_others_have_none(root):
    for path in (root / "training" / "drum").iterdir():
        path.unlink()
    (root / "training" / "drum").rmdir()
    for sampling in ("reference", "seeded"):
        drawn = partial(sample_few_shot, shots=2, sampling=sampling)
        assert build(root, "new", few_shot=drawn).training.class_counts().tolist() == [2, 2, 2]


def listed(folder, pairs):
    path = folder / "list.json"
    path.write_text(json.dumps({"recordings": pairs}))
    return partial(sample_few_shot, shots=None, split_file=path)


@pytest.mark.parametrize("classes", [CLASSES, ("egg", "bell", "crown", "anchor", "drum")])
@pytest.mark.parametrize("half", ["base", "new"])
def test_a_split_file_of_all_classes_gives_those_learned(root, classes, half):
    pairs = [(f"training/{name}/{number}.npy", label) for label, name in enumerate(classes) for number in (2, 0, 2)]
    found = build(root, half, few_shot=listed(root, pairs[::-1]), classes=classes).training
    assert list(zip((path.decode() for path in paths(found)), found.labels, strict=True)) == pairs[8::-1]
    own = build(root, half, few_shot=listed(root, pairs[:9]), classes=classes).training
    assert sorted(paths(own)) == sorted(paths(found))


def test_a_split_file_that_does_not_fit_a_half_is_told(root):
    for pairs, message in (
        ([("training/drum/0.npy", 3)], r"list\.json lists no recording of the 3 classes that are learned"),
        ([("training/bell/0.npy", 1), ("training/drum/9.npy", 3)], r"drum/9\.npy .* not among the 20 training"),
        ([("training/bell/0.npy", 1), ("training/drum/0.npy", 0)], r"drum/0\.npy the label 0, .* is class 3"),
    ):
        with pytest.raises(UserError, match=message):
            _ = build(root, "base", few_shot=listed(root, pairs)).training


def test_guesses_for_all_classes_are_refused_for_a_half(root):
    everything = build(root).split("training")
    few_shot = listed(root, [])
    head = {"class_folders": list(CLASSES), "checksums": {"training": everything.checksum()}, "kind": "pseudo"}
    content = head | {"recordings": [["training/bell/0.npy", 1, 0.9, False]]}
    (root / "list.json").write_text(json.dumps(content))
    assert build(root, few_shot=few_shot).training.guessed.tolist() == [True]
    with pytest.raises(UserError, match=r"among other classes .* and its fewshot\.classes"):
        _ = build(root, "base", few_shot=few_shot).training


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
