import math

import pytest

from eventclip.reports.estimate import estimate, t_quantile


@pytest.mark.parametrize(  # the tables of any textbook
    ("degrees", "expected"),
    [
        (1, 12.7062),
        (2, 4.30265),
        (3, 3.18245),
        (4, 2.77645),
        (5, 2.57058),
        (10, 2.22814),
        (30, 2.04227),
        (1000, 1.96234),
    ],
)
def test_students_t_is_that_of_the_tables(degrees, expected):
    assert t_quantile(degrees) == pytest.approx(expected, abs=6e-6 * expected)


def test_students_t_of_another_level():
    assert t_quantile(7, 0.99) == pytest.approx(3.49948, abs=1e-5)


def test_the_interval_of_known_numbers():
    mean, half_width = estimate([0.70, 0.72, 0.74])  # s = 0.02
    assert mean == pytest.approx(0.72)
    assert half_width == pytest.approx(4.302653 * 0.02 / math.sqrt(3), rel=1e-6)


def test_one_value_has_no_interval_and_equal_values_one_of_zero():
    assert estimate([0.7]) == (0.7, None)
    assert estimate([0.5, 0.5]) == (0.5, 0.0)


def test_no_value_has_no_mean():
    with pytest.raises(ValueError, match="at least one"):
        estimate([])
