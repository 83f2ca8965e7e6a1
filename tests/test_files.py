import json

import pytest

from eventclip.files import whole_file, write_json


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
