"""Adam with the paper's learning rate: linear warm-up, then half a cosine (EventCLIP, section 4.1)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from eventclip.errors import UserError
from eventclip.models.tuning import ParameterGroup


def warmup_cosine(step: int, total_steps: int, *, warmup: float = 0.05, floor: float = 0.01) -> float:
    """Learning rate of a step as a fraction of the base rate.

    Args:
        step: s = 0, 1, ... of ``total_steps``.
        total_steps: n, optimizer steps of the whole training.
        warmup: length of the warm-up w as a fraction of n; w is not rounded.
        floor: smallest fraction: where warm-up starts and what the cosine falls towards.

    Returns:
        For s < w the line from ``floor`` towards 1; then floor + (1 - floor) (1 + cos(pi (s - w) / (n - w))) / 2,
        whose end, ``floor`` itself, lies one step after the last.
    """
    length = warmup * total_steps
    if step < length:
        return floor + (1.0 - floor) * step / length
    return floor + (1.0 - floor) * (1.0 + math.cos(math.pi * (step - length) / (total_steps - length))) / 2.0


class AdamWarmupCosine:
    """Recipe of optimizer and schedule, without weight decay.

    Args:
        lr: base learning rate, of the adapter and of LoRA.
        warmup: warm-up as a fraction of all steps, in [0, 1).
        floor: smallest learning rate as a fraction of the base rate, in [0, 1].
    """

    def __init__(self, *, lr: float, warmup: float = 0.05, floor: float = 0.01) -> None:
        if not lr > 0:
            raise UserError(f"optim.lr must be above 0, got {lr}")
        if not 0 <= warmup < 1 or not 0 <= floor <= 1:
            raise UserError(f"optim.warmup must be in [0, 1) and optim.floor in [0, 1], got {warmup} and {floor}")
        self.lr, self.warmup, self.floor = lr, warmup, floor

    def __call__(
        self, parameters: Iterable[nn.Parameter] | Iterable[ParameterGroup], total_steps: int
    ) -> tuple[torch.optim.Adam, LambdaLR]:
        """Build the optimizer and its schedule over ``total_steps`` steps.

        Args:
            parameters: what learns at ``lr``, or groups of it, each at its own fraction of ``lr``.
            total_steps: optimizer steps of the whole training.
        """
        listed: list[Any] = [
            {"params": given.parameters, "lr": self.lr * given.factor, "name": given.name}
            if isinstance(given, ParameterGroup)
            else given
            for given in parameters
        ]
        if not listed:
            raise UserError(
                "nothing learns, neither in the adapter nor in CLIP: give an adapter with parameters, such as "
                "TextAdapter, or tune CLIP"
            )
        optimizer = torch.optim.Adam(listed, lr=self.lr)

        def factor(step: int) -> float:
            return warmup_cosine(step, total_steps, warmup=self.warmup, floor=self.floor)

        return optimizer, LambdaLR(optimizer, factor)


def scheduled(trainer: Trainer, recipe: AdamWarmupCosine, groups: Iterable[ParameterGroup]) -> OptimizerLRScheduler:
    """What a Lightning module answers when asked for its optimizer: the schedule runs per step over the whole training.

    Args:
        trainer: whose data module tells ``steps_per_epoch``.
        recipe: of optimizer and schedule.
        groups: what learns.
    """
    if not hasattr(getattr(trainer, "datamodule", None), "steps_per_epoch"):
        raise UserError(
            "the schedule needs to know the steps of an epoch: give trainer.fit a data module of eventclip in place of "
            "loaders"
        )
    # Not trainer.estimated_stepping_batches: it starts the training loader before a checkpoint's position is known.
    total = (trainer.max_epochs or 1) * trainer.datamodule.steps_per_epoch  # type: ignore[attr-defined]
    if trainer.max_steps > 0:
        total = min(total, trainer.max_steps) if (trainer.max_epochs or -1) > 0 else trainer.max_steps
    optimizer, schedule = recipe(groups, total)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
