"""Whatever a path is called, it can be typed as it is; what Hydra knows keeps its meaning."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from eventclip.config.checking import settings_of
from eventclip.config.command_line import quote, quoted, value_of
from eventclip.errors import UserError

PREDICT = settings_of("predict")
ODD = [
    "adapter=text/checkpoints/last.ckpt",
    "données/a.npz",
    "a,b=c.npz",
    "a b.npz",
    "[x].npz",
    "(1).npz",
    "it's.npz",
    "#1.npz",
    "a\\b.npz",
    "ends\\",
    "{x}.npz",
    'say "hi".npz',
    "20240131",
    "1e5",
    "1_000",
    "true",
    "~/x",
    "a:b",
    "=",
    "日本/語.npz",
]


def parsed(argument):
    return OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize("path", ODD)
@pytest.mark.parametrize("key", ["recordings", "checkpoint", "out", "+out"])
def test_a_path_is_taken_as_it_is_typed(path, key):
    (argument,) = quoted([f"{key}={path}"], PREDICT)
    assert parsed(argument) == path


@pytest.mark.parametrize("path", [*ODD, "null", "[a,b]", "'a'", "a,b", "f(x)", "choice(a,b)"])
def test_a_path_that_is_there_is_one_path(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    for sweeping in ([], ["-m"]):
        *_, argument = quoted([*sweeping, f"recordings={path}"], PREDICT)
        assert parsed(argument) == path


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), min_size=1))
def test_quotes_are_undone_by_hydra(text):
    assert parsed(f"key={quote(text)}") == text


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("[a.npz,b.npz]", ["a.npz", "b.npz"]),
        ("[a=1/x.npz, b c.npz]", ["a=1/x.npz", "b c.npz"]),
        ("[20240131,1e5]", ["20240131", "1e5"]),
        ("'*/*.npz'", "*/*.npz"),
        ("*/*.npz", "*/*.npz"),
        ("x/[ab]*.npz", "x/[ab]*.npz"),
        ("null", None),
        ("${oc.env:HOME}", "${oc.env:HOME}"),
        ("'a=b'", "a=b"),
        ("", ""),
    ],
)
def test_lists_globs_quotes_and_null_mean_what_they_did(typed, value):
    (argument,) = quoted([f"recordings={typed}"], PREDICT)
    assert parsed(argument) == value


def test_a_comma_sweeps_only_where_several_runs_are_asked_for():
    train = settings_of("train")
    assert quoted(["-m", "data.root=a,b"], train) == ["-m", "data.root=a,b"]
    assert quoted(["-m", "data.root=x=1,y"], train) == ["-m", "data.root='x=1',y"]
    (argument,) = quoted(["data.root=a,b"], train)
    assert parsed(argument) == "a,b"


def test_one_of_several_paths_is_not_taken_for_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npz").touch()
    assert quoted(["recordings=a.npz,b.npz"], PREDICT) == ["recordings=a.npz,b.npz"]


def test_quoting_twice_changes_nothing():
    once = quoted([f"recordings={path}" for path in ODD], PREDICT)
    assert quoted(once, PREDICT) == once


@pytest.mark.parametrize(
    "argument",
    ["top=3", "frames.color=gray", "clip=tiny", "--cfg", "job", "window_us=1e5", "sensor_hw=[180,240]", "x=a=b"],
)
def test_what_is_no_path_and_no_text_is_left_alone(argument):
    assert quoted([argument], PREDICT) == [argument]


def test_class_names_may_have_any_letters():
    (argument,) = quoted(["classes=[café,thé vert]"], PREDICT)
    assert parsed(argument) == ["café", "thé vert"]
    (argument,) = quoted(["classes=[true,null,1]"], PREDICT)
    assert parsed(argument) == [True, None, 1]


def test_the_folder_of_runs_is_a_path_too():
    (argument,) = quoted(["hydra.run.dir=out=1/é"], settings_of("train"))
    assert parsed(argument) == "out=1/é"


def test_a_setting_is_found_among_arguments():
    assert value_of(["-m", "checkpoint='a=b'", "x=1"], "checkpoint", "") == "a=b"
    assert value_of(["checkpoint=null"], "checkpoint", "") is None
    assert value_of([], "checkpoint", "") is None
    with pytest.raises(UserError, match="names several checkpoints"):
        value_of(["checkpoint=a,b"], "checkpoint", "checkpoints")
