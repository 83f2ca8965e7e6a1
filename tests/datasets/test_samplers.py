"""The order of samples depends on seed and epoch alone, and every rank gets its part of every batch."""

import pytest

from eventclip.datasets.samplers import EvaluationBatches, TrainingBatches
from eventclip.errors import UserError


def batches(size=10, batch_size=4, *, seed=0, epoch=0, done=0, **ranks):
    return list(TrainingBatches(size, batch_size, seed=seed, position=lambda: (epoch, done), **ranks))


def test_an_epoch_holds_every_sample_once_keyed_by_the_epoch():
    keys = [key for batch in batches(epoch=3) for key in batch]
    assert {epoch for epoch, _ in keys} == {3}
    assert sorted(position for _, position in keys) == list(range(10))


def test_the_order_is_repeatable_and_differs_by_seed_and_epoch():
    assert batches() == batches()
    order = [[position for batch in b for _, position in batch] for b in (batches(), batches(seed=1), batches(epoch=1))]
    assert order[0] != order[1]
    assert order[0] != order[2]


def test_a_resumed_epoch_goes_on_with_the_next_batch():
    assert batches(done=2) == batches()[2:]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_very_batches_of_one_process(world_size):
    parts = [batches(12, 6, rank=rank, world_size=world_size) for rank in range(world_size)]
    for number, whole in enumerate(batches(12, 6)):
        assert sorted(key for part in parts for key in part[number]) == sorted(whole)


def test_every_rank_takes_part_in_a_small_last_batch():
    parts = [batches(5, 4, rank=rank, world_size=3) for rank in range(3)]
    assert [len(part) for part in parts] == [2, 2, 2]
    assert all(part[-1] for part in parts)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_evaluation_drops_and_doubles_no_sample_over_ranks(world_size):
    parts = [list(EvaluationBatches(10, 3, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sorted(position for part in parts for batch in part for _, position in batch) == list(range(10))
    assert [len(part) for part in parts] == [
        len(EvaluationBatches(10, 3, rank=rank, world_size=world_size)) for rank in range(world_size)
    ]


def test_a_batch_smaller_than_the_world_is_refused():
    with pytest.raises(UserError, match="at least 4"):
        batches(batch_size=2, world_size=4)
