"""A run stopped after any step and resumed ends with the very weights of one that was never stopped."""

import json

import pytest
import torch

from eventclip.errors import UserError
from eventclip.training.resume import _count_start

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


def test_resuming_after_any_step_gives_the_same_weights(run_experiment, keep_every_step):
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


def test_going_on_with_other_settings_is_refused(run_experiment, keep_every_step):
    kept, overrides = keep_every_step
    run_experiment(*overrides)
    for override, message in (
        ("trainer.max_epochs=4", r"trainer\.max_epochs=3 and this run has 4, .*give trainer\.max_epochs=3 to go on"),
        ("trainer.max_steps=4", r"trainer\.max_steps=-1 and this run has 4"),
        ("optim.lr=0.02", r"optim\.lr=0\.01 and this run has 0\.02"),
        ("data.batch_size=3", r"data\.batch_size=4 and this run has 3"),
        ("+trainer.gradient_clip_val=1.0", r"gradient_clip_val=null and this run has 1\.0"),
        ("classifier.loss=probabilities", r"classifier\.loss=logits and this run has probabilities"),
        ("seed=5", "seed=0 and this run has 5"),
    ):
        with pytest.raises(UserError, match=message) as told:
            run_experiment(f"resume={kept}/step_4.ckpt", override, folder="other")
        assert "\n" not in str(told.value)
        assert "resume=null" in str(told.value)


def test_what_only_the_machine_decides_may_change(run_experiment, keep_every_step, tmp_path):
    kept, overrides = keep_every_step
    run_experiment(*overrides)
    machine = ("data.num_workers=1", "trainer.log_every_n_steps=2", f"paths.cache={tmp_path}", "name=other")
    run_experiment(f"resume={kept}/step_4.ckpt", *machine, "logger.csv=null", folder="other")


@pytest.mark.parametrize("content", ["[1]", '{"starts": null}', '{"starts": "x"}', "[" * 3000, "", '{"starts": 1e400}'])
def test_a_damaged_count_of_starts_begins_anew(tmp_path, content):
    file = tmp_path / "starts.json"
    file.write_text(content)
    assert _count_start(file, afresh=False) == 0
    assert _count_start(file, afresh=False) == 1
    assert json.loads(file.read_text()) == {"starts": 2}


def test_a_checkpoint_without_a_trainings_state_is_told(run_experiment, tmp_path):
    checkpoint = torch.load(run_experiment("trainer.max_epochs=1") / "checkpoints" / "last.ckpt", weights_only=True)
    for name in ("loops", "optimizer_states", "epoch", "lr_schedulers", "global_step"):
        torch.save({**checkpoint, name: None}, tmp_path / "x.ckpt")
        with pytest.raises(UserError, match=f"x.ckpt is damaged: its {name} is none to go on from"):
            run_experiment(f"resume={tmp_path / 'x.ckpt'}", "trainer.max_epochs=1", folder="other")
