"""What differs names a row; what differs only in the seed is averaged."""

import json
import math

import pytest

from eventclip.reports.collect import collect
from eventclip.reports.table import MISSING, estimate, heading, make_table, shown, t_quantile

TEXT = {"adapter._target_": "eventclip.adapters.paper.TextAdapter"}
JOINT = {"adapter._target_": "eventclip.adapters.paper.JointAdapter", "adapter.width": 256, "adapter.heads": 4}


@pytest.fixture
def tabled(tmp_path):
    def table(*, mixed=False):
        return make_table(collect([tmp_path]).runs, mixed=mixed)

    return table


def cells(table):
    return [tuple(shown(column, row.settings[column]) for column in table.columns) for row in table.rows]


def test_runs_of_equal_settings_are_one_row(write_run, tabled):
    for seed, accuracy in enumerate((0.70, 0.72, 0.74)):
        write_run(f"run_{seed}", seed=seed, accuracy=accuracy)
    table = tabled()
    assert table.columns == []
    assert len(table.rows) == 1
    assert table.rows[0].seeds == (0, 1, 2)
    assert table.rows[0].estimates["test/top1_probabilities"] == estimate([0.70, 0.72, 0.74])
    assert table.notes == []


def test_rows_are_sorted_by_their_keys_with_shots_last(write_run, tabled):
    for shots in (10, 1, 3):
        for adapter in (TEXT, JOINT):
            write_run(f"{shots}{len(adapter)}", settings={**adapter, "fewshot.shots": shots})
    table = tabled()
    assert [heading(column) for column in table.columns] == ["adapter", "fewshot.shots"]
    assert cells(table) == [(a, s) for a in ("joint", "text") for s in ("1", "3", "10")]


def test_what_follows_from_a_column_has_none_but_is_told(write_run, tabled):
    write_run("a", settings={**TEXT, "optim.lr": 1e-3})
    write_run("b", settings={**JOINT, "optim.lr": 1e-4})
    table = tabled()
    assert cells(table) == [("joint",), ("text",)]
    assert table.notes == ["Differs as well, along with the columns: optim.lr (0.0001, 0.001)."]


def test_an_option_that_differs_beside_its_adapter_has_a_column(write_run, tabled):
    write_run("a", settings=TEXT)
    write_run("b", settings=JOINT)
    write_run("c", settings={**JOINT, "adapter.width": 128})
    table = tabled()
    assert table.columns == ["adapter._target_", "adapter.width"]
    assert cells(table) == [("joint", "128"), ("joint", "256"), ("text", "–")]


PROTOTYPE = {"adapter._target_": "eventclip.adapters.gaussian.PrototypeAdapter", "adapter.weights": "support"}


def test_how_a_fitted_adapter_is_set_always_has_a_column(write_run, tabled):
    write_run("a", settings=PROTOTYPE, adapter={"weights": "support"})
    assert cells(tabled()) == [("support",)]
    write_run("b", settings=TEXT)
    write_run("c", settings={**PROTOTYPE, "adapter.weights": "fixed"}, adapter={"weights": "fixed"})
    table = tabled()
    assert [heading(column) for column in table.columns] == ["adapter", "adapter.weights"]
    assert cells(table) == [("prototype", "fixed"), ("prototype", "support"), ("text", "–")]
    assert table.notes == []


def test_free_numbers_set_otherwise_than_asked_are_noted(write_run, tabled):
    write_run("a", settings=PROTOTYPE, adapter={"weights": "fixed"})
    write_run("b", settings=PROTOTYPE, adapter={"weights": "support"}, seed=1)
    assert cells(tabled()) == [("fixed",), ("support",)]
    (note,) = tabled().notes
    assert note.startswith("Set as adapter.weights=fixed where support was asked for: ")
    assert note.endswith("/a.")


def test_what_only_steps_have_parts_no_fitted_run(write_run, tabled, tmp_path):
    fitted = write_run("a", settings=PROTOTYPE, adapter={"weights": "support"})
    told = json.loads(fitted.read_text())
    del told["settings"]["optim.lr"]
    fitted.write_text(json.dumps(told))
    write_run("b", settings={**TEXT, "optim._target_": "Adam"})
    assert [heading(column) for column in tabled().columns] == ["adapter", "adapter.weights"]
    assert tabled().notes == []
    write_run("c", settings={**TEXT, "optim._target_": "Adam", "optim.lr": 0.1})
    assert cells(tabled()) == [("prototype", "support", "–"), ("text", "–", "0.001"), ("text", "–", "0.1")]


def test_a_section_set_to_null_differs_from_a_built_one(write_run, tabled):
    write_run("a", settings={"data.augmentation._target_": "x.Augmentation", "data.augmentation.max_shift": 5})
    write_run("b", settings={"data.augmentation": None})
    table = tabled()
    assert [heading(column) for column in table.columns] == ["data.augmentation"]
    assert cells(table) == [("Augmentation",), ("null",)]


def test_lists_and_strings_of_the_same_look_are_told_apart(write_run, tabled):
    write_run("a", settings={"tuning.parts": ["bias", "conv1"]})
    write_run("b", settings={"tuning.parts": "full"})
    assert cells(tabled()) == [("[bias, conv1]",), ("full",)]


def test_another_clip_of_the_same_name_has_a_column(write_run, tabled):
    write_run("a")
    write_run("b", clip={"weights_sha256": "d" * 64})
    write_run("c", name="other")
    assert cells(tabled()) == [("cccccccccccc", "made_up"), ("cccccccccccc", "other"), ("dddddddddddd", "made_up")]


def test_few_shot_seeds_are_no_difference_fixed_or_not(write_run, tabled):
    for seed in (0, 1):
        write_run(f"fixed/{seed}", seed=seed, settings={"fewshot.seed": 0})
    assert cells(tabled()) == [()]
    write_run("following", seed=1)
    assert tabled().columns == ["fewshot.seed"]
    assert [row.seeds for row in tabled().rows] == [(0, 1), (1,)]


def test_the_same_seed_twice_counts_once_by_its_mean_and_is_told(write_run, tabled, tmp_path):
    write_run("a", seed=0, accuracy=0.6)
    write_run("b", seed=0, accuracy=0.8)
    write_run("c", seed=1, accuracy=0.9)
    table = tabled()
    assert table.rows[0].seeds == (0, 1)
    assert table.rows[0].estimates["test/top1_probabilities"] == pytest.approx(estimate([0.7, 0.9]))
    assert table.notes == [
        f"Seed 0 was run 2 times with DIFFERENT numbers, counted once by its mean: {tmp_path}/a, {tmp_path}/b."
    ]


def test_the_same_run_twice_has_no_interval(write_run, tabled):
    write_run("a")
    write_run("b")
    assert tabled().rows[0].estimates["test/top1_logits"].half_width is None
    assert "with the same numbers" in tabled().notes[0]


def test_a_metric_of_some_rows_is_missing_in_the_others(write_run, tabled):
    five = {"test/top1_probabilities": 0.5, "test/top5_probabilities": 0.9}
    write_run("a", metrics=five)
    write_run("b", settings=JOINT)
    table = tabled()
    assert table.metrics == ["test/top1_probabilities", "test/top1_logits", "test/top5_probabilities"]
    assert [set(row.estimates) == set(five) for row in table.rows] == [False, True]


def test_different_data_sets_are_never_averaged(write_run, tabled):
    write_run("a", seed=0)
    write_run("b", seed=1, data={"checksums": {"test": "b"}, "root": "/elsewhere"})
    assert cells(tabled(mixed=True)) == [("/data",), ("/elsewhere",)]


def test_seeded_test_splits_are_averaged_where_mixed(write_run, tabled):
    write_run("a", seed=0)
    write_run("b", seed=1, data={"checksums": {"test": "b"}, "root": "/data"})
    assert [row.seeds for row in tabled(mixed=True).rows] == [(0, 1)]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("adapter._target_", "eventclip.adapters.paper.JointAdapter", "joint"),
        ("data._target_", "eventclip.datasets.ncars.NCarsDataModule", "NCars"),
        ("optim._target_", "eventclip.training.optim.AdamWarmupCosine", "AdamWarmupCosine"),
        ("fewshot.shots", None, "all"),
        ("fewshot.split_file", None, "null"),
        ("fewshot.repeat", True, "true"),
        ("optim.lr", 2e-5, "2e-05"),
        ("optim.lr", MISSING, "–"),
    ],
)
def test_settings_read_as_people_write_them(column, value, text):
    assert shown(column, value) == text


@pytest.mark.parametrize(  # the tables of any textbook
    ("degrees", "expected"),
    [
        (1, 12.7062),
        (2, 4.30265),
        (3, 3.18245),
        (4, 2.77645),
        (5, 2.57058),
        (10, 2.22814),
        (30, 2.04227),
        (31, 2.03951),
        (60, 2.00030),
        (1000, 1.96234),
    ],
)
def test_students_t_is_that_of_the_tables(degrees, expected):
    assert t_quantile(degrees) == pytest.approx(expected, abs=6e-6 * expected)


def test_the_interval_of_known_numbers():
    mean, half_width = estimate([0.70, 0.72, 0.74])  # s = 0.02
    assert mean == pytest.approx(0.72)
    assert half_width == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-6)


def test_one_value_has_no_interval_and_equal_values_one_of_zero():
    assert estimate([0.7]) == (0.7, None)
    assert estimate([0.5, 0.5]) == (0.5, 0.0)


def test_no_value_has_no_mean():
    with pytest.raises(ValueError, match="at least one"):
        estimate([])
