"""A log tells how a training goes in a few lines, and what cannot be trained on before it begins."""

import io
import logging
import sys
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import TQDMProgressBar

from eventclip.errors import RecordingError
from eventclip.training import experiment
from eventclip.training.progress import EpochLines, epochs_of, progress


def trainer_of(**given):
    usual = {"max_epochs": 30, "max_steps": -1, "num_training_batches": 4, "accumulate_grad_batches": 1}
    return SimpleNamespace(**{"current_epoch": 0, "is_global_zero": True, "callback_metrics": {}, **usual, **given})


def logged(trainer, epochs, caplog, validate=lambda epoch: False):
    lines = EpochLines()
    with caplog.at_level(logging.INFO, logger="eventclip"):
        for trainer.current_epoch in range(epochs):
            trainer.callback_metrics["fit/loss"] = 1 / (1 + trainer.current_epoch)
            if validate(trainer.current_epoch):
                trainer.callback_metrics["val/top1_probabilities"] = 0.5
                lines.on_validation_end(trainer, None)
            lines.on_train_epoch_end(trainer, None)
    return caplog.messages


@pytest.mark.parametrize("epochs", [1, 3, 10, 11, 30, 101])
def test_a_run_has_ten_lines_about_epochs_at_most(caplog, epochs):
    messages = logged(trainer_of(max_epochs=epochs), epochs, caplog)
    assert min(epochs, 5) <= len(messages) <= 11
    assert messages[-1] == f"epoch {epochs} of {epochs}: loss {1 / epochs:.4f}"


def test_a_run_without_an_end_has_ever_fewer_lines(caplog):
    messages = logged(trainer_of(max_epochs=-1), 100, caplog)
    assert [message.split(":")[0] for message in messages] == [f"epoch {2**k}" for k in range(7)]


def test_validation_is_told_of_the_epoch_it_was_made_in(caplog):
    messages = logged(trainer_of(max_epochs=4), 4, caplog, validate=lambda epoch: epoch % 2 == 1)
    assert ["validation accuracy 0.5000" in message for message in messages] == [False, True, False, True]


def test_another_process_looks_too_but_says_nothing(caplog):
    """Metrics of all processes are put together where one looks at them: who does not would keep all waiting."""
    looked = []

    class Metrics(SimpleNamespace):
        @property
        def callback_metrics(self):
            looked.append(self.current_epoch)
            return {}

    given = vars(trainer_of(is_global_zero=False))
    given.pop("callback_metrics")
    lines, trainer = EpochLines(), Metrics(**given)
    for trainer.current_epoch in range(30):
        lines.on_train_epoch_end(trainer, None)
    assert looked == list(range(30))
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("given", "epochs"),
    [({}, 30), ({"max_steps": 8}, 2), ({"max_epochs": -1, "max_steps": 9}, 3), ({"max_epochs": -1}, None)],
)
def test_the_number_of_epochs_is_known_where_there_is_one(given, epochs):
    assert epochs_of(trainer_of(**given)) == epochs


def test_a_terminal_has_lightnings_bar_and_a_log_lines(monkeypatch):
    assert isinstance(progress(), EpochLines)
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert isinstance(progress(), TQDMProgressBar)


def test_a_sensor_that_is_not_known_is_told_before_training(run_experiment, monkeypatch):
    monkeypatch.setattr(experiment, "make_trainer", lambda *_: pytest.fail("training began"))
    with pytest.raises(RecordingError, match=r"data\.sensor_hw="):
        run_experiment("data.sensor_hw=null")


def test_a_run_in_a_log_says_stages_and_no_bar(run_experiment, capfd, caplog):
    caplog.set_level(logging.INFO, logger="eventclip")
    run_experiment("callbacks.progress={_target_: eventclip.training.progress.progress}", "trainer.max_epochs=2")
    stages = [line for line in capfd.readouterr().err.splitlines() if " batches in " in line]
    assert [line.split(":")[0] for line in stages] == ["training", "testing"]
    assert [message.split(":")[0] for message in caplog.messages if message.startswith("epoch ")] == [
        "epoch 1 of 2",
        "epoch 2 of 2",
    ]
