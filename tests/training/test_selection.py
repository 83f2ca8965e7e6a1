"""What becomes a label: the reference's selections, laws of thresholds, filters and ties, a report counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from eventclip.errors import UserError
from eventclip.training.selection import Selection, draw_report, label_report, report_lines, score_dtype, summarise

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CASES = json.loads((GOLDEN / "pseudo_labels.json").read_text())["cases"]


@pytest.fixture(scope="module")
def probabilities():
    return np.load(GOLDEN / "pseudo_labels.npz")["probs"]


def paths(count):
    return np.array([f"{i:06d}.npy".encode() for i in range(count)])


def random_scores(count, *, versions=4, classes=7, seed=0):
    logits = np.random.default_rng(seed).normal(size=(count, versions, classes)) * 2
    exponents = np.exp(logits)
    return summarise(exponents / exponents.sum(-1, keepdims=True))


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_references_selections(probabilities, name):
    options = CASES[name]["options"]
    scores = summarise(probabilities if options["tta"] else probabilities[:, :1])
    select = Selection(
        threshold=options["conf_thresh"],
        tta_consistent=options["tta_consistent"],
        tta_min_prob=options["tta_min_prob"],
        topk=options["topk"],
    )
    chosen = select(scores, paths(len(scores)))
    assert sorted([int(scores["label"][i]), int(i)] for i in chosen) == CASES[name]["selected"]


def test_summaries_of_parts_are_parts_of_the_summary(probabilities):
    parts = [summarise(probabilities[start : start + 7]) for start in range(0, len(probabilities), 7)]
    assert np.concatenate(parts).tobytes() == summarise(probabilities).tobytes()


def test_a_recordings_bytes_do_not_grow_with_the_classes():
    assert score_dtype(4).itemsize == 40
    assert summarise(np.full((3, 4, 1000), 1e-3)).nbytes == 120


def test_ties_go_to_the_first_path_however_recordings_are_listed():
    scores = summarise(np.tile(np.array([0.75, 0.25], np.float32), (6, 2, 1)))
    names = paths(6)
    for order in (np.arange(6), np.arange(6)[::-1], np.random.default_rng(0).permutation(6)):
        chosen = Selection(threshold=0.5, topk=2)(scores, names[order])
        assert names[order][chosen].tolist() == [b"000000.npy", b"000001.npy"]


def test_the_threshold_must_be_exceeded():
    scores = summarise([[[0.75, 0.25]], [[0.5, 0.5]]])
    assert Selection(threshold=0.5)(scores, paths(2)).tolist() == [0]


def test_topk_takes_the_most_confident_of_what_the_filters_left():
    scores = random_scores(400)
    names = paths(len(scores))
    everything = Selection(threshold=0.3, tta_consistent=True)(scores, names)
    three = Selection(threshold=0.3, tta_consistent=True, topk=3)(scores, names)
    for label in range(7):
        own = [i for i in everything if scores["label"][i] == label]
        assert [i for i in three if scores["label"][i] == label] == own[:3]
        confidences = scores["probability"][own]
        assert (np.diff(confidences) <= 0).all()


def test_each_filter_only_takes_away():
    scores = random_scores(400)
    loose = Selection(threshold=0.3)
    for stricter in (
        Selection(threshold=0.4),
        Selection(threshold=0.3, tta_consistent=True),
        Selection(threshold=0.3, tta_min_prob=True),
    ):
        passed = stricter.passes(scores)
        assert (passed <= loose.passes(scores)).all()
        assert passed.sum() < loose.passes(scores).sum()


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "high", True, None])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(UserError, match=r"pseudo\.threshold .*\[0, 1\]"):
        Selection(threshold=threshold)


@pytest.mark.parametrize("topk", [0, -2, 1.5, True])
def test_topk_is_a_whole_number_or_minus_one(topk):
    with pytest.raises(UserError, match=r"pseudo\.topk"):
        Selection(threshold=0.5, topk=topk)


def test_nothing_selected_says_the_highest_probability():
    scores = summarise([[[0.75, 0.25], [0.25, 0.75]], [[0.8, 0.2], [0.8, 0.2]]])
    with pytest.raises(UserError, match=r"among 2 recordings is 0\.8000 .*lower pseudo\.threshold"):
        Selection(threshold=0.9)(scores, paths(2))
    with pytest.raises(UserError, match=r"1 of 1 exceed .*0\.5000.*tta_consistent and tta_min_prob.*=false"):
        Selection(threshold=0.4, tta_consistent=True, tta_min_prob=True)(scores[:1], paths(1))
    with pytest.raises(UserError, match="no recording left to guess"):
        Selection(threshold=0.4)(scores[:0], paths(0))


TOPS = [[0.9, 0.06, 0.04], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.5, 0.3, 0.2]]  # scored 0, 0, 1, 0


@pytest.fixture
def report():
    scores = summarise(np.array(TOPS, np.float32)[:, None])
    return label_report(scores, np.array([0, 1, 2]), np.array([0, 1, 1, 2]), ["cat", "dog", "emu"], added=5)


def test_the_report_counts_and_measures(report):
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


def test_a_certain_score_is_in_the_last_bin():
    scores = summarise(np.array([[[1.0, 0.0]]], np.float32))
    report = label_report(scores, np.array([0]), np.array([0]), ["cat", "dog"], added=0)
    assert [(row["to"], row["recordings"]) for row in report["reliability"]] == [(1.0, 1)]


def test_the_lines_name_each_class_and_the_empty_ones(report):
    lines = "\n".join(report_lines(report))
    for part in ("selected 3 of 4", "66.7% of the selected", "cat 2 (1)", "emu 0 (0)", "1 of 3 classes have none: emu"):
        assert part in lines


def test_the_picture_has_every_bin_and_the_threshold(report):
    above, below, swept = draw_report(report, threshold=0.6).axes
    np.testing.assert_allclose(above.lines[0].get_ydata(), [0.0, 1.0, 0.0, 1.0])
    assert [text.get_text() for text in below.texts] == ["1", "1", "1", "1"]
    assert swept.lines[2].get_xdata()[0] == 0.6
