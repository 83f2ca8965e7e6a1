"""Base and new classes in one table, and the harmonic mean of both."""

import pytest

from eventclip.errors import UserError
from eventclip.reports.report import make_report

BASE, NEW = {0: 0.8, 1: 0.7, 2: 0.75}, {0: 0.5, 1: 0.6}


@pytest.fixture
def halves(write_run, tmp_path):
    """Runs on base classes with three seeds, and on new ones with two of them."""
    for half, by_seed, names in (("base", BASE, ["cat", "dog"]), ("new", NEW, ["emu", "fox"])):
        for seed, accuracy in by_seed.items():
            data = {"checksums": {"test": half * 10}, "root": "/data"}
            said = {"class_names": names, "data": data, "settings": {"fewshot.classes": half}}
            write_run(f"{half}/{seed}", seed=seed, accuracy=accuracy, **said)
    return tmp_path


def rows(table):
    return {row.settings["fewshot.classes"]: row for row in table.rows}


def test_the_harmonic_mean_is_that_of_the_same_seeds(halves):
    table = make_report([halves]).table
    assert list(rows(table)) == ["base", "new", "harmonic mean"]
    both = rows(table)["harmonic mean"]
    assert both.seeds == (0, 1)
    assert both.by_seed == pytest.approx({0: 2 * 0.8 * 0.5 / 1.3, 1: 2 * 0.7 * 0.6 / 1.3})
    assert all(
        min(BASE[seed], NEW[seed]) <= mean <= (BASE[seed] + NEW[seed]) / 2 for seed, mean in both.by_seed.items()
    )
    assert "harmonic mean" in make_report([halves], by_shots=True).markdown


def test_runs_that_say_nothing_of_halves_had_all_classes(write_run, tmp_path):
    write_run("old", seed=0)
    write_run("new", seed=1, settings={"fewshot.classes": "all", "classifier.unheard_of": None})
    table = make_report([tmp_path]).table
    assert len(table.rows) == 1
    assert "fewshot.classes" not in table.columns
    assert not any("unheard_of" in note for note in table.notes)


def test_one_half_alone_has_none(write_run, tmp_path):
    for shots in (1, 5):
        write_run(f"{shots}", settings={"fewshot.classes": "base", "fewshot.shots": shots})
    assert len(make_report([tmp_path]).table.rows) == 2


def test_halves_of_unlike_data_are_still_refused(halves, write_run):
    data = {"checksums": {"test": "other"}, "root": "/data"}
    write_run("other", seed=7, class_names=["cat", "dog"], data=data, settings={"fewshot.classes": "base"})
    with pytest.raises(UserError, match=r"the runs have different test splits: sha256 basebase in .*; sha256 other in"):
        make_report([halves])


@pytest.mark.parametrize(("half", "names"), [("new", ["emu"] * 4), ("all", ["cat", "dog", "emu", "gnu"])])
def test_halves_of_another_class_list_are_refused(write_run, tmp_path, half, names):
    sides = {"base": ["cat", "dog"], "new": ["emu", "fox"], half: names}
    for side, classes in sides.items():
        data = {"checksums": {"test": side * 10}, "root": "/data"}
        write_run(side, class_names=classes, data=data, settings={"fewshot.classes": side})
    told = rf"the runs have halves of different classes: .*{len(names)} {half} in"
    with pytest.raises(UserError, match=told):
        make_report([tmp_path])


@pytest.mark.parametrize("odd", [0, 1])
def test_all_base_and_new_of_one_list_stand_together(write_run, tmp_path, odd):
    names = ["cat", "dog", "emu", "fox", "gnu"][: 4 + odd]
    for side, classes in {"all": names, "base": names[: 2 + odd], "new": names[2 + odd :]}.items():
        data = {"checksums": {"test": side * 10}, "root": "/data"}
        write_run(side, class_names=classes, data=data, settings={"fewshot.classes": side})
    table = make_report([tmp_path]).table
    assert list(rows(table)) == ["all", "base", "new", "harmonic mean"]
    both = rows(table)["harmonic mean"].by_seed
    assert both == pytest.approx({0: 0.5}), "two equal accuracies"
