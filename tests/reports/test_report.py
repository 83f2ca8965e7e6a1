"""From runs to a report, for the command and at the end of a multirun."""

from eventclip.reports.report import series
from eventclip.reports.table import MISSING, Estimate, Row, Table

TOP1 = "test/top1_probabilities"


def test_the_table_of_all_runs_and_their_folder_end_a_multirun(write_run, end_multirun, tmp_path, capsys):
    write_run("adapter=text,seed=0", accuracy=0.25)
    write_run("adapter=joint,seed=0", accuracy=0.75, settings={"adapter._target_": "eventclip.adapters.paper.Joint"})
    end_multirun(tmp_path)
    told = capsys.readouterr().out
    assert "25.00" in told
    assert "75.00" in told
    assert told.rstrip().splitlines()[-1].startswith(str(tmp_path))


def test_a_multirun_without_a_finished_run_says_so(end_multirun, tmp_path, capsys):
    end_multirun(tmp_path)
    assert "no table: " in capsys.readouterr().out


def test_a_table_is_a_line_for_each_other_difference():
    rows = [
        Row({"clip.arch": arch, "fewshot.shots": shots}, shots, (0,), {TOP1: Estimate(mean, None)})
        for arch, shots, mean in (("RN50, wide", 1, 0.1), ("ViT_B", 1, 0.5), ("ViT_B", 20, 0.75), ("ViT_B", None, 0.8))
    ]
    assert series(Table(["clip.arch", "fewshot.shots"], [TOP1], rows, [])) == {
        "clip.arch RN50, wide": {1: Estimate(0.1, None)},
        "clip.arch ViT_B": {1: Estimate(0.5, None), 20: Estimate(0.75, None), None: Estimate(0.8, None)},
    }


def test_a_line_goes_on_where_weights_were_set_otherwise():
    def row(adapter, weights, shots):
        settings = {"adapter._target_": adapter, "adapter.weights": weights, "fewshot.shots": shots}
        return Row(settings, shots, (0,), {TOP1: Estimate(shots / 10, None)})

    columns = ["adapter._target_", "adapter.weights", "fewshot.shots"]
    rows = [row("GDAAdapter", "fixed", 1), row("GDAAdapter", "support", 5), row("TextAdapter", MISSING, 1)]
    assert list(series(Table(columns, [TOP1], rows, []))) == ["adapter gda", "adapter text"]
    both = series(Table(columns, [TOP1], [*rows, row("GDAAdapter", "fixed", 5)], []))
    assert list(both) == [
        "adapter gda, adapter.weights fixed",
        "adapter gda, adapter.weights support",
        "adapter text, adapter.weights –",
    ]
    assert both["adapter gda, adapter.weights fixed"] == {1: Estimate(0.1, None), 5: Estimate(0.5, None)}
