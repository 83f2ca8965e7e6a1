"""Runs that a cluster preempts: save together, ask Slurm for another turn, and leave in good order.

Lightning's own requeue saves inside the signal handler, where ranks out of step wait for each other for ever, and takes
SIGTERM for the end of a finished run. Here the handler only notes the signal (`cluster`), and all ranks decide
together between two batches.
"""

from __future__ import annotations

import logging
import re
import signal
import subprocess
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from eventclip import cluster
from eventclip.errors import UserError
from eventclip.training.checkpoints import LastCheckpoint
from eventclip.training.whole_epochs import StepCallback

log = logging.getLogger(__name__)

COMES_AGAIN = 75
"""Exit status of a run that left to be started again (sysexits' EX_TEMPFAIL): nobody takes it for a finished one."""

Signals = frozenset[signal.Signals]


def slurm_environment() -> list[SLURMEnvironment]:
    """The cluster plugin for the Trainer: Slurm's where Slurm started this process, without Lightning's own requeue.

    Raises:
        UserError: Slurm was asked for tasks in a way that does not say where they run.
    """
    if not SLURMEnvironment.detect():
        return []
    try:
        return [SLURMEnvironment(auto_requeue=False)]
    except RuntimeError as error:
        raise UserError(" ".join(str(error).split())) from error


class Requeue(Checkpoint, StepCallback):
    """Where a watched signal came: save, requeue the Slurm job if that is due, and exit with :data:`COMES_AGAIN`.

    The ranks agree after each batch, so that all of them save the same step, at the price of one number reduced over
    the ranks per batch (nothing where there is one process). During validation and test nothing is saved: the run goes
    on from the last checkpoint that was.

    SIGUSR1 means "your time is nearly over": the job is requeued. SIGTERM precedes a kill for many reasons: the job is
    requeued if Slurm says that it is being preempted, and never if it was cancelled; an operator's ``scontrol requeue``
    needs no second one. Outside Slurm both save and exit.
    """

    def __init__(self) -> None:
        self._leaving: Signals = frozenset()
        self._step = -1
        self._batches_of_all_ranks = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Keep Lightning from handling signals: its SIGTERM handler waits for the other ranks inside the handler."""
        if cluster.watching():
            connector: Any = trainer._signal_connector  # noqa: SLF001  (there is no public way)
            connector.register_signal_handlers = lambda: None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse ranks that stand at different steps, as a file system that shows them different files may cause.

        Raises:
            UserError: they do.
        """
        self._step = trainer.global_step
        if trainer.world_size > 1:
            lowest, highest = (_reduced(trainer, trainer.global_step, how) for how in ("min", "max"))
            if lowest != highest:
                raise UserError(
                    f"the processes start at different steps, {lowest} to {highest}: they must see the same "
                    f"checkpoints, so put the run's folder on a file system that all nodes share"
                )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Leave, now that the step that was saved has reached the loggers too."""
        self._leave_if_saved(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave, as between two batches."""
        self._leave_if_saved(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Decide, unless a batch of an accumulated step is missing, or the epoch's end is (see LastCheckpoint)."""
        if trainer.global_step != self._step and not trainer.is_last_batch:
            self._save_if_asked(trainer)

    def on_step_end(self, trainer: Trainer) -> None:
        """Decide within an epoch that is trained on as a whole."""
        self._save_if_asked(trainer)
        self._leave_if_saved(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide for the last batch, after validation."""
        self._save_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What is left is the test; if it cannot be had either, its first batch tells."""
        self._leaving = frozenset()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the batches that every rank has."""
        self._batches_of_all_ranks = _fewest(trainer, trainer.num_val_batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the batches that every rank has."""
        self._batches_of_all_ranks = _fewest(trainer, trainer.num_test_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Decide; what this evaluation has found so far is found again."""
        if batch_idx < self._batches_of_all_ranks:
            signals = _signals_of_any(trainer)
            if signals:
                self._leave(trainer, signals)

    on_test_batch_end = on_validation_batch_end

    def _save_if_asked(self, trainer: Trainer) -> None:
        self._step = trainer.global_step
        if not self._leaving and (signals := _signals_of_any(trainer)):
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, LastCheckpoint):
                    callback.write(trainer)
            self._leaving = signals

    def _leave_if_saved(self, trainer: Trainer) -> None:
        if self._leaving:
            self._leave(trainer, self._leaving)

    def _leave(self, trainer: Trainer, signals: Signals) -> None:
        log.warning("%s at step %d: leaving", _names(signals), trainer.global_step)
        if trainer.is_global_zero:
            requeue_if_due(signals)
        trainer.strategy.barrier("all ranks leave together")
        raise SystemExit(COMES_AGAIN)


def leave_if_asked() -> None:
    """Leave work before training, such as the filling of the feature cache, as soon as a watched signal came.

    To be called often, where what is done is kept. Only the first process leaves; Slurm ends the others with it.

    Raises:
        SystemExit: with :data:`COMES_AGAIN`.
    """
    signals = cluster.received()
    if signals and getattr(rank_zero_only, "rank", 0) == 0:
        log.warning("%s before training: leaving", _names(signals))
        requeue_if_due(signals)
        raise SystemExit(COMES_AGAIN)


def requeue_if_due(signals: Signals) -> bool:
    """Ask Slurm to start this job again, unless it was cancelled, is over, or is being requeued already.

    Args:
        signals: the signals that this run leaves for.

    Returns:
        Whether Slurm will start it again at this request.
    """
    job = cluster.slurm_job()
    if job is None:
        log.warning(
            "no Slurm job, so nobody starts this run again: give the same command once more to go on, "
            "for a training with hydra.run.dir=FOLDER, its run's folder"
        )
        return False
    state = _scontrol("-o", "show", "job", job)
    if state is None:
        return False
    running = re.search(r"\bJobState=RUNNING\b", state) is not None
    preempted = re.search(r"\bPreemptTime=\d", state) is not None
    if not running or (signal.SIGTERM in signals and not preempted):
        log.warning("Slurm job %s was cancelled, requeued or is over: not asking for another start", job)
        return False
    if _scontrol("requeue", job) is None:
        return False
    log.warning("Slurm job %s is requeued", job)
    return True


def _names(signals: Signals) -> str:
    return " and ".join(sorted(number.name for number in signals))


def _scontrol(*words: str) -> str | None:
    """Output of ``scontrol``; None, told, where it fails."""
    command = ["scontrol", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
        if done.returncode == 0:
            return done.stdout
        reason = " ".join(done.stderr.split())
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    log.warning("'%s' failed (%s): submit the same job again to go on", " ".join(command), reason)
    return None


def _signals_of_any(trainer: Trainer) -> Signals:
    """The signals that any rank has received; the same on all ranks."""
    received = cluster.received()
    if trainer.world_size == 1:
        return received
    decide = trainer.strategy.reduce_boolean_decision
    if not decide(bool(received), all=False):
        return frozenset()
    return frozenset([number for number in cluster.WATCHED if decide(number in received, all=False)])


def _fewest(trainer: Trainer, batches: list[int | float]) -> int:
    own = int(sum(batches))
    return own if trainer.world_size == 1 else _reduced(trainer, own, "min")


def _reduced(trainer: Trainer, value: int, how: str) -> int:
    number: Tensor = torch.tensor(value, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(number, reduce_op=how))
