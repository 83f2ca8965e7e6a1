"""One generator per decision."""

import subprocess
import sys

import pytest

from eventclip.rng import generator

KEY = {"seed": 3, "purpose": "augment", "epoch": 5, "index": 7}


def numbers(**changed):
    return generator(**{**KEY, **changed}).integers(2**62, size=4).tolist()


def test_a_key_gives_its_numbers_whatever_came_before():
    first = numbers()
    for index in (9, 8, 7):
        generator(3, "augment", epoch=5, index=index).random(100)
    assert numbers() == first


@pytest.mark.parametrize(
    "changed", [{"seed": 4}, {"seed": -3}, {"seed": 2**80}, {"purpose": "order"}, {"epoch": 6}, {"index": 8}]
)
def test_any_other_key_gives_other_numbers(changed):
    assert numbers(**changed) != numbers()


def test_epoch_and_index_are_not_interchangeable():
    assert numbers(epoch=7, index=5) != numbers()
    assert numbers(epoch=1, index=23) != numbers(epoch=12, index=3)


def test_neighbouring_keys_are_unrelated():
    means = [generator(0, "augment", index=index).random() for index in range(2000)]
    assert abs(sum(means) / len(means) - 0.5) < 0.03
    assert len(set(means)) == len(means)


def test_another_process_draws_the_same_numbers():
    code = "from eventclip.rng import generator; print(generator(3, 'augment').integers(2**62))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(told.stdout) == generator(3, "augment").integers(2**62)


def test_a_seed_that_is_no_whole_number_is_refused():
    with pytest.raises(TypeError):
        generator(0.5, "augment")
