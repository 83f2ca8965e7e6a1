"""Tell from all the numbers of a table what nothing else tells: the unit of its times, the order of its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eventclip.errors import RecordingError
from eventclip.io.plain_tables import LONGEST_S

ASK_UNIT = "give time_unit=ms, or s, us or ns (data.time_unit=ms for a data set)"
"""For messages."""

_SHORTEST_US = 1_000.0
_ORDERS = ("xytp", "txyp", "xypt")  # EST's, that of most text files, that of Prophesee's metavision_file_to_csv
_LARGEST_PIXEL = np.iinfo(np.int16).max


@dataclass
class ColumnSurvey:
    """What is known of a column once its pieces have been added.

    Attributes:
        rows: how many numbers it has.
        first: the smallest finite one.
        last: the largest finite one.
        whole: whether none of the finite ones has a fraction.
        backwards: how often one is smaller than the one before.
        are_pixels: whether all can be coordinates.
        are_signs: whether all are -1, 0 or 1.
        odd: row and value of the first that is not finite.
    """

    rows: int = 0
    first: float = np.inf
    last: float = -np.inf
    whole: bool = True
    backwards: int = 0
    are_pixels: bool = True
    are_signs: bool = True
    odd: tuple[int, float] | None = None
    _before: Any = None

    @np.errstate(invalid="ignore")
    def add(self, values: NDArray[Any], *, times_only: bool) -> None:
        """Add the next (n,) numbers; with ``times_only`` what is asked of times of a known place alone."""
        if not len(values):
            return
        finite = np.isfinite(values)
        if not finite.all():
            if self.odd is None:
                row = int(finite.argmin())
                self.odd = self.rows + row, float(values[row])
            self.are_pixels = False
        told = values[finite]
        self.whole &= bool((told == np.floor(told)).all())
        if len(told):
            self.first, self.last = min(self.first, told.min()), max(self.last, told.max())
        if not times_only:
            self.backwards += int(np.count_nonzero(values[1:] < values[:-1]))
            self.backwards += int(self._before is not None and bool(values[0] < self._before))
            self._before = values[-1]
            self.are_pixels &= self.whole and self.first >= 0 and self.last <= _LARGEST_PIXEL
            self.are_signs &= bool(np.isin(values, (-1, 0, 1)).all())
        self.rows += len(values)


def settle_order(columns: Sequence[ColumnSurvey]) -> str:
    """The one usual order of four columns without names that fits all of their rows.

    Coordinates are whole numbers, polarity has two values, and time never runs backwards; where it does in every
    order, the one in which it does so far less often than in the others is a recording out of order.

    Raises:
        RecordingError: none or several do.
    """
    fitting = []
    for order in _ORDERS:
        x, y, t, p = (columns[order.index(name)] for name in "xytp")
        if x.are_pixels and y.are_pixels and p.are_signs:
            fitting.append((t.backwards, order))
    fitting.sort(key=lambda one: one[0])
    in_order = [order for backwards, order in fitting if backwards == 0]
    if len(in_order) == 1 or len(fitting) == 1:
        return fitting[0][1]
    if fitting and not in_order and 10 * fitting[0][0] < min(columns[0].rows, fitting[1][0]):
        return fitting[0][1]
    found = "neither order fits"
    if fitting:
        found = "both orders fit" if len(in_order or fitting) == 2 else "all of them fit"
    named = in_order or [order for _, order in fitting] or list(_ORDERS)
    raise RecordingError(
        f"has columns without names that cannot be told to be {' or '.join(', '.join(order) for order in named)} "
        f"({found}): put the names in the first line, or give {' or '.join(f'columns={order}' for order in named)}"
    )


def tell_unit(times: ColumnSurvey) -> str:
    """Tell the unit of times that are stored as floating point.

    Returns:
        "us" or "s".

    Raises:
        RecordingError: it cannot be told.
    """
    first, last = float(times.first), float(times.last)
    if first > last or (times.whole and first == last == 0):
        return "us"
    if times.whole and last - first >= _SHORTEST_US:
        return "us"
    if not times.whole and last - first < LONGEST_S:
        return "s"
    if times.odd is not None:
        raise RecordingError(f"has t = {times.odd[1]} at row {times.odd[0]}: expected a finite time")
    if times.whole:
        raise RecordingError(
            f"has whole floating-point times from {first} to {last}, whose unit cannot be told: {ASK_UNIT}"
        )
    raise RecordingError(
        f"has times with fractions from {first} to {last}, too long for seconds, so that the unit cannot be told: "
        f"{ASK_UNIT}"
    )
