"""Zero-shot needs a test folder and nothing else."""

import json
import shutil

import pytest

from eventclip.errors import UserError

ENSEMBLE = 'classifier.prompts=["a point cloud image of a {}","a sketch image of a {}"]'


@pytest.fixture
def test_only(learnable_root, tmp_path):
    shutil.copytree(learnable_root / "testing", tmp_path / "only" / "testing")
    return f"data.root={tmp_path / 'only'}"


def results(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_test_folder_is_enough(run_experiment, test_only):
    folder = run_experiment(test_only, experiment="zeroshot_ncaltech")
    assert results(folder)["data"]["recordings"] == {"test": 12}
    assert "test/top1_probabilities" in results(folder)["metrics"]
    assert not (folder / "checkpoints").exists()


def test_learning_without_training_recordings_is_refused(run_experiment, test_only):
    with pytest.raises(UserError, match=r"there is no folder .*training"):
        run_experiment(test_only)


def test_normalising_and_ensembles_change_what_is_measured(run_experiment, test_only):
    choices = ((), ("adapter.normalize_image_features=true",), (ENSEMBLE,))
    losses = {
        results(run_experiment(test_only, *choice, experiment="zeroshot_ncaltech", folder=f"run_{number}"))["metrics"][
            "test/loss"
        ]
        for number, choice in enumerate(choices)
    }
    assert len(losses) == 3
