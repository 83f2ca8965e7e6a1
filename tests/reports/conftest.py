"""Runs made up by their results.json."""

import json

import pytest
from omegaconf import OmegaConf

from eventclip.reports.report import SweepTable

SETTINGS = {
    "fewshot.shots": 1,
    "fewshot.seed": 0,
    "adapter._target_": "eventclip.adapters.paper.TextAdapter",
    "optim.lr": 0.001,
}


@pytest.fixture
def write_run(tmp_path):
    """Write a run's folder; keywords replace what its results.json says, ``settings`` adds to the usual ones."""

    def write(folder, *, seed=0, accuracy=0.5, settings=None, **said):
        path = tmp_path / folder / "results.json"
        path.parent.mkdir(parents=True)
        (path.parent / ".hydra").mkdir()
        results = {
            "name": "made_up",
            "metrics": {"test/top1_probabilities": accuracy, "test/top1_logits": accuracy, "test/loss": 1.0},
            "seed": seed,
            "settings": {**SETTINGS, "fewshot.seed": seed, **(settings or {})},
            "data": {"checksums": {"test": "aaaaaaaaaa"}, "root": "/data"},
            "class_names": ["cat", "dog"],
            "selection": {"split": None},
            "clip": {"weights_sha256": "c" * 64},
            **said,
        }
        path.write_text(json.dumps(results))
        return path

    return write


@pytest.fixture
def end_multirun():
    """End a multirun whose runs lie below a folder; keywords are SweepTable's."""

    def end(folder, **said):
        SweepTable(**said).on_multirun_end(OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}}}))

    return end
