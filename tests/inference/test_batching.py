"""Batches keep the order, come as soon as they can, and cost the same for each item however many there are."""

import numpy as np
import pytest

from eventclip.errors import UserError
from eventclip.inference.batching import ViewBatches
from eventclip.inference.result import Classification, RecordingViews

COUNTED = [0]


class CountedViews(RecordingViews):
    def __len__(self):
        COUNTED[0] += 1
        return super().__len__()


def views(count, name="v"):
    frames = np.zeros((count, 1, 2, 2), np.uint8)
    return CountedViews(name, frames, np.zeros((count, 2), int), np.zeros((count, 2), int), 5, (2, 2), 5)


class Batches(ViewBatches):
    """Batches whose classifier is left out: what is looked at here is when and how many come."""

    def __init__(self, batch_views):
        self.class_names, self.batch_views, self.sizes = ("a", "b"), batch_views, []

    def classify(self, batch):
        self.sizes.append(len(batch))
        half = np.full(2, 0.5)
        return [Classification(("a", "b"), half, half[None], one) for one in batch]


def test_what_needs_no_view_comes_at_once_where_nothing_waits():
    batches, taken = Batches(64), []
    items = ((taken.append(n) or n, None) for n in range(100))
    for number, (tag, found) in enumerate(batches.classified(items)):
        assert (tag, found) == (number, None)
        assert len(taken) == number + 1


def test_what_waits_behind_a_view_waits_a_few_batches():
    batches, taken = Batches(4), []
    items = ((taken.append(n) or n, views(1) if n == 0 else None) for n in range(1000))
    come = batches.classified(items)
    assert next(come)[1] is not None
    assert len(taken) <= 4 * 4
    assert [tag for tag, _ in come] == list(range(1, 1000))


@pytest.mark.parametrize("silent", [0, 1, 3])
def test_order_and_work_do_not_depend_on_how_many_are_silent(silent):
    batches = Batches(8)
    kinds = [views(1 + n % 3) if n % (silent + 1) == 0 else None for n in range(2_000)]
    COUNTED[0] = 0
    come = list(batches.classified(enumerate(kinds)))
    assert [tag for tag, _ in come] == list(range(2_000))
    assert [found is None for _, found in come] == [kind is None for kind in kinds]
    assert COUNTED[0] <= 2 * 2_000


def test_probabilities_that_are_no_numbers_are_not_given(films):
    from eventclip import EventCLIP

    model = EventCLIP.zero_shot(classes=["star", "anchor"], clip="tiny", device="cpu")
    weight = next(p for p in model.encoder.parameters() if p.ndim > 1)
    weight.data[:] = float("nan")
    for classify in (model.classify, lambda e, **k: list(model.classify_windows(e, window_us=100_000, **k))):
        with pytest.raises(UserError, match="finite") as raised:
            classify(films["star"], sensor_hw=(128, 128))
        assert "\n" not in str(raised.value)
