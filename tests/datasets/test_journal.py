"""A journaled file survives a kill at any write, with the content of its last commit."""

import errno
import os
import shutil

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventclip.datasets.journal import JournaledFile, journal_of
from eventclip.errors import UserError


def content(path):
    file = JournaledFile(path)
    found = file.read(file.size)
    file.close()
    return found


writes = st.lists(st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=9000)), max_size=6)


@given(before=writes, after=writes)
@settings(max_examples=40, deadline=None)
def test_what_came_after_the_last_commit_is_forgotten(tmp_path_factory, before, after):
    path = tmp_path_factory.mktemp("journal") / "file"
    file, expected = JournaledFile(path), bytearray()
    for offset, piece in before:
        file.seek(offset)
        file.write(piece)
        expected.extend(bytes(max(offset + len(piece) - len(expected), 0)))
        expected[offset : offset + len(piece)] = piece
    file.commit()
    now = bytearray(expected)
    for offset, piece in after:
        file.seek(offset)
        file.write(piece)
        now.extend(bytes(max(offset + len(piece) - len(now), 0)))
        now[offset : offset + len(piece)] = piece
    file.seek(0)
    assert file.read(len(now) + 5) == now
    file.close()
    assert content(path) == expected


def test_a_commit_that_was_killed_at_any_step_is_the_old_or_the_new_content(tmp_path, monkeypatch):
    """Every call that changes the disk is a place to die at."""
    states = set()
    for step in range(100):
        folder = tmp_path / str(step)
        folder.mkdir()
        path = folder / "file"
        file = JournaledFile(path)
        file.write(b"a" * 10_000)
        file.commit()
        file.seek(5_000)
        file.write(b"b" * 10_000)
        calls = iter(range(1000))

        def dying(name, calls=calls, step=step):
            real = getattr(os, name)

            def call(*arguments, **options):
                if next(calls) == step:
                    raise KeyboardInterrupt
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("pwrite", "fsync", "ftruncate", "replace", "unlink"):
                patch.setattr(os, name, dying(name))
            try:
                file.commit()
                done = True
            except KeyboardInterrupt:
                done = False
        shutil.copytree(folder, folder.with_suffix(".found"))
        found = content(folder.with_suffix(".found") / "file")
        assert found in (b"a" * 10_000, b"a" * 5_000 + b"b" * 10_000)
        states.add(found)
        file.close()
        if done:
            break
    assert done
    assert len(states) == 2


def test_an_hdf5_file_is_what_it_was_when_it_was_committed(tmp_path):
    path = tmp_path / "file"
    journaled = JournaledFile(path)
    with h5py.File(journaled, "w") as file:
        file.create_dataset("x", (100,), "f4", maxshape=(None,), chunks=(10,))
    journaled.commit()
    with h5py.File(journaled, "r+") as file:
        file["x"][:] = 1
        file["x"].resize((5000,))
        file["y"] = np.arange(1000)
    journaled.close()
    journaled = JournaledFile(path)
    with h5py.File(journaled, "r") as file:
        assert list(file) == ["x"]
        assert file["x"].shape == (100,)
        assert not file["x"][:].any()


def test_a_full_disk_is_told_at_the_commit_and_leaves_the_last_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    file = JournaledFile(path)
    file.write(b"kept")
    file.commit()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert file.write(b"lost") == 4
        with pytest.raises(OSError, match="No space left"):
            file.commit()
    file.close()
    assert content(path) == b"kept"


def test_a_journal_without_its_file_is_of_another_one(tmp_path):
    path = tmp_path / "file"
    file = JournaledFile(path)
    file.write(b"old")
    file.commit()
    file.close()
    path.unlink()
    assert content(path) == b""


def test_a_damaged_journal_is_told(tmp_path):
    path = tmp_path / "file"
    file = JournaledFile(path)
    for piece in (b"old", b"new"):
        file.seek(0)
        file.write(piece)
        file.commit()
    file.close()
    damaged = bytearray(journal_of(path).read_bytes())
    damaged[-1] ^= 1
    journal_of(path).write_bytes(damaged)
    with pytest.raises(UserError, match="is damaged: remove it"):
        JournaledFile(path)
