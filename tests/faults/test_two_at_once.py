"""Two processes that write the same at once: one is told to wait, or both end right; never half under a final name."""

import pytest

ONE_WRITES = ("csv", "timeline", "pseudo_label", "simulate", "pairs", "pack", "align")
"""Those that take long and go on where they stopped: a second one at the same work is refused."""
EACH_WRITES = ("png", "gif", "evaluate", "report", "data_check", "import")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ONE_WRITES, *EACH_WRITES])
def test_two_at_once_end_right_or_one_is_told(jobs, tmp_path, name):
    job, place = jobs[name], tmp_path / "place"
    place.mkdir()
    running = [job.start(place, tmp_path / f"here{number}") for number in range(2)]
    ended = [one.wait() for one in running]
    assert 0 in {one.status for one in ended}, ended
    for one in ended:
        if one.status:
            assert name in ONE_WRITES
            meanwhile = "another process is " in one.sentence and "wait for it" in one.sentence
            # Slow to start, one may come when the other has ended: its new folder of links is there then.
            afterwards = name == "pseudo_label" and "is not empty: give a new folder" in one.sentence
            # And align waits a little, for a killed process's workers to be gone.
            afterwards |= name == "align" and "is there already: remove it" in one.sentence
            assert meanwhile or afterwards, one.sentence
    assert job.is_whole(place)
    assert not [path for path in place.rglob("*") if path.name.endswith((".part", ".lock"))]


@pytest.mark.parametrize("name", ["csv"])
def test_a_second_predict_is_told_while_the_first_writes(jobs, tmp_path, name):
    from eventclip.files import held

    job, place = jobs[name], tmp_path / "place"
    with held(place / "p.csv"):
        ended = job.run(place, tmp_path / "here")
    assert ended.sentence == (
        f"eventclip: another process is writing {place / 'p.csv'}: wait for it, or give another out="
    )
    assert ended.status == 1
    assert job.run(place, tmp_path / "here").status == 0
