"""Training on cached features with an epoch as one Lightning batch: what Lightning does for each batch is left out.

A step on cached features takes less than a millisecond, a fraction of what a trainer's hooks, meters and loaders take
for it. Batches, their order, what is random in them and each step's arithmetic are those of training batch by batch, so
that weights and metrics are the same to the last bit; so are the checkpoints, and either way goes on from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from eventclip.models.classifier import Prediction
from eventclip.training.module import LOSSES, LitEventClassifier
from eventclip.training.optim import AdamWarmupCosine


class StepCallback(Callback):
    """A callback that has something to do between two steps of an epoch that is one batch."""

    def on_step_end(self, trainer: Trainer) -> None:
        """Called after each step but an epoch's last, for which the hooks of batch and epoch come."""


class LitWholeEpochs(LitEventClassifier):
    """Train on features, an epoch in one Lightning batch; validate and test as :class:`LitEventClassifier` does.

    A batch of training is what :class:`eventclip.datasets.samplers.EpochLoader` gives. Callbacks' hooks for batches are
    called once an epoch; those that must act between two steps are each a :class:`StepCallback`.
    """

    def setup(self, stage: str) -> None:
        """Tell Lightning that a batch is more than one step."""
        self.automatic_optimization = False

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Nothing yet: each step keys its own randomness."""

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Take the steps that are left of an epoch."""
        trainer: Any = self.trainer
        optimizer, schedule = cast("LightningOptimizer", self.optimizers()), cast("LRScheduler", self.lr_schedulers())
        between = [callback for callback in trainer.callbacks if isinstance(callback, StepCallback)]
        monitors = [callback for callback in trainer.callbacks if isinstance(callback, LearningRateMonitor)]
        learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        draws = self.drops or not type(self.classifier.adapter).__module__.startswith("eventclip.")
        first = self._steps_per_epoch - len(batch["batches"])
        seen, total = [], torch.zeros((), device=self.device)
        for number, part in enumerate(_split(batch), start=first):
            if number > first:
                for callback in between:
                    callback.on_step_end(trainer)
                trainer.fit_loop.epoch_loop._batches_that_stepped += 1  # noqa: SLF001  (the axis of logs)
                for monitor in monitors:
                    monitor.on_train_batch_start(trainer, self)
            if draws:
                self.key_randomness(number, part["index"])
            prediction = self(part)
            loss: Tensor = LOSSES[self.loss](getattr(prediction, self.loss), part["label"])
            for parameter in learning:
                parameter.grad = None
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total = total + loss.detach() * len(part["label"])
            seen.append((prediction.logits.detach(), prediction.probabilities.detach(), part["label"]))
            self._tell_loss(loss.detach())
            if 0 < trainer.max_steps <= trainer.global_step:
                break
        logits, probabilities, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
        self._update("fit", Prediction(logits, probabilities, logits.unsqueeze(1)), labels)
        mean = total / len(labels)
        self.log("fit/loss", mean, batch_size=1, prog_bar=True, logger=False, on_step=False, on_epoch=True)
        self.log("fit/loss_epoch", mean, batch_size=1, on_step=False, on_epoch=True)
        return mean

    def _tell_loss(self, loss: Tensor) -> None:
        """Log a step's loss where it is due."""
        trainer: Any = self.trainer
        step = trainer.fit_loop.epoch_loop._batches_that_stepped  # noqa: SLF001
        if trainer.loggers and trainer.log_every_n_steps and (step + 1) % trainer.log_every_n_steps == 0:
            told = {"fit/loss_step": float(loss), "epoch": trainer.current_epoch}
            for logger in trainer.loggers:
                logger.log_metrics(told, step=step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count batches and steps as training batch by batch does."""
        super().on_save_checkpoint(checkpoint)
        fit = checkpoint["loops"]["fit_loop"]
        fit |= _counted_by_batch(fit[_BATCHES], checkpoint["global_step"], self._steps_per_epoch)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count epochs and steps, whichever way wrote the checkpoint."""
        super().on_load_checkpoint(checkpoint)
        if self.trainer.state.fn == TrainerFn.FITTING:
            fit = checkpoint["loops"]["fit_loop"]
            fit |= _counted_by_epoch(fit[_BATCHES], checkpoint["global_step"], self._steps_per_epoch)

    @property
    def _steps_per_epoch(self) -> int:
        steps: int = self.trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]
        return steps


def suits(trainer: Any, lit: LitEventClassifier) -> bool:
    """Whether training on cached features may take whole epochs: nothing that was asked for needs batches of its own.

    Several processes put their gradients together batch by batch, autocast keeps weights until its block ends, and
    another's callback, optimizer or profiler may look at batches.
    """
    return (
        trainer.world_size == 1
        and trainer.precision == "32-true"
        and trainer.accumulate_grad_batches == 1
        and trainer.gradient_clip_val is None
        and (trainer.limit_train_batches, trainer.overfit_batches, trainer.val_check_interval) == (1.0, 0.0, 1.0)
        and not trainer.fast_dev_run
        and isinstance(trainer.profiler, PassThroughProfiler)
        and isinstance(lit.optim, AdamWarmupCosine)
        and all(type(c).__module__.startswith("eventclip.") or _looks_at_epochs(c) for c in trainer.callbacks)
    )


def _looks_at_epochs(callback: Callback) -> bool:
    if isinstance(callback, ModelCheckpoint):
        return not callback._every_n_train_steps and callback._train_time_interval is None  # noqa: SLF001
    return isinstance(callback, LearningRateMonitor | ProgressBar)


def _split(batch: dict[str, Any]) -> Iterator[dict[str, Tensor]]:
    """The batches of an epoch, one after the other."""
    order, sizes = torch.cat(batch["batches"]), [len(rows) for rows in batch["batches"]]
    names = ("features", "valid", "label", "index")
    for parts in zip(*(batch[name][order].split(sizes) for name in names), strict=True):
        yield dict(zip(names, parts, strict=True))


_BATCHES, _AUTOMATIC = "epoch_loop.batch_progress", "epoch_loop.automatic_optimization.optim_progress"
_MANUAL, _SCHEDULE = "epoch_loop.manual_optimization.optim_step_progress", "epoch_loop.scheduler_progress"
_STAGES = ("ready", "started", "processed", "completed")


def _counted_by_batch(progress: dict[str, Any], steps: int, steps_per_epoch: int) -> dict[str, Any]:
    """Progress in epochs -> a fit loop's state after so many steps, as training batch by batch has it."""
    own = _in_epoch(steps, steps_per_epoch)
    over = bool(progress["current"]["processed"]) and own == steps_per_epoch
    count = dict.fromkeys(_STAGES, own) | {"completed": own if progress["current"]["completed"] else own - 1}
    return {
        _BATCHES: {**_counts(count, before=steps - own), "is_last_batch": over},
        _SCHEDULE: _steps(steps, own, "ready", "completed"),
        _AUTOMATIC: {
            "optimizer": {
                "step": _steps(steps, own, "ready", "completed"),
                "zero_grad": _steps(steps, own, "ready", "completed", "started"),
            }
        },
        _MANUAL: _steps(0, 0, "ready", "completed"),
    }


def _counted_by_epoch(progress: dict[str, Any], steps: int, steps_per_epoch: int) -> dict[str, Any]:
    """Progress in batches -> a fit loop's state after so many steps, where a batch is an epoch."""
    own = _in_epoch(steps, steps_per_epoch)
    over = own == steps_per_epoch
    reached = {"ready": 1, "started": 1, "processed": int(over), "completed": 0}
    if over and progress["current"]["completed"] == own:
        reached["completed"] = 1
    return {
        _BATCHES: {**_counts(reached, before=(steps - own) // steps_per_epoch), "is_last_batch": over},
        _MANUAL: _steps(steps, own, "ready", "completed"),
    }


def _in_epoch(steps: int, steps_per_epoch: int) -> int:
    """Steps done of the epoch in which the last of ``steps`` was."""
    return (steps - 1) % steps_per_epoch + 1 if steps else 0


def _counts(current: dict[str, int], *, before: int) -> dict[str, dict[str, int]]:
    return {"total": {stage: before + count for stage, count in current.items()}, "current": current}


def _steps(total: int, current: int, *stages: str) -> dict[str, dict[str, int]]:
    return {"total": dict.fromkeys(stages, total), "current": dict.fromkeys(stages, current)}
