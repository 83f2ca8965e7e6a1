"""Markdown, LaTeX and CSV of a table that was reckoned by hand."""

import csv
import io

from eventclip.reports.render import escape_latex, to_csv, to_latex, to_markdown
from eventclip.reports.table import Estimate, Row, Table

TOP1, TOP5 = "test/top1_probabilities", "test/top5_probabilities"
COLUMNS = ["clip.arch", "fewshot.shots"]


def row(arch, shots, seeds, **estimates):
    named = {"top1": TOP1, "top5": TOP5}
    return Row(
        {"clip.arch": arch, "fewshot.shots": shots},
        shots,
        seeds,
        {named[k]: Estimate(*v) for k, v in estimates.items()},
    )


TABLE = Table(
    COLUMNS,
    [TOP1, TOP5],
    [
        row("RN50, wide", 1, (0, 1, 2), top1=(0.1234567891, 0.0125), top5=(0.5, 0.0)),
        row("ViT_B", 1, (0,), top1=(0.5, None)),
        row("ViT_B", 20, (0, 2), top1=(0.75, 0.1), top5=(1.0, 0.25)),
        row("ViT_B", None, (0,), top1=(0.8, None)),
    ],
    ["A note."],
)


def test_markdown_is_aligned_with_notes_below():
    assert to_markdown(TABLE, title="Title") == (
        "Title\n"
        "\n"
        "| clip.arch  | fewshot.shots | seeds |         top-1 |          top-5 |\n"
        "| ---------- | ------------- | ----: | ------------: | -------------: |\n"
        "| RN50, wide | 1             |     3 |  12.35 ± 1.25 |   50.00 ± 0.00 |\n"
        "| ViT_B      | 1             |     1 |         50.00 |              – |\n"
        "| ViT_B      | 20            |     2 | 75.00 ± 10.00 | 100.00 ± 25.00 |\n"
        "| ViT_B      | all           |     1 |         80.00 |              – |\n"
        "\n"
        "A note.\n"
    )


def test_a_bar_in_a_setting_does_not_end_its_cell():
    table = Table(["a"], [], [Row({"a": "x|y"}, None, (0,), {})], [])
    assert "| x\\|y |" in to_markdown(table)


def test_latex_rows_are_escaped_and_ended():
    lines = to_latex(TABLE).splitlines()
    assert lines[0] == r"clip.arch & fewshot.shots & seeds & top-1 & top-5 \\"
    assert lines[1] == r"\midrule"
    assert lines[2] == r"RN50, wide & 1 & 3 & 12.35 $\pm$ 1.25 & 50.00 $\pm$ 0.00 \\"
    assert lines[3] == r"ViT\_B & 1 & 1 & 50.00 & -- \\"


def test_signs_that_latex_takes_for_commands_are_escaped():
    assert escape_latex(r"a_b & 5% of $x #1 {y} ~ ^ \z") == (
        r"a\_b \& 5\% of \$x \#1 \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z"
    )


def test_csv_parses_back_to_every_digit():
    lines = list(csv.DictReader(io.StringIO(to_csv(TABLE))))
    assert lines[0]["clip.arch"] == "RN50, wide"
    assert float(lines[0][TOP1]) == 0.1234567891
    assert float(lines[0][f"{TOP1} half_width"]) == 0.0125
    assert (lines[1][f"{TOP1} half_width"], lines[1][TOP5]) == ("", "")
    assert (lines[2]["n"], lines[2]["seeds"], float(lines[2][TOP5])) == ("2", "0 2", 1.0)
