"""What is trained, validated and tested on: nothing held out unasked, and never a shot among the held-out ones."""

from functools import partial

import numpy as np
import pytest

from eventclip.datasets.datamodule import grouped
from eventclip.datasets.ncars import NCarsDataModule
from eventclip.datasets.nimagenet import NImageNetDataModule
from eventclip.datasets.sampling import sample_few_shot
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer

FAKES = {"ncars": (NCarsDataModule, (100, 120)), "nimagenet": (NImageNetDataModule, (480, 640))}


@pytest.fixture(params=sorted(FAKES))
def build(request, ncars_root, nimagenet_root):
    kind, sensor = FAKES[request.param]
    root = {"ncars": ncars_root, "nimagenet": nimagenet_root}[request.param]

    def built(*, selection="validation", shots=None, **options):
        few_shot = None if shots is None else partial(sample_few_shot, shots=shots, sampling="reference")
        given = {"sensor_hw": sensor, "p95_events": 600, "selection": selection, "few_shot": few_shot, **options}
        data = kind(root=root, renderer=FrameRenderer(200), **grouped(given))
        data.connect(image_size=32)
        return data

    return built


def paths(recordings):
    return set(recordings.paths.tolist())


@pytest.mark.parametrize("shots", [None, 1, 3, 5, 50])
def test_training_and_validation_share_classes_only(build, shots):
    data = build(shots=shots, split_fraction=0.5)
    assert not paths(data.training) & paths(data.recordings("validate"))
    assert data.training.class_counts().all()
    assert len(set(data.recordings("validate").class_counts().tolist())) == 1
    assert data.recordings("validate").class_counts()[0] == data.split("training").class_counts()[0] // 2


def test_few_shots_are_the_published_ones_held_out_or_not(build):
    for shots in (1, 3):
        split_off, without = (
            build(shots=shots, split_fraction=0.5),
            build(shots=shots, split_fraction=0.5, selection=None),
        )
        np.testing.assert_array_equal(split_off.training.paths, without.training.paths)


def test_the_whole_split_gives_up_what_is_held_out_and_only_then(build):
    whole = build(selection=None)
    assert len(whole.training) == len(whole.split("training"))
    assert "validation" not in whole.describe()["checksums"]
    with pytest.raises(
        UserError, match=r"has no validation split of its own: selection=validation takes data\.split_fraction"
    ):
        whole.split("validation")
    held = build(split_fraction=0.25)
    assert len(held.training) + len(held.split("validation")) == len(whole.training)
    ours, theirs = held.describe(), whole.describe()
    assert ours["checksums"]["training"] != theirs["checksums"]["training"]
    assert ours["checksums"]["validation"] == held.split("validation").checksum()
    assert ours["recordings"]["validation"] == len(held.split("validation"))


def test_the_held_out_part_stays_when_other_things_change(build):
    alone = paths(build(split_fraction=0.3).split("validation"))
    assert paths(build(split_fraction=0.3, batch_size=3, num_workers=2).split("validation")) == alone
    assert paths(build(split_fraction=0.3, seed=1).split("validation")) != alone
    with_shots = paths(build(split_fraction=0.3, shots=1).split("validation"))
    assert len(with_shots - alone) <= 3  # one shot a class, at most, has to be replaced


EXPERIMENTS = ("fewshot_ncaltech", "fewshot_ncars", "fewshot_nimagenet", "fewshot_nimagenet_mini")


@pytest.mark.parametrize("selection", ["validation", "test"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_results_say_what_the_weights_were_chosen_on(run_data_set, caplog, experiment, selection):
    results = run_data_set(experiment, f"selection={selection}", "selection.every_n_epochs=1", "trainer.max_epochs=1")
    assert results["selection"] == {"split": selection, "tested": "best"}
    assert ("validation" in results["data"]["checksums"]) == (selection == "validation")
    assert results["validation"] is not None
    assert ("chooses the weights on the test split itself" in caplog.text) == (selection == "test")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_data_set_is_learned_from_a_few_shots(run_data_set, experiment):
    learned = run_data_set(experiment, "optim.lr=1e-3", "trainer.max_epochs=6")
    assert learned["data"]["recordings"]["training"] == 3 * learned["data"]["classes"]
    assert learned["selection"] == {"split": None, "tested": "last"}
    assert learned["validation"] is None
    zero_shot = run_data_set(experiment, "adapter=identity", folder="zero_shot")
    assert set(zero_shot["metrics"]) == set(learned["metrics"])
    assert learned["metrics"]["test/loss"] < zero_shot["metrics"]["test/loss"]
    # no training split is looked at
    assert zero_shot["data"]["recordings"] == {"test": learned["data"]["recordings"]["test"]}


@pytest.mark.parametrize(("variant", "folder"), [("mode_1", "extracted_val_mode_1"), (9, "extracted_val_brightness_7")])
def test_a_variant_is_tested_in_place_of_the_main_test_split(run_data_set, variant, folder, nimagenet_root):
    results = run_data_set("fewshot_nimagenet", "adapter=identity", f"data.variant={variant}")
    assert results["data"]["recordings"]["test"] == len(list((nimagenet_root / folder).rglob("*.npz")))
