"""A value becomes exactly what its setting's kind is, or is refused in one sentence."""

from typing import Annotated, Any, Literal

import pytest

from eventclip.config.checking import KindError, convert, takes_path, takes_text
from eventclip.config.schema import Between, Exactly, Portion, Text

Count = Annotated[int, Between(1, 2**31 - 1)]
Path = Annotated[str, Text("a path", path=True)]
Sides = Annotated[list[Count], Exactly(2, "height and width in pixels, such as [180,240]")]
Plain = Annotated[str, Text("a plain name", plain=True)]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(True, True), (False, False)]
    + [(word, True) for word in ("yes", "Yes", "on", "ON", "true", "True")]
    + [(word, False) for word in ("no", "NO", "off", "Off", "false", "False")],
)
def test_words_for_a_switch_mean_what_they_say(given, wanted):
    assert convert(given, bool, "x") is wanted


@pytest.mark.parametrize("given", ["maybe", "", "0", "1", 0, 1, 1.0, None, [], {}, "nein"])
def test_what_is_no_switch_is_refused(given):
    with pytest.raises(KindError, match=r"^x\.y must be true or false, got "):
        convert(given, bool, "x.y")


@pytest.mark.parametrize("given", [20_000, 2e4, "20000", "2e4", "20_000", "2.0e4"])
def test_a_whole_number_is_taken_however_it_is_written(given):
    found = convert(given, Count, "x")
    assert found == 20_000
    assert type(found) is int


@pytest.mark.parametrize(
    "given",
    [
        1.5,
        "1.5",
        "20k",
        "100ms",
        float("nan"),
        float("inf"),
        "nan",
        "1e999999999",
        10**30,
        0,
        -1,
        True,
        None,
        [1],
        "",
        "²",
    ],
)
def test_what_is_no_such_whole_number_is_refused(given):
    with pytest.raises(KindError, match=r"^x must be a whole number from 1 to 2147483647, got "):
        convert(given, Count, "x")


def test_a_large_whole_number_stays_exact():
    largest = Annotated[int, Between(0, 2**63 - 1)]
    assert convert(2**63 - 1, largest, "x") == 2**63 - 1
    assert convert(str(2**63 - 1), largest, "x") == 2**63 - 1
    with pytest.raises(KindError):
        convert(2**63, largest, "x")


@pytest.mark.parametrize(("given", "wanted"), [(1, 1.0), ("1e-4", 1e-4), (0.5, 0.5), ("0.5", 0.5)])
def test_a_number_is_taken_however_it_is_written(given, wanted):
    found = convert(given, float, "x")
    assert found == wanted
    assert type(found) is float


@pytest.mark.parametrize("given", [float("nan"), float("inf"), "nan", "-inf", True, "abc", None, [0.5], 10**400])
def test_what_is_no_finite_number_is_refused(given):
    with pytest.raises(KindError, match=r"^x must be a number"):
        convert(given, float, "x")


def test_the_ends_of_a_range_are_in_it_or_not_as_it_says():
    closed, half_open = Annotated[float, Between(0.0, 1.0)], Annotated[float, Between(0.0, 1.0, without_high=True)]
    positive = Annotated[float, Between(0.0, without_low=True)]
    assert convert(1.0, closed, "x") == 1.0
    assert convert(0.0, half_open, "x") == 0.0
    for value, kind, told in (
        (1.0, half_open, "from 0 to below 1"),
        (0.0, positive, "above 0"),
        (-0.1, closed, "from 0 to 1"),
    ):
        with pytest.raises(KindError, match=f"must be a number {told}, got"):
            convert(value, kind, "x")


@pytest.mark.parametrize(("given", "wanted"), [(20240131, "20240131"), ("a b", "a b"), ("no", "no"), (0, "0")])
def test_a_whole_number_may_name_a_path(given, wanted):
    assert convert(given, Path, "x") == wanted


@pytest.mark.parametrize("given", [1.5, True, None, [], "", " ", "a\0b", {"a": 1}])
def test_what_names_no_path_is_refused(given):
    with pytest.raises(KindError, match=r"^x must be a path, got "):
        convert(given, Path, "x")


@pytest.mark.parametrize("given", ["a/b", "..", "../up", "/root", ".hidden", "a\\b"])
def test_a_plain_name_stays_in_its_folder(given):
    with pytest.raises(KindError, match="plain name"):
        convert(given, Plain, "name")


@pytest.mark.parametrize(
    "given", [180, "180x240", [180.5, 240], ["a", "b"], [180], [180, 240, 3], [0, 240], {"h": 180}]
)
def test_a_sensor_is_two_whole_numbers(given):
    with pytest.raises(KindError, match=r"^sensor_hw") as told:
        convert(given, Sides, "sensor_hw")
    assert "\n" not in str(told.value)
    assert convert([180, "240"], Sides, "sensor_hw") == [180, 240]


def test_a_refused_item_of_a_list_is_named_by_its_place():
    with pytest.raises(KindError, match=r"^classes\[1\] must be a text, got null$"):
        convert(["star", None], list[str], "classes")


def test_of_several_kinds_the_first_that_takes_it_has_it():
    kind = Count | list[Count] | None
    assert convert(None, kind, "x") is None
    assert convert("3", kind, "x") == 3
    assert convert(["3"], kind, "x") == [3]
    with pytest.raises(KindError, match=r"^x must be a whole number .* or a list .*, or null, got 'abc'$"):
        convert("abc", kind, "x")
    with pytest.raises(KindError, match=r"^x\[0\] must be"):
        convert(["abc"], kind, "x")


def test_a_choice_is_taken_as_it_is_spelled():
    kind = Literal["crop", "pad", 16]
    assert convert("pad", kind, "fit") == "pad"
    assert convert(16, kind, "fit") == 16
    for wrong in ("Pad", True, 16.0, None, ["pad"]):
        with pytest.raises(KindError, match=r"^fit must be one of crop, pad, 16, got"):
            convert(wrong, kind, "fit")


def test_one_batch_is_not_all_batches():
    kind = Annotated[float, Portion()]
    assert (convert(1, kind, "x"), type(convert(1, kind, "x"))) == (1, int)
    assert type(convert(1.0, kind, "x")) is float
    for wrong in (1.5, -1, True, "1", float("nan")):
        with pytest.raises(KindError, match=r"^x must be a number from 0.0 to 1.0"):
            convert(wrong, kind, "x")


def test_a_map_keeps_its_keys_as_text_and_names_the_wrong_one():
    assert convert({1: "a", "b": "c"}, dict[str, str], "x") == {"1": "a", "b": "c"}
    with pytest.raises(KindError, match=r"^x\.a must be a text"):
        convert({"a": None}, dict[str, str], "x")


def test_anything_passes_where_nothing_is_known():
    assert convert(object, Any, "x") is object


def test_a_refusal_is_one_short_line():
    with pytest.raises(KindError) as told:
        convert("line\n" * 500, Count, "x")
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 200


def test_kinds_say_whether_they_are_paths_or_plain_text():
    assert takes_path(Path | list[Path] | None)
    assert not takes_path(str | None)
    assert takes_text(Path | None)
    assert not takes_text(Count | str | None)
    assert not takes_text(Count)
