"""A disk that is full or read-only: one sentence, nothing half under a final name, and a rerun that ends."""

import contextlib
import os
import resource
import shutil
import subprocess

import pytest

JOBS = (
    "csv", "timeline", "png", "gif", "evaluate", "pseudo_label", "report", "train", "features", "simulate", "pack",
    "pairs", "align", "data_check", "import",
)  # fmt: skip
APPENDED = (".log", "metrics.csv", "hparams.yaml", ".tfevents")
"""What a run writes into as it goes, and nobody takes for its result."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system that is full or read-only")


@contextlib.contextmanager
def mounted(place, size):
    """A small file system of its own; skips where even root may not mount."""
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this system does not let its root mount a tmpfs")
    try:
        yield lambda options: subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def results(job, place):
    return {name: content for name, content in job.left(place).items() if not any(end in name for end in APPENDED)}


@pytest.fixture(scope="session")
def whole(jobs, tmp_path_factory):
    """What each job leaves where there is room."""
    kept = {}

    def made_by(name):
        if name not in kept:
            place = tmp_path_factory.mktemp(name)
            ended = jobs[name].run(place, place.parent / f"{name}-here")
            assert ended.status == 0, ended.err
            assert jobs[name].is_whole(place)
            kept[name] = results(jobs[name], place)
            shutil.rmtree(place)
        return kept[name]

    return made_by


def check_told(job, ended, place, whole):
    """One sentence of the place, and every file under its final name as it is where there is room."""
    assert ended.status == 1, ended.err
    assert str(place.parent) in ended.sentence, ended.sentence
    left = results(job, place)
    assert set(left) <= set(whole)
    for name, content in left.items():
        if not name.endswith((".ckpt", "results.json", "report.md", ".yaml")):  # these tell times, or list other runs
            assert content == whole[name], name


def check_ends(job, place, here, whole):
    """With room, the same command ends and leaves what it would have left."""
    ended = job.run(place, here)
    assert ended.status == 0, ended.err
    assert job.is_whole(place)
    assert set(results(job, place)) >= set(whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("most", [800, 3_000])
def test_files_that_may_not_grow_are_told(jobs, whole, tmp_path, name, most):
    job, expected = jobs[name], whole(name)
    place = tmp_path / "place"
    place.mkdir()
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ended = job.run(place, tmp_path / "here", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard)))
    if max(map(len, expected.values())) > most:
        check_told(job, ended, place, expected)
    check_ends(job, place, tmp_path / "here", expected)


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("free", [0, 8_000])
def test_a_full_disk_is_told(jobs, whole, tmp_path, name, free):
    job, expected = jobs[name], whole(name)
    place = tmp_path / "place"
    with mounted(place, "600k") as remount:
        with (place / ".ballast").open("wb") as ballast, contextlib.suppress(OSError):
            ballast.write(bytes(700_000))
        os.truncate(place / ".ballast", (place / ".ballast").stat().st_size - free)
        ended = job.run(place, tmp_path / "here")
        if sum(map(len, expected.values())) > free:
            check_told(job, ended, place, expected)
        (place / ".ballast").unlink()
        remount("size=64m")
        check_ends(job, place, tmp_path / "here", expected)


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("name", JOBS)
def test_a_read_only_folder_is_told(jobs, whole, tmp_path, name):
    job, expected = jobs[name], whole(name)
    place = tmp_path / "place"
    with mounted(place, "64m") as remount:
        remount("ro")
        ended = job.run(place, tmp_path / "here")
        assert "ead-only" in ended.sentence or "cannot be written" in ended.sentence
        check_told(job, ended, place, expected)
        remount("rw")
        check_ends(job, place, tmp_path / "here", expected)


@needs_root
@pytest.mark.parametrize("name", ["csv", "png", "report"])
def test_a_full_disk_is_told_and_a_rerun_ends(jobs, whole, tmp_path, name):
    test_a_full_disk_is_told(jobs, whole, tmp_path, name, 0)
