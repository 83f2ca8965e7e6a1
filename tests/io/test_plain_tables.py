"""The data sets' own layouts go the quick way, and it gives what the rules in full give or leaves it to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventclip.errors import UserError
from eventclip.events.array import EVENT_DTYPE
from eventclip.io import columns
from eventclip.io.columns import read_table
from eventclip.io.plain_tables import from_microseconds, from_seconds

EST = np.array([[0, 179, 0.0, 1], [239, 0, 2.5e-5, -1], [239, 0, 2.5e-5, 1], [32767, 32767, 0.3, 1]], np.float32)
NIMAGENET = np.dtype([("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "?")])


def in_full(monkeypatch, table, time_unit=None):
    """What the rules in full give: events, or the sentence of their refusal."""
    with monkeypatch.context() as patch:
        patch.setattr(columns, "from_seconds", lambda table: None)
        patch.setattr(columns, "from_microseconds", lambda **table: None)
        return outcome(table, time_unit)


def outcome(table, time_unit=None):
    try:
        return read_table(table, time_unit, None).tolist()
    except UserError as error:
        return str(error)


def columns_of(table):
    return {name: table[name] for name in "txyp"}


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_sound_est_array_goes_the_quick_way(kind):
    events = from_seconds(EST.astype(kind))
    assert events.dtype == EVENT_DTYPE
    assert events.tolist() == [(0, 0, 179, 1), (25, 239, 0, 0), (25, 239, 0, 1), (300_000, 32767, 32767, 1)]


def test_an_est_array_in_another_order_of_memory_gives_the_same():
    for table in (np.asfortranarray(EST), np.repeat(EST, 2, axis=0)[::2], np.hstack([EST, EST])[:, :4]):
        np.testing.assert_array_equal(from_seconds(table), from_seconds(EST))


@pytest.mark.parametrize("polarity", ["?", "u1", "i1"])
def test_a_sound_table_of_nimagenet_goes_the_quick_way(polarity):
    table = np.array([(0, 479, 0, 1), (639, 0, 7, 0), (639, 0, 7, 1)], [*NIMAGENET.descr[:3], ("p", polarity)])
    events = from_microseconds(**columns_of(table))
    assert events.dtype == EVENT_DTYPE
    assert events.tolist() == [(0, 0, 479, 1), (7, 639, 0, 0), (7, 639, 0, 1)]


@pytest.mark.parametrize(
    "table",
    [
        np.zeros((0, 4), np.float32),
        EST[::-1],
        np.array([[0, 0, 0, 1], [0, 0, 5_000, 1]], np.float32),
        np.array([[0, 0, 0.5, 1], [0, 0, 10_000.5, 1]], np.float64),
        np.array([[0, 0, 0.5, 0], [0, 0, 0.6, -1]], np.float32),
        np.array([[0, 0, np.inf, 0]], np.float32),
        np.array([[np.nan, 0, 0.5, 0]], np.float32),
        EST.astype(np.int64),
    ],
)
def test_what_is_no_est_array_is_left_to_the_rules(table):
    assert from_seconds(table) is None


_EST_ROWS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 3.0, 239.0, 0.5, -1.0, 32767.0, 32768.0, 1e30, np.nan]),
        st.sampled_from([0.0, 179.0, np.inf]),
        st.floats(-1, 20_000, width=32) | st.sampled_from([0.0, 0.25, 5.0, np.nan, -np.inf, 1e20]),
        st.sampled_from([-1.0, 1.0, 0.0, 0.5, 2.0, np.nan]),
    ),
    max_size=5,
)


@settings(deadline=None)
@given(_EST_ROWS, st.booleans(), st.sampled_from([np.float32, np.float64]))
def test_est_arrays_give_what_the_rules_in_full_give(module_patch, rows, ordered, kind):
    table = np.array(rows, kind).reshape(-1, 4)
    if ordered:
        table = table[np.argsort(table[:, 2])]
    assert outcome(table) == in_full(module_patch, table)


@pytest.mark.parametrize("length", [7, 8, 9, 31, 64, 1000])
@pytest.mark.parametrize("flaw", [None, (0, -1.0), (1, 0.5), (2, np.nan), (3, 3.0)])
def test_a_flaw_is_found_wherever_it_is(module_patch, length, flaw):
    rng = np.random.default_rng(length)
    sound = np.stack([rng.integers(0, 240, length), rng.integers(0, 180, length)] + 2 * [np.ones(length)], axis=1)
    sound[:, 2] = np.sort(rng.random(length))
    for row in {0, length // 2, length - 1}:
        table = sound.copy()
        if flaw:
            table[row, flaw[0]] = flaw[1]
        assert (from_seconds(table) is None) == (flaw is not None)
        assert outcome(table) == in_full(module_patch, table)


_KINDS = {"t": ["<i8", "<u8"], "x": ["<i4"], "p": ["?", "i1", "<u8"]}  # each combination is compiled
_SPECIAL = {
    "t": [0, 1, 5, 2**31 - 1, 10**17 - 1, 10**17, 2**62 + 1, 2**63 - 1, 2**64 - 1, -1, -(2**62) - 1],
    "x": [0, 1, 639, 32767, 32768, 65535, -1],
    "p": [0, 1, -1, 2, 255, 2**64 - 1],
}


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from([None, "us"]), st.booleans())
def test_whole_numbers_give_what_the_rules_in_full_give(module_patch, data, time_unit, ordered):
    kinds = {name: data.draw(st.sampled_from(kinds)) for name, kinds in _KINDS.items()}
    rows = data.draw(st.integers(0, 4))

    def column(name):
        kind = np.dtype(kinds[name])
        fitting = [
            value for value in _SPECIAL[name] if kind.kind == "b" or np.can_cast(np.min_scalar_type(value), kind)
        ]
        return np.array(data.draw(st.lists(st.sampled_from(fitting), min_size=rows, max_size=rows)), kind)

    t = np.sort(column("t")) if ordered else column("t")
    table = np.zeros(rows, [("x", kinds["x"]), ("y", kinds["x"]), ("t", kinds["t"]), ("p", kinds["p"])])
    for name, values in (("t", t), ("x", column("x")), ("y", column("x")), ("p", column("p"))):
        table[name] = values
    assert outcome(table, time_unit) == in_full(module_patch, table, time_unit)


def test_columns_of_fractions_are_left_to_the_rules():
    whole = np.zeros(3, np.int64)
    assert from_microseconds(whole, whole, whole, whole) is not None
    assert from_microseconds(whole.astype(float), whole, whole, whole) is None
    assert from_microseconds(whole, whole, whole, whole.astype(float)) is None
    assert from_microseconds(whole, whole[:2], whole, whole) is None
