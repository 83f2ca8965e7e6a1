"""Confusions for few and for many classes, reliability of a model, quality of a teacher's labels."""

import numpy as np
import pytest

from eventclip.plots.diagnostics import draw_confusion, draw_label_quality, draw_reliability

BINNED = np.array([[0, 4, 10], [0, 2.0, 9.0], [0, 1, 10]])


@pytest.mark.parametrize(
    ("classes", "named", "numbered"), [(2, True, 4), (40, True, 0), (101, False, 0), (1000, False, 0)]
)
def test_names_and_numbers_are_drawn_where_there_is_room(classes, named, numbered):
    counts = np.eye(classes, dtype=np.int64) * 9
    counts[0, 1] = counts[1, 0] = 1
    figure = draw_confusion(counts, [f"c{k}" for k in range(classes)], ["c0 → c1   1"])
    axis, bar = figure.axes
    assert ([label.get_text() for label in axis.get_yticklabels()] == [f"c{k}" for k in range(classes)]) == named
    assert len(axis.texts) == numbered
    assert any("c0 → c1" in text.get_text() for text in bar.texts) == (classes > 20)
    figure.draw_without_rendering()
    pixels = axis.get_window_extent()
    assert min(pixels.width, pixels.height) >= classes


def test_the_reliability_diagram_shows_accuracy_and_counts():
    above, below = draw_reliability(BINNED, 0.125).axes
    assert [bar.get_height() for bar in above.patches] == [0.25, 1.0]
    assert above.lines[0].get_xydata().tolist() == [[0.5, 0.25], [0.9, 1.0]]
    assert [text.get_text() for text in below.texts] == ["4", "10"]
    assert "12.5 %" in above.get_title()


def test_the_quality_of_labels_shows_bins_and_thresholds():
    thresholds, kept, right = np.array([0.0, 0.5, 0.9]), np.array([1.0, 0.6, 0.1]), np.array([0.7, 0.8, 1.0])
    above, below, swept = draw_label_quality(BINNED, thresholds, kept, right, threshold=0.6).axes
    np.testing.assert_allclose(above.lines[0].get_ydata(), [0.25, 1.0])
    assert [text.get_text() for text in below.texts] == ["4", "10"]
    assert [line.get_ydata().tolist() for line in swept.lines[:2]] == [right.tolist(), kept.tolist()]
    assert swept.lines[2].get_xdata()[0] == 0.6
