"""Accuracy over shots, point by point."""

import pytest

from eventclip.plots.curve import Point, draw_curve


def test_a_line_for_each_series_at_the_true_shots():
    rows = {
        "RN50": [Point(1, 0.1234567891, 0.0125)],
        "ViT_B": [Point(1, 0.5, None), Point(20, 0.75, 0.1), Point(None, 0.8, None)],
    }
    axis = draw_curve(rows).axes[0]
    drawn = {c.get_label(): c.lines[0].get_xydata().tolist() for c in axis.containers}
    assert drawn == {"RN50": [[1, pytest.approx(12.34567891)]], "ViT_B": [[1, 50], [20, 75]]}
    assert axis.get_xscale() == "log"
    assert axis.get_xticks().tolist() == [1, 20]
    everything = [line for line in axis.lines if line.get_label() == "ViT_B (all)"]
    assert [list(line.get_ydata()) for line in everything] == [[80, 80]]
    bars = axis.containers[1].lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in bars] == [[50, 50], [65, 85]]


def test_there_is_no_curve_where_nothing_has_shots():
    assert draw_curve({"": [Point(None, 0.5, None)]}) is None
    assert draw_curve({}) is None
