"""The quality report, against numbers counted by hand."""

import numpy as np
import pytest

from eventclip.datasets.pseudo_labels import summarise
from eventclip.training.label_report import draw_reliability, label_report, told

PROBABILITIES = [[0.9, 0.06, 0.04], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2]]  # guessed 0, 0, 1, 0


@pytest.fixture
def report():
    guesses = summarise(np.array(PROBABILITIES, np.float32)[:, None])
    return label_report(guesses, np.array([0, 1, 2]), np.array([0, 1, 1, 2]), ["cat", "dog", "emu"], added=5)


def test_counts_and_accuracies(report):
    assert (report["guessed"], report["selected"], report["true_labels_added"]) == (4, 3, 5)
    assert report["accuracy_of_selected"] == pytest.approx(2 / 3)
    assert report["accuracy_of_all_guesses"] == pytest.approx(2 / 4)
    assert report["highest_probability"] == pytest.approx(0.9)
    assert report["classes"] == {
        "cat": {"selected": 2, "right": 1, "accuracy": 0.5, "recordings": 1},
        "dog": {"selected": 1, "right": 1, "accuracy": 1.0, "recordings": 2},
        "emu": {"selected": 0, "right": 0, "accuracy": None, "recordings": 1},
    }
    assert report["empty"] == ["emu"]


def test_every_recording_is_in_one_bin_of_the_reliability_curve(report):
    assert [row["recordings"] for row in report["reliability"]] == [1, 1, 1, 1]
    assert [row["accuracy"] for row in report["reliability"]] == [0.0, 1.0, 0.0, 1.0]
    for row in report["reliability"]:
        assert row["from"] <= row["probability"] <= row["to"]


def test_each_threshold_tells_what_it_keeps(report):
    kept = {row["threshold"]: (row["recordings"], row["accuracy"]) for row in report["thresholds"]}
    assert kept[0.0] == (4, 0.5)
    assert kept[0.6] == (3, pytest.approx(2 / 3))
    assert kept[0.95] == (0, None)


def test_a_certain_guess_is_in_the_last_bin():
    guesses = summarise(np.array([[[1.0, 0.0]]], np.float32))
    report = label_report(guesses, np.array([0]), np.array([0]), ["cat", "dog"], added=0)
    assert [(row["to"], row["recordings"]) for row in report["reliability"]] == [(1.0, 1)]


def test_the_lines_name_each_class_and_the_empty_ones(report):
    lines = "\n".join(told(report))
    for part in ("selected 3 of 4", "66.7% of the selected", "cat 2 (1)", "emu 0 (0)", "1 of 3 classes have none: emu"):
        assert part in lines


def test_the_picture_shows_the_curve_and_the_threshold(report):
    left, right = draw_reliability(report, threshold=0.6).axes
    np.testing.assert_allclose(left.lines[1].get_ydata(), [0.0, 1.0, 0.0, 1.0])
    assert right.lines[2].get_xdata()[0] == 0.6
