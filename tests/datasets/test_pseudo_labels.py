"""What becomes a label: the reference's selections, and the laws of thresholds, filters and ties."""

import json
from pathlib import Path

import numpy as np
import pytest

from eventclip.datasets.pseudo_labels import Selection, guess_dtype, summarise
from eventclip.errors import UserError

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CASES = json.loads((GOLDEN / "pseudo_labels.json").read_text())["cases"]


@pytest.fixture(scope="module")
def probabilities():
    return np.load(GOLDEN / "pseudo_labels.npz")["probs"]


def paths(count):
    return np.array([f"{i:06d}.npy".encode() for i in range(count)])


def random_guesses(count, *, versions=4, classes=7, seed=0):
    logits = np.random.default_rng(seed).normal(size=(count, versions, classes)) * 2
    exponents = np.exp(logits)
    return summarise(exponents / exponents.sum(-1, keepdims=True))


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_references_selections(probabilities, name):
    options = CASES[name]["options"]
    guesses = summarise(probabilities if options["tta"] else probabilities[:, :1])
    select = Selection(
        threshold=options["conf_thresh"],
        tta_consistent=options["tta_consistent"],
        tta_min_prob=options["tta_min_prob"],
        topk=options["topk"],
    )
    chosen = select(guesses, paths(len(guesses)))
    assert sorted([int(guesses["label"][i]), int(i)] for i in chosen) == CASES[name]["selected"]


def test_summaries_of_parts_are_parts_of_the_summary(probabilities):
    parts = [summarise(probabilities[start : start + 7]) for start in range(0, len(probabilities), 7)]
    assert np.concatenate(parts).tobytes() == summarise(probabilities).tobytes()


def test_a_recording_costs_bytes_that_do_not_grow_with_the_classes():
    assert guess_dtype(4).itemsize == 40
    assert summarise(np.full((3, 4, 1000), 1e-3)).nbytes == 120


def test_ties_go_to_the_first_path_however_recordings_are_listed():
    guesses = summarise(np.tile(np.array([0.75, 0.25], np.float32), (6, 2, 1)))
    names = paths(6)
    for order in (np.arange(6), np.arange(6)[::-1], np.random.default_rng(0).permutation(6)):
        chosen = Selection(threshold=0.5, topk=2)(guesses, names[order])
        assert names[order][chosen].tolist() == [b"000000.npy", b"000001.npy"]


def test_the_threshold_must_be_exceeded():
    guesses = summarise([[[0.75, 0.25]], [[0.5, 0.5]]])
    assert Selection(threshold=0.5)(guesses, paths(2)).tolist() == [0]


def test_topk_takes_the_most_confident_of_what_the_filters_left():
    guesses = random_guesses(400)
    names = paths(len(guesses))
    everything = Selection(threshold=0.3, tta_consistent=True)(guesses, names)
    three = Selection(threshold=0.3, tta_consistent=True, topk=3)(guesses, names)
    for label in range(7):
        own = [i for i in everything if guesses["label"][i] == label]
        assert [i for i in three if guesses["label"][i] == label] == own[:3]
        confidences = guesses["probability"][own]
        assert (np.diff(confidences) <= 0).all()


def test_each_filter_only_takes_away():
    guesses = random_guesses(400)
    loose = Selection(threshold=0.3)
    for stricter in (
        Selection(threshold=0.4),
        Selection(threshold=0.3, tta_consistent=True),
        Selection(threshold=0.3, tta_min_prob=True),
    ):
        passed = stricter.passes(guesses)
        assert (passed <= loose.passes(guesses)).all()
        assert passed.sum() < loose.passes(guesses).sum()


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "high", True, None])
def test_a_threshold_that_is_no_probability_is_refused(threshold):
    with pytest.raises(UserError, match=r"pseudo\.threshold .*\[0, 1\]"):
        Selection(threshold=threshold)


@pytest.mark.parametrize("topk", [0, -2, 1.5, True])
def test_topk_is_a_whole_number_or_minus_one(topk):
    with pytest.raises(UserError, match=r"pseudo\.topk"):
        Selection(threshold=0.5, topk=topk)


def test_nothing_selected_says_the_highest_probability_and_the_remedy():
    guesses = summarise([[[0.75, 0.25], [0.25, 0.75]], [[0.8, 0.2], [0.8, 0.2]]])
    with pytest.raises(UserError, match=r"among 2 recordings is 0\.8000 .*lower pseudo\.threshold"):
        Selection(threshold=0.9)(guesses, paths(2))
    with pytest.raises(UserError, match=r"1 of 1 exceed .*0\.5000.*tta_consistent and tta_min_prob.*=false"):
        Selection(threshold=0.4, tta_consistent=True, tta_min_prob=True)(guesses[:1], paths(1))
    with pytest.raises(UserError, match="no recording left to guess"):
        Selection(threshold=0.4)(guesses[:0], paths(0))
