"""Fine-tuning trains, stores and resumes exactly what was asked for, and pays for nothing else."""

import csv
import json

import pytest
import torch

from eventclip.config.composition import command
from eventclip.training.experiment import assemble, make_trainer, quieten

# A resumed run of these tests has a folder of its own, where "best.ckpt" begins anew.
pytestmark = pytest.mark.filterwarnings("ignore:The dirpath has changed")

TOWER = 16  # tensors of the tiny ViT: 1 layer, its attention, norms, embeddings and projection
CHOICES = {"full": TOWER + 4, "bias": 8, "layernorm": 8, "conv1": 1, "projection": 1, "class_token": 1, "lora": 8}


def tuned(choice):
    return (f"tuning={choice}", "tuning.lora_rank=4")


def stored(path):
    return torch.load(path, weights_only=True)["state_dict"]


def in_tower(state):
    return [name for name in state if name.startswith("encoder.visual.")]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_checkpoint_holds_what_learned_and_comes_back_with_it(run_experiment, compose_experiment, choice):
    folder = run_experiment(*tuned(choice), "trainer.max_epochs=1", experiment="finetune_ncaltech")
    state = stored(folder / "checkpoints" / "last.ckpt")
    parts = assemble(compose_experiment(*tuned(choice), experiment="finetune_ncaltech"))
    learns = {name: p for name, p in parts.classifier.named_parameters() if p.requires_grad}
    assert set(state) == set(learns)
    assert "adapter.text_features" in state
    assert in_tower(state)
    moved = [name for name in in_tower(state) if not torch.equal(state[name], learns[name])]
    assert moved
    parts.classifier.load_learned_state_dict(state)
    assert all(torch.equal(p, state[name]) for name, p in learns.items())


@pytest.mark.parametrize("choice", ["full", "lora"])
def test_a_tuned_run_resumed_anywhere_has_the_same_weights(run_experiment, keep_every_step, choice):
    kept, overrides = keep_every_step
    unbroken = run_experiment(*tuned(choice), *overrides, "trainer.max_epochs=2", experiment="finetune_ncaltech")
    expected = stored(unbroken / "checkpoints" / "last.ckpt")
    steps = sorted(kept.glob("step_*.ckpt"))
    assert len(steps) == 6
    for step in steps[:-1]:
        resume = ("trainer.max_epochs=2", f"resume={step}")
        resumed = run_experiment(*tuned(choice), *resume, experiment="finetune_ncaltech", folder=step.stem)
        ours = stored(resumed / "checkpoints" / "last.ckpt")
        assert ours.keys() == expected.keys()
        assert all(torch.equal(ours[name], expected[name]) for name in expected), step


@pytest.mark.parametrize("choice", ["frozen", "conv1", "lora"])
def test_only_what_learns_has_gradients_and_state(compose_experiment, choice):
    cfg = compose_experiment(*tuned(choice), "trainer.max_epochs=1", experiment="finetune_ncaltech")
    parts = assemble(cfg)
    assert parts.classifier.encoder.text_tower is None
    assert not [name for name, _ in parts.lit.named_parameters() if "token_embedding" in name or "text_tower" in name]
    with_gradient = set()
    for name, parameter in parts.classifier.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda _, name=name: with_gradient.add(name))
    quieten()
    trainer = make_trainer(cfg, parts.metadata["class_names"])
    trainer.fit(parts.lit, datamodule=parts.datamodule)
    learns = {name: p for name, p in parts.classifier.named_parameters() if p.requires_grad}
    assert with_gradient == set(learns)
    assert all(p.grad is None for p in parts.classifier.parameters() if not p.requires_grad)
    held = {id(p): state for p, state in trainer.optimizers[0].state.items()}
    assert set(held) == {id(p) for p in learns.values()}
    moments = sum(state["exp_avg"].numel() + state["exp_avg_sq"].numel() for state in held.values())
    assert moments == 2 * sum(p.numel() for p in learns.values())


def test_clips_own_weights_learn_at_a_tenth_and_it_is_logged(run_experiment):
    folder = run_experiment("trainer.max_epochs=1", experiment="finetune_ncaltech")
    with (folder / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["lr-Adam/head"]]
    assert rows
    for row in rows:
        assert float(row["lr-Adam/clip"]) == pytest.approx(float(row["lr-Adam/head"]) / 10)


def test_fine_tuning_trains_on_shots_or_on_everything(run_experiment):
    for shots, trained in ((2, 6), ("null", 18)):
        folder = run_experiment(
            f"fewshot.shots={shots}", "trainer.max_epochs=1", experiment="finetune_ncaltech", folder=f"shots_{shots}"
        )
        assert json.loads((folder / "results.json").read_text())["data"]["recordings"]["training"] == trained


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("adapter=joint",), "JointAdapter has .* set adapter=text, or tuning=frozen"),
        (("tuning.parts=ln",), "tuning=ln is unknown"),
        (("tuning.parts=[bias,lora]",), "cannot be combined"),
        (("tuning=lora", "tuning.lora_rank=1000"), "lora_rank=1000"),
        (("tuning=lora", "tuning.lora_rank=four"), "tuning cannot be built"),
        (("tuning.clip_factor=0",), "clip_factor must be above 0"),
        (("clip.precision=bf16",), "set clip.precision=fp32"),
    ],
)
def test_a_mistake_is_one_sentence(run_experiment, overrides, message):
    with pytest.raises(SystemExit, match=message) as told:
        command(lambda: run_experiment(*overrides, experiment="finetune_ncaltech"))()
    assert "\n" not in str(told.value)
