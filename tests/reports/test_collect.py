"""Which runs are found, which are told of, and which do not belong in one table."""

import json
import os

import pytest

from eventclip.errors import UserError
from eventclip.reports.collect import collect, mixtures, read_run
from eventclip.reports.report import make_report, write_report


def test_runs_are_found_at_any_depth_and_once(write_run, tmp_path):
    write_run("outputs/x/1")
    write_run("multirun/deep/er/2")
    found = collect([tmp_path, tmp_path / "outputs", tmp_path / "outputs" / "x" / "1"])
    assert [run.folder.relative_to(tmp_path).as_posix() for run in found.runs] == ["multirun/deep/er/2", "outputs/x/1"]
    assert not found.unfinished
    assert not found.damaged


def test_unfinished_and_damaged_runs_are_named_in_the_report(write_run, tmp_path):
    write_run("good")
    write_run("damaged").write_text('{"name": "x", "met')
    write_run("old", settings={}).write_text('{"name": "x", "metrics": {"test/top1_probabilities": 1}, "seed": 0}')
    (tmp_path / "stopped" / ".hydra").mkdir(parents=True)
    markdown = make_report([tmp_path]).markdown
    assert f"without results.json as if not finished (1): {tmp_path}/stopped." in markdown
    assert f"{tmp_path}/damaged/results.json is damaged (Unterminated string" in markdown
    assert f"{tmp_path}/old/results.json lacks what a table needs (KeyError: 'settings')" in markdown
    assert "made_up: 1 run," in markdown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "lacks what a table needs"),
        ('{"metrics": {}}', "lacks what a table needs .*top1_probabilities"),
        ('{"metrics": {"test/top1_probabilities": "high"}}', "is damaged .*high"),
        ("\xff", "is damaged"),
    ],
)
def test_a_damaged_results_file_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=message) as told:
        read_run(path)
    assert "\n" not in str(told.value)


def test_a_metric_that_is_no_number_is_refused(write_run):
    with pytest.raises(UserError, match="no finite number"):
        read_run(write_run("x", accuracy=float("nan")))


def test_no_folder_no_run_and_no_finished_run_are_told(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        collect([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="there is no run below"):
        collect([tmp_path])
    (tmp_path / "a" / ".hydra").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no run can be reported: .*not finished \(1\): .*a"):
        make_report([tmp_path])


MIXED = [
    (
        {"data": {"checksums": {"test": "bbbbbbbbbb"}, "root": "/data"}},
        "different test splits: sha256 aaaaaaaa in .*/one",
    ),
    ({"class_names": ["cat", "cow"]}, "different classes: 2 with 'dog' at 1 in .*/one; 2 with 'cow' at 1 in .*/two"),
    (
        {"selection": {"split": "test"}},
        "weights chosen on the test split beside others: not chosen there in .*; chosen there in .*/two",
    ),
]


@pytest.mark.parametrize(("said", "message"), MIXED)
def test_runs_that_do_not_belong_together_are_refused_and_named(write_run, tmp_path, said, message):
    write_run("one")
    write_run("two", seed=1, **said)
    with pytest.raises(UserError, match=f"{message}.*: report them apart, or give --mix") as told:
        make_report([tmp_path])
    assert "\n" not in str(told.value)
    assert "Mixed: the runs have" in make_report([tmp_path], mix=True).markdown


def test_a_longer_list_of_classes_is_another_one(write_run, tmp_path):
    write_run("one")
    write_run("two", class_names=["cat", "dog", "cow"])
    assert mixtures(collect([tmp_path]).runs) == [
        f"the runs have different classes: 2 in {tmp_path}/one; 3 with 'cow' at 2 in {tmp_path}/two"
    ]


def test_many_runs_are_named_by_the_first_three(write_run, tmp_path):
    for number in range(5):
        write_run(f"one_{number}", seed=number)
    write_run("two", selection={"split": "test"})
    assert mixtures(collect([tmp_path]).runs)[0].count("one_") == 3
    assert "and 2 more" in mixtures(collect([tmp_path]).runs)[0]


def test_runs_chosen_on_validation_stand_beside_others(write_run, tmp_path):
    write_run("one")
    write_run("two", seed=1, selection={"split": "validation"})
    assert mixtures(collect([tmp_path]).runs) == []


def test_odd_results_are_a_sentence_or_can_be_reported(write_run, damage, tmp_path):
    path = write_run("x")
    sound = json.loads(path.read_text())
    files = [json.dumps(changed).encode() for changed in damage.with_values(sound)]
    taken, reported = 0, set()
    for content in (*files, *damage.mutants(path.read_bytes(), 60), *damage.ODD_JSON):
        path.write_bytes(content)
        try:
            run = read_run(path)
        except UserError as error:
            if "\n" in str(error) or str(path) not in str(error):
                raise AssertionError("no sentence with the path") from error
            continue
        taken += 1
        assert all(0 <= run.metrics[name] <= 1 for name in run.metrics if name.startswith("test/top"))
        report = make_report([tmp_path])
        if report.markdown not in reported:  # figures take a tenth of a second each
            write_report(report, tmp_path / "report")
        reported.add(report.markdown)
    assert taken > 20


def test_a_damaged_run_does_not_hide_the_others(write_run, tmp_path):
    write_run("good")
    for number, content in enumerate((b"[" * 5000, b"1" * 5000, b"\xff", b"null", b'{"metrics": 1}')):
        write_run(f"bad_{number}").write_bytes(content)
    write_run("pipe").unlink()
    os.mkfifo(tmp_path / "pipe" / "results.json")
    write_run("loop").unlink()
    (tmp_path / "loop" / "results.json").symlink_to("results.json")
    markdown = make_report([tmp_path]).markdown
    assert "made_up: 1 run," in markdown
    for name in (*(f"bad_{number}" for number in range(5)), "pipe", "loop"):
        assert f"Left out: {tmp_path}/{name}/results.json " in markdown


def test_names_that_are_not_utf8_can_be_reported(write_run, tmp_path):
    write_run(os.fsdecode(b"folder\xff"), name=os.fsdecode(b"run\xfe"), class_names=["a", os.fsdecode(b"\xfd")])
    (tmp_path / os.fsdecode(b"stopped\xfc") / ".hydra").mkdir(parents=True)
    report = make_report([tmp_path])
    assert "run\\udcfe: 1 run" in report.markdown
    write_report(report, tmp_path / "report")
    assert "stopped\\udcfc" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def test_a_formula_in_a_setting_is_drawn_as_it_is(write_run, tmp_path):
    for seed, name in enumerate(("$\\frac$", "plain")):
        write_run(f"run_{seed}", settings={"optim.name": name})
    written = write_report(make_report([tmp_path]), tmp_path / "report")
    assert "report.png" in [path.name for path in written]
