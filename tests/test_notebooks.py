"""Each notebook runs from its first cell to its last, and says what it promises."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def last_lines(name, folder):
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    printed = (output.text for output in notebook.cells[-1].outputs if output.output_type == "stream")  # as it came
    return "".join(printed).splitlines()


@pytest.mark.filterwarnings("ignore")  # of the notebook machinery, not ours: ours run in the kernel
def test_the_tour_runs_and_ends_with_probabilities(tmp_path):
    lines = last_lines("tour.ipynb", tmp_path)
    assert len(lines) == 5
    assert "umbrella" in "".join(lines)


@pytest.mark.filterwarnings("ignore")
def test_training_without_hydra_learns_what_it_was_shown(tmp_path):
    *lines, accuracy = last_lines("train_without_hydra.ipynb", tmp_path)
    assert len(lines) == 6
    assert accuracy == "accuracy: 100%"


def test_no_notebook_is_left_untested():
    assert {path.name for path in NOTEBOOKS.glob("*.ipynb")} == {"tour.ipynb", "train_without_hydra.ipynb"}
