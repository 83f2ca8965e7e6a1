"""A run stopped after any step and resumed ends with the very weights of one that was never stopped."""

import json

import pytest
import torch

from eventclip.errors import UserError

# A resumed run of these tests has a folder of its own, where "best.ckpt" begins anew.
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")

JOINT = ("adapter=joint", "adapter.width=16", "adapter.mlp_width=16", "adapter.heads=2", "selection=validation")
STEPS = 9  # 3 epochs of 9 recordings in batches of 4, 4 and 1


def learned(path):
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_weights(path, other):
    ours, theirs = learned(path), learned(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_resuming_after_any_step_gives_the_same_weights_bit_for_bit(run_experiment, keep_every_step):
    kept, overrides = keep_every_step
    unbroken = run_experiment(*JOINT, *overrides)
    assert len(list(kept.glob("step_*.ckpt"))) == STEPS
    for step in range(1, STEPS + 1):
        resumed = run_experiment(*JOINT, f"resume={kept}/step_{step}.ckpt", folder=f"resumed_{step}")
        assert_same_weights(resumed / "checkpoints" / "last.ckpt", unbroken / "checkpoints" / "last.ckpt")
        assert json.loads((resumed / "results.json").read_text())["resumed"] is True


def test_the_number_of_workers_changes_nothing(run_experiment):
    alone = run_experiment(*JOINT, folder="alone")
    helped = run_experiment(*JOINT, "data.num_workers=2", folder="helped")
    assert_same_weights(alone / "checkpoints" / "last.ckpt", helped / "checkpoints" / "last.ckpt")
    metrics = [json.loads((folder / "results.json").read_text())["metrics"] for folder in (alone, helped)]
    assert metrics[0] == metrics[1]


def test_another_seed_gives_other_weights(run_experiment):
    a, b = run_experiment("seed=0", folder="a"), run_experiment("seed=1", folder="b")
    with pytest.raises(AssertionError):
        assert_same_weights(a / "checkpoints" / "last.ckpt", b / "checkpoints" / "last.ckpt")


def test_a_run_folder_with_a_finished_run_is_not_trained_again(run_experiment):
    first = run_experiment()
    before = learned(first / "checkpoints" / "last.ckpt")
    again = run_experiment()
    after = learned(again / "checkpoints" / "last.ckpt")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_holds_plain_values_and_no_frozen_weights(run_experiment):
    path = run_experiment(*JOINT) / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    assert not [name for name in checkpoint["state_dict"] if "encoder" in name]
    assert checkpoint["eventclip"]["class_names"] == ["face", "airplane", "yin yang"]
    assert path.stat().st_size < 500_000


def test_a_checkpoint_of_another_clip_is_refused_in_one_sentence(run_experiment):
    path = run_experiment() / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match=r"was trained on CLIP .* and this run has"):
        run_experiment(f"resume={path}", "clip.init_seed=1", folder="other")


def test_a_checkpoint_of_other_classes_is_refused(run_experiment):
    path = run_experiment() / "checkpoints" / "last.ckpt"
    with pytest.raises(UserError, match="differ first in 'face' and 'a'"):
        run_experiment(f"resume={path}", "data.class_names=[a,b,c]", folder="other")


def test_a_checkpoint_of_other_training_data_is_refused(run_experiment, keep_every_step):
    kept, overrides = keep_every_step
    run_experiment(*overrides)
    with pytest.raises(UserError, match="training data"):
        run_experiment(f"resume={kept}/step_4.ckpt", "fewshot.shots=2", folder="other")


@pytest.mark.parametrize(("content", "message"), [(None, "there is no checkpoint"), (b"no zip", "damaged")])
def test_a_missing_or_damaged_checkpoint_is_told(run_experiment, tmp_path, content, message):
    path = tmp_path / "x.ckpt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        run_experiment(f"resume={path}")


def test_an_imported_checkpoint_has_no_training_to_go_on_from(run_experiment, tmp_path):
    checkpoint = torch.load(run_experiment("trainer.max_epochs=1") / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save({key: checkpoint[key] for key in ("state_dict", "eventclip")}, tmp_path / "imported.ckpt")
    with pytest.raises(UserError, match=r"imported\.ckpt was imported and holds no state of a training"):
        run_experiment(f"resume={tmp_path / 'imported.ckpt'}", folder="other")
