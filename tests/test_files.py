"""Files are written whole, and read without trust in what they say."""

import json
import os
from pathlib import Path

import pytest

from eventclip.errors import printable, reason, said
from eventclip.files import (
    plain_name,
    plain_path,
    read_json,
    read_regular,
    read_text,
    whole_file,
    write_json,
)


def test_a_failed_writing_leaves_the_older_file_and_nothing_else(tmp_path):
    path = tmp_path / "new" / "results.json"
    write_json(path, {"was": "é"})

    def write_half():
        with whole_file(path) as part:
            part.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert json.loads(path.read_text(encoding="utf-8")) == {"was": "é"}
    assert list(path.parent.iterdir()) == [path]


def test_nobody_sees_the_file_before_it_is_whole(tmp_path):
    path = tmp_path / "results.json"
    with whole_file(path) as part:
        part.write_text("all of it")
        assert not path.exists()
        assert part.parent == path.parent
    assert path.read_text() == "all of it"


def test_names_that_are_not_utf8_come_back_from_json(tmp_path):
    value = {"a\udcff.npy": "é\udcfe", "path": [os.fsdecode(b"\xe9")]}
    write_json(tmp_path / "said.json", value)
    assert read_json(tmp_path / "said.json") == value


def test_what_a_stranger_says_is_one_printable_line():
    assert printable("a\udcff é\x1b[1m\n") == "a\\udcff é\\x1b[1m\\n"
    assert printable("# a\n\n\x1b", lines=True) == "# a\n\n\\x1b"
    assert [said(value) for value in ("plain é", "", "a\nb", 3)] == ["plain é", "''", "'a\\nb'", "3"]
    assert said("long" * 100, 10) == "longlon..."
    assert reason(OSError(2, "No such file", "/x")) == "No such file"
    assert reason(ValueError("first\n  second")) == "first second"
    assert reason(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a": ' * 200_000, "nested too deeply"),
        (b"[1" + b"0" * 400 + b"]", "too large"),
        (b"[1" + b"0" * 1_000_000 + b"]", "too large"),
        (b"[9223372036854775808]", "too large"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is there twice"),
        (b'{"a": "\xff"}', "byte 7 is no UTF-8"),
        (b"", "Expecting value"),
    ],
)
def test_json_that_programs_read_differently_is_refused(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=message) as told:
        read_json(tmp_path / "x.json")
    assert "\n" not in str(told.value)


def test_sound_json_is_read_with_and_without_a_mark(tmp_path):
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "x.json").write_bytes(mark + b'{"a": [-9223372036854775808, 0.5, null]}')
        assert read_json(tmp_path / "x.json") == {"a": [-(2**63), 0.5, None]}


def test_what_is_no_file_is_neither_waited_for_nor_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name, message in (("pipe", "a pipe"), ("link", "a pipe"), (".", "a folder"), ("loop", "Too many levels")):
        with pytest.raises(OSError, match=message):
            read_text(tmp_path / name)
    with pytest.raises(OSError, match="a device"):
        read_text(Path("/dev/zero"))
    with pytest.raises(OSError, match="zero byte"):
        read_text(tmp_path / "a\0b")


def test_a_larger_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="more than 16,777,216 bytes"):
        read_text(tmp_path / "hole")
    (tmp_path / "small").write_bytes(b"12345")
    assert read_regular(tmp_path / "small", largest=5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(tmp_path / "small", largest=4)


@pytest.mark.parametrize(
    "path",
    [
        *("", ".", "..", "/", "/a", "a/", "a//b", "../a", "a/../b", "a/..", "./a", "a/./b"),
        *("a\0b", "a\nb", "\x1b[2J", "a\x7f", "a\x9bb", "a\\b", "..\\a", "C:\\a", "a\ud800"),
    ],
)
def test_a_path_that_may_leave_its_folder_is_told(path):
    assert not plain_path(path)
    assert not plain_name(path)


@pytest.mark.parametrize("path", ["a", "a/b.npy", ".a", "..a", "a..", "...", "a b/ü", "20240131", "a\udcff/\udcfe.npy"])
def test_a_path_that_stays_in_its_folder_is_told(path):
    assert plain_path(path)
    assert plain_name(path) == ("/" not in path)
