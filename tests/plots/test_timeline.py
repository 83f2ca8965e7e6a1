"""The rate of events over time, and the views above it."""

import numpy as np
import pytest

from eventclip.plots.timeline import Timeline


def drawn(last_us):
    timeline = Timeline(["cat", "dog"])
    view = np.full((1, 8, 8), 255, np.uint8)
    for number in range(3):
        last = {"last_us": last_us} if number == 2 else {}
        timeline.add(1000 * number, 1000 * (number + 1), 500, np.array([0.25, 0.75]), view, **last)
    return timeline.draw("a.npy").axes


@pytest.mark.parametrize(("last_us", "rate"), [(None, 0.5), (2999, 500 / 999), (2500, 1.0), (2000, 5.0)])
def test_the_last_window_counts_as_far_as_the_recording(last_us, rate):
    (stairs,) = drawn(last_us)[-1].patches
    assert stairs.get_data().values.tolist() == pytest.approx([0.5, 0.5, rate])


def test_a_white_view_has_a_border():
    axis = drawn(None)[0]
    assert axis.images
    assert all(side.get_visible() for side in axis.spines.values())
