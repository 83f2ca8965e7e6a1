"""The tour runs from its first cell to its last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TOUR = Path(__file__).resolve().parents[1] / "notebooks" / "tour.ipynb"


@pytest.mark.filterwarnings("ignore")  # of the notebook machinery, not ours: ours run in the kernel
def test_the_tour_runs_and_ends_with_probabilities(tmp_path):
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    lines = notebook.cells[-1].outputs[0].text.splitlines()
    assert len(lines) == 5
    assert "umbrella" in "".join(lines)
