"""The data set and the CLIP that travel with the package: what it is to learn, it learns."""

import json

import pytest
from hydra import compose, initialize_config_dir

from eventclip.config.composition import CONFIG_DIR, register_schema
from eventclip.datasets.symbols import make_symbols
from eventclip.training.experiment import run


@pytest.fixture(scope="module")
def top1(tmp_path_factory):
    """Test accuracy on a fifth of the demo's recordings, of CLIP as it is and after three shots a class."""
    root = make_symbols(tmp_path_factory.mktemp("cache"), training=3, testing=5, progress=False)

    def accuracy(adapter, clip="tiny"):
        output = tmp_path_factory.mktemp(adapter)
        register_schema()
        overrides = [
            "experiment=demo",
            f"adapter={adapter}",
            f"clip={clip}",
            "data._target_=eventclip.datasets.folder.FolderDataModule",
            f"data.root={root}",
            "data.num_workers=0",
            "fewshot.shots=3",
            "trainer.max_epochs=8",
            "optim.lr=3e-3",
            "callbacks.progress=null",
            f"paths.output={output}",
        ]
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            run(compose("train", overrides))
        results = json.loads((output / "results.json").read_text())
        assert results["data"]["recordings"]["test"] == 200
        return results["metrics"]["test/top1_probabilities"]

    found = {adapter: accuracy(adapter) for adapter in ("identity", "text", "joint")}
    return {**found, "aligned": accuracy("identity", "tiny_aligned")}


def test_zero_shot_leaves_room_and_is_far_above_chance(top1):
    assert 0.35 < top1["identity"] < 0.75  # chance is 1 in 40


@pytest.mark.parametrize("adapter", ["text", "joint"])
def test_an_adapter_beats_zero_shot(top1, adapter):
    assert top1[adapter] >= top1["identity"] + 0.04


def test_the_alignment_that_travels_along_beats_zero_shot(top1):
    assert top1["aligned"] >= top1["identity"] + 0.04
