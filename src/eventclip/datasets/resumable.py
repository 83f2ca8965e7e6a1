"""Where a training stands in its data, told from the optimizer steps: what every data module of ours needs."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from eventclip.datasets.dataset import Sample
from eventclip.datasets.samplers import Collate, EvaluationBatches, ResumableLoader, TrainingBatches, heed_parent_only


class ResumableDataModule(LightningDataModule):
    """A data module whose training goes on with the very batch that would have come next.

    Attributes:
        batch_size: samples per optimizer step, over all processes together.
        seed: of their order.
    """

    batch_size: int
    seed: int

    @property
    @abstractmethod
    def training_size(self) -> int:
        """Number of samples in an epoch."""

    def ranks(self) -> dict[str, int]:
        """Which of how many processes this is."""
        if self.trainer is None:
            return {"rank": 0, "world_size": 1}
        return {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch, whatever the number of processes."""
        accumulate = 1 if self.trainer is None else self.trainer.accumulate_grad_batches
        return math.ceil(self._batches_per_epoch / accumulate)

    @property
    def _batches_per_epoch(self) -> int:
        batches = math.ceil(self.training_size / self.batch_size)
        limit = 1.0 if self.trainer is None else self.trainer.limit_train_batches
        return min(batches, limit) if isinstance(limit, int) else int(batches * limit)

    def position(self) -> tuple[int, int]:
        """Epoch and batches done, told from the optimizer steps: what the weights have really seen."""
        if self.trainer is None:
            return 0, 0
        epoch, steps = divmod(self.trainer.global_step, self.steps_per_epoch)
        return epoch, steps * self.trainer.accumulate_grad_batches

    def training_batches(self) -> TrainingBatches:
        """The order of the samples of training."""
        return TrainingBatches(
            self.training_size, self.batch_size, seed=self.seed, position=self.position, **self.ranks()
        )

    def training_loader(self, samples: Dataset[Sample], collate: Collate, *, workers: int) -> DataLoader[Sample]:
        """Training batches, resumable between any two of them."""
        batches = self.training_batches()
        return ResumableLoader(
            samples, batches, collate=collate, num_workers=workers, pin_memory=torch.cuda.is_available()
        )

    def ordered_loader(
        self, samples: Dataset[Sample], size: int, collate: Collate, *, batch_size: int, workers: int
    ) -> DataLoader[Sample]:
        """Each of so many samples once, in order, shared among the processes."""
        return DataLoader(
            samples,
            batch_sampler=EvaluationBatches(size, batch_size, **self.ranks()),
            collate_fn=collate,
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            worker_init_fn=heed_parent_only,
        )
