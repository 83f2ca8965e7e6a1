"""Differences on the same seeds, and between which rows they are told."""

import csv
import io

import pytest

from eventclip.errors import UserError
from eventclip.plots.curve import Point, draw_differences
from eventclip.reports.collect import collect
from eventclip.reports.report import compare, make_report, write_report
from eventclip.reports.table import estimate, make_table, to_csv, to_latex, to_markdown

DRAWS = {0: 0.50, 1: 0.60, 2: 0.55}  # what a draw of recordings does to all adapters alike
GDA = {"adapter._target_": "eventclip.adapters.gaussian.GDAAdapter", "adapter.weights": "support"}


@pytest.fixture
def write_fitted(write_run):
    """Write a run of GDA, which has no learning rate."""

    def write(folder, *, shots=1, **said):
        path = write_run(folder, settings={**GDA, "fewshot.shots": shots}, adapter={"weights": "support"}, **said)
        path.write_text(path.read_text().replace('"optim.lr": 0.001', '"views.most": 10'))

    return write


@pytest.fixture
def runs(write_run, write_fitted, tmp_path):
    """Text and GDA on three draws at one shot and at five; GDA a point better, give or take a little."""
    for shots in (1, 5):
        for seed, accuracy in DRAWS.items():
            write_run(f"text/{shots}/{seed}", seed=seed, accuracy=accuracy, settings={"fewshot.shots": shots})
            better = accuracy + 0.01 + 0.001 * (seed - 1)
            write_fitted(f"gda/{shots}/{seed}", shots=shots, seed=seed, accuracy=better)
    return tmp_path


def table(folder):
    return make_table(collect([folder]).runs)


def difference(compared, adapter, shots=1):
    """Of the row of an adapter."""
    found = [row for row in compared.rows if row.settings["adapter._target_"].endswith(adapter) and row.shots == shots]
    assert len(found) == 1
    return found[0].difference


def test_a_difference_is_that_of_the_same_seeds(runs):
    compared = compare(table(runs), "adapter=text")
    told = difference(compared, "GDAAdapter")
    assert told.mean == pytest.approx(0.01)
    assert told.half_width == pytest.approx(estimate([0.009, 0.010, 0.011]).half_width)
    assert difference(compared, "TextAdapter") is None
    assert compared.against == "adapter text"


def test_pairing_leaves_out_what_the_draws_do_to_both(runs):
    told = difference(compare(table(runs), "adapter=text"), "GDAAdapter")
    assert told.half_width < 0.1 * estimate(list(DRAWS.values())).half_width


def test_seeds_of_one_side_alone_do_not_count(runs, write_fitted):
    write_fitted("gda/1/7", seed=7, accuracy=0.99)
    assert difference(compare(table(runs), "adapter=text"), "GDAAdapter").mean == pytest.approx(0.01)


def test_without_a_seed_in_common_there_is_no_difference(write_run, write_fitted, tmp_path):
    write_run("text", seed=0)
    write_fitted("gda", seed=1)
    compared = compare(table(tmp_path), "adapter=text")
    assert difference(compared, "GDAAdapter") is None
    assert "–" in to_markdown(compared)


def test_the_other_way_round_has_the_other_sign(runs):
    there = difference(compare(table(runs), "adapter=text"), "GDAAdapter")
    back = difference(compare(table(runs), "adapter=gda"), "TextAdapter")
    assert back.mean == pytest.approx(-there.mean)
    assert back.half_width == pytest.approx(there.half_width)


def test_every_form_of_the_table_tells_it(runs):
    compared = compare(table(runs), "adapter=text")
    width = 100 * difference(compared, "GDAAdapter").half_width
    assert f"+1.00 ± {width:.2f}" in to_markdown(compared)
    assert f"+1.00 $\\pm$ {width:.2f}" in to_latex(compared)
    head, *lines = csv.reader(io.StringIO(to_csv(compared)))
    assert head[-2:] == ["test/top1_probabilities against adapter text", "its half_width"]
    assert sorted(line[-2] != "" for line in lines) == [False, False, True, True]


@pytest.mark.parametrize(
    ("against", "told"),
    [
        ("adapter", "expected KEY=VALUE with a key in which the runs differ: adapter, adapter.weights, fewshot.shots"),
        ("clip=tiny", "expected KEY=VALUE with a key in which the runs differ"),
        ("adapter=joint", "no run has it; of adapter there are gda, text"),
        ("adapter=text,adapter.weights=support", "no row has adapter text, adapter.weights support at once"),
    ],
)
def test_what_is_not_in_the_table_is_refused_with_what_is(runs, against, told):
    with pytest.raises(UserError, match=told):
        compare(table(runs), against)


def test_several_partners_are_told_and_one_can_be_named(runs, write_run):
    for seed in DRAWS:
        write_run(f"fast/{seed}", seed=seed, accuracy=0.4, settings={"optim.lr": 0.01})
    with pytest.raises(UserError, match=r"any of 2 rows that differ in optim.lr: .*adapter=text,optim.lr=0.001"):
        compare(table(runs), "adapter=text")
    told = difference(compare(table(runs), "adapter=text,optim.lr=0.001"), "GDAAdapter")
    assert told.mean == pytest.approx(0.01)


def test_by_shots_each_adapter_is_a_line(runs):
    markdown = make_report([runs], against="adapter=text", by_shots=True).markdown
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    assert ["top-1", "1 shot", "5 shots"] in lines
    text = f"55.00 ± {100 * estimate(list(DRAWS.values())).half_width:.2f}"
    assert ["adapter text", text, text] in lines
    assert ["top-1 against adapter text", "1 shot", "5 shots"] in lines


def test_a_sweep_writes_its_report_and_both_pictures(runs, end_multirun, capsys):
    end_multirun(runs, against="adapter=text", by_shots=True, write=True)
    assert {path.name for path in runs.glob("report*")} == {
        *("report.md", "report.tex", "report.csv", "report.png", "report_differences.png"),
    }
    assert "report_differences.png" in capsys.readouterr().out


def test_a_sweep_without_the_compared_adapter_has_its_table(runs, end_multirun, capsys):
    end_multirun(runs, against="adapter=joint")
    told = capsys.readouterr().out
    assert "55.00" in told
    assert "nothing is compared: --against adapter=joint: no run has it" in told


def test_without_a_comparison_no_picture_of_one_is_written(runs, tmp_path):
    written = write_report(make_report([runs]), tmp_path / "out")
    assert not any(path.name == "report_differences.png" for path in written)


def test_bars_of_the_same_shots_stand_side_by_side():
    points = [Point(1, 0.01, 0.02), Point(5, -0.01, 0.02)]
    figure = draw_differences({"a": points, "b": points, "c": points}, "text")
    lines = [container[0].get_xdata()[0] for container in figure.axes[0].containers]
    assert len(set(lines)) == 3
    assert all(0.9 < place < 1.1 for place in lines)
    assert draw_differences({"a": [Point(None, 0.1, None)]}, "text") is None
