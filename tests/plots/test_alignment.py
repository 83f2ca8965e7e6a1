"""Pictures of an alignment: recall over the epochs, and what views find before and after."""

import numpy as np
import pytest

from eventclip.plots.alignment import draw_nearest, draw_progress, nearest
from eventclip.plots.style import save_figure


def test_what_is_nearest_is_told_by_cosine_the_nearest_first():
    targets = np.array([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
    features = np.array([[3.0, 0.3], [0.1, 9.0]])
    assert nearest(features, targets, 2).tolist() == [[0, 2], [1, 2]]
    assert nearest(features, targets, 9).shape == (2, 3)


def test_a_curve_has_a_line_for_each_thing_found():
    history = [{"epoch": epoch, "recall": 0.1 * epoch, "cosine": 0.5} for epoch in range(4)]
    (axis,) = draw_progress(history).axes
    assert [line.get_label() for line in axis.lines] == ["recall@1", "mean cosine"]
    assert axis.lines[0].get_ydata().tolist() == pytest.approx([0, 10, 20, 30])
    (axis,) = draw_progress([{**entry, "zero_shot": 0.3} for entry in history]).axes
    assert len(axis.lines) == 3


def test_a_row_shows_view_image_and_what_was_found(tmp_path):
    rng = np.random.default_rng(0)
    view, image = rng.integers(0, 256, (1, 8, 8), np.uint8), rng.integers(0, 256, (3, 8, 8), np.uint8)
    found = {"before": [[(image, False), (image, True)]] * 3, "aligned": [[(image, True), (image, False)]] * 3}
    figure = draw_nearest([view] * 3, [image] * 3, found)
    assert len(figure.axes) == 3 * 6
    heads = [axis.get_title() for axis in figure.axes[:6]]
    assert heads == ["view", "image", "before", "2.", "aligned", "2."]
    framed = [axis.spines["left"].get_linewidth() == 3 for axis in figure.axes[:6]]
    assert framed == [False, False, False, True, True, False]
    save_figure(tmp_path / "nearest.png", figure)
    assert (tmp_path / "nearest.png").stat().st_size > 1000
