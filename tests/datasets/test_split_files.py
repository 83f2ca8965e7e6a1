"""Split files: what was drawn or guessed comes back as it was, and nothing that does not fit is trained on."""

import json
from pathlib import Path

import numpy as np
import pytest

from eventclip.datasets.recordings import Recordings
from eventclip.datasets.sampling import sample_few_shot, seeded_sample
from eventclip.datasets.split_files import read_split, split_positions, write_split
from eventclip.errors import UserError

FILES = {"cat": [f"{i:02}.npy" for i in range(12)], "dog": [f"{i:02}.npy" for i in range(3)], "emu": ["a.npy", "b.npy"]}


def of(files, root="/set"):
    """Recordings of {class folder: file names}."""
    paths = [f"{folder}/{name}".encode() for folder, names in files.items() for name in names]
    labels = np.repeat(np.arange(len(files)), [len(names) for names in files.values()])
    return Recordings(Path(root), np.array(paths, dtype=np.bytes_), labels.astype(np.int64), tuple(files))


@pytest.fixture
def recordings():
    return of(FILES)


def test_a_split_written_and_read_again_keeps_repeats_and_order(recordings, tmp_path):
    drawn = seeded_sample(recordings, 5, 0, repeat=True)
    path = tmp_path / "splits" / "five.json"
    write_split(path, recordings.subset(drawn), head={"shots": 5, "seed": 0})
    split = read_split(path)
    assert split.pairs == [(recordings.relative(i), int(recordings.labels[i])) for i in drawn]
    np.testing.assert_array_equal(split_positions(split.pairs, recordings, path), drawn)
    found = sample_few_shot(recordings, shots=5, split_file=path)
    assert found.paths.tolist() == recordings.paths[drawn].tolist()
    assert found.guessed is None
    assert json.loads(path.read_text())["shots"] == 5
    assert [file.name for file in path.parent.iterdir()] == ["five.json"]


def test_a_split_that_cannot_be_written_leaves_the_old_one(recordings, tmp_path):
    path = tmp_path / "split.json"
    write_split(path, recordings, head={})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_split(path, recordings, head={"seed": object()})
    with pytest.raises(ValueError, match="recordings"):
        write_split(path, recordings, head={"recordings": 1})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_the_published_format_is_read(recordings, tmp_path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"dog/01.npy": 1, "cat/11.npy": 0}))
    found = sample_few_shot(recordings, shots=1, split_file=path)
    assert found.paths.tolist() == [b"dog/01.npy", b"cat/11.npy"]


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "{}", "[]", "3", '{"a/b.npy": "0"}', '{"a/b.npy": true}', '{"a/b.npy": 0.0}'),
        *('{"recordings": []}', '{"recordings": [["a", 0, 1]]}', '{"recordings": [[0, "a"]]}'),
    ],
)
def test_what_is_no_split_is_refused_by_name(tmp_path, content):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"split\.json"):
        read_split(path)


def test_a_missing_split_file_is_told(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json.*fewshot\.split_file"):
        read_split(tmp_path / "nowhere.json")


def test_a_pickle_is_never_opened(tmp_path):
    path = tmp_path / "split.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(UserError, match="pickle"):
        read_split(path)
    assert not (tmp_path / "ran").exists()


def test_a_recording_that_is_missing_is_named_with_how_many(recordings):
    split = [("cat/00.npy", 0), ("cat/99.npy", 0), ("dog/98.npy", 1)]
    with pytest.raises(UserError, match=r"cat/99\.npy.*2 of 3"):
        split_positions(split, recordings, "split.json")


def test_a_label_that_is_not_the_folders_is_named(recordings):
    with pytest.raises(UserError, match=r"dog/01\.npy.* 0.* 1 "):
        split_positions([("cat/00.npy", 0), ("dog/01.npy", 0)], recordings, "split.json")


def test_the_published_splits_are_read_and_found(golden_folder):
    files = sorted((golden_folder / "official_splits").glob("*.json"))
    assert files
    for file in files:
        split = read_split(file).pairs
        folders = {}
        for relative, label in split:
            assert folders.setdefault(label, relative.rsplit("/", 1)[0]) == relative.rsplit("/", 1)[0]
        paths, labels = zip(*sorted(split), strict=True)
        classes = tuple(folders[label] for label in sorted(folders))
        everything = Recordings(Path("/set"), np.array([p.encode() for p in paths]), np.array(labels), classes)
        drawn = split_positions(split, everything, file)
        assert [(everything.relative(i), int(everything.labels[i])) for i in drawn] == split


def head_of(recordings):
    return {
        "kind": "pseudo",
        "class_folders": list(recordings.class_folders),
        "checksums": {"training": recordings.checksum()},
    }


@pytest.fixture
def guessed(recordings, tmp_path):
    """A file of three guesses, the second of them wrong, and one true label."""
    chosen = recordings.subset([0, 13, 16, 2]).relabelled([0, 2, 2, 0], [True, True, True, False])
    path = tmp_path / "pseudo.json"
    write_split(path, chosen, head=head_of(recordings), probabilities=[0.75, 0.5, 0.9, 1.0])
    return path


def test_guessed_labels_take_the_place_of_the_folders(recordings, guessed):
    found = sample_few_shot(recordings, shots=5, split_file=guessed)
    assert found.paths.tolist() == [b"cat/00.npy", b"dog/01.npy", b"emu/b.npy", b"cat/02.npy"]
    assert found.labels.tolist() == [0, 2, 2, 0]
    assert found.guessed.tolist() == [True, True, True, False]
    assert found.subset([3, 1]).guessed.tolist() == [False, True]
    split = read_split(guessed)
    assert split.probabilities.tolist() == [0.75, 0.5, 0.9, 1.0]
    assert split.guessed.tolist() == found.guessed.tolist()
    assert split.head == head_of(recordings)


def test_scores_for_other_recordings_are_refused(recordings, guessed):
    fewer = recordings.subset(range(len(recordings) - 1))
    for other in (fewer, of({**FILES, "dog": [*FILES["dog"], "03.npy"]})):
        with pytest.raises(UserError, match=rf"pseudo\.json.*{recordings.checksum()[:12]}.*{other.checksum()[:12]}"):
            sample_few_shot(other, shots=5, split_file=guessed)


def test_guesses_among_other_classes_are_refused(guessed):
    renamed = of({{"dog": "fox"}.get(name, name): files for name, files in FILES.items()})
    with pytest.raises(UserError, match=r"other classes.*'dog' and 'fox'"):
        sample_few_shot(renamed, shots=5, split_file=guessed)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('["dog/01.npy", 2, 0.5, false]', '["dog/01.npy", 3, 0.5, false]', "outside 0 to 2"),
        ('["dog/01.npy", 2, 0.5, false]', '["dog/01.npy", -1, 0.5, false]', "outside 0 to 2"),
        ('["dog/01.npy", 2, 0.5, false]', '["dog/01.npy", 2]', "holds no recordings"),
        ('["dog/01.npy", 2, 0.5, false]', '["dog/01.npy", 2, 0.5, "false"]', "holds no recordings"),
        ('["dog/01.npy", 2, 0.5, false]', '["dog/77.npy", 2, 0.5, false]', "dog/77.npy"),
        ('["cat/02.npy", 0, 1.0, true]', '["cat/02.npy", 1, 1.0, true]', "cat/02.npy the label 1"),
        ('["dog/01.npy", 2, 0.5, false]', '["dog/01.npy", 2, 0.5, true]', "dog/01.npy the label 2"),
    ],
)
def test_a_file_of_guesses_that_was_changed_is_refused(recordings, guessed, before, after, message):
    content = guessed.read_text()
    assert before in content
    guessed.write_text(content.replace(before, after))
    with pytest.raises(UserError, match=message):
        sample_few_shot(recordings, shots=5, split_file=guessed)


def test_guessed_labels_probabilities_and_kind_go_together(recordings, tmp_path):
    marked = recordings.relabelled(recordings.labels, np.ones(len(recordings), bool))
    for given, head, probabilities in (
        (marked, head_of(recordings), None),
        (marked, {}, np.ones(len(recordings))),
        (recordings, head_of(recordings), np.ones(len(recordings))),
    ):
        with pytest.raises(ValueError, match="go together"):
            write_split(tmp_path / "split.json", given, head=head, probabilities=probabilities)
