"""The order of samples: keyed by (seed, epoch), dealt to the ranks, resumable between any two batches."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from eventclip.datasets.dataset import Sample
from eventclip.errors import UserError
from eventclip.rng import generator

Position = Callable[[], tuple[int, int]]
"""Tells (epoch, batches of it already trained on) at the moment it is called."""


class TrainingBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, position) keys: each epoch a fresh permutation, cut into global batches, dealt to the ranks.

    The order depends on seed and epoch alone. Of global batch g, rank r of R gets every R-th sample from its r-th
    on, so R processes with batches of B/R see together what one process sees with batches of B. The last batch of an
    epoch may be dealt unevenly (see :meth:`dealt`), down to ranks that only look on.

    Args:
        size: number of samples.
        batch_size: samples per optimizer step over all ranks together.
        seed: seed of the permutations.
        position: where training stands; asked each time an iteration begins, so that a resumed run goes on with
            the very batch that would have come next.
        rank: this process.
        world_size: R, the number of processes.
    """

    def __init__(
        self, size: int, batch_size: int, *, seed: int, position: Position, rank: int = 0, world_size: int = 1
    ) -> None:
        if size < 1:
            raise UserError("there is not a single recording to train on: raise fewshot.shots or check data.root")
        if batch_size < world_size:
            raise UserError(
                f"data.batch_size={batch_size} is the batch of all {world_size} processes together and must be at "
                f"least {world_size}"
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.position, self.rank, self.world_size = position, rank, world_size

    def __len__(self) -> int:
        return math.ceil(self.size / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, done = self.position()
        order = generator(self.seed, "order", epoch=epoch).permutation(self.size)
        for start in range(done * self.batch_size, self.size, self.batch_size):
            batch = order[start : start + self.batch_size]
            own = batch[self.rank :: self.world_size]
            # Every rank must take part in every step: one without a sample of its own looks at another's.
            yield [(epoch, int(i)) for i in (own if len(own) else batch[:1])]

    def dealt(self, batch: int) -> tuple[int, int]:
        """Samples of batch number ``batch`` of an epoch: (this rank's, all ranks'); 0 where this rank only looks on."""
        everyones = min(self.batch_size, self.size - batch * self.batch_size)
        return len(range(self.rank, everyones, self.world_size)), everyones


class EvaluationBatches(Sampler[list[tuple[int, int]]]):
    """Every sample once, in order; rank r of R takes every R-th, none twice and none dropped."""

    def __init__(self, size: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.own = range(rank, size, world_size)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.own) / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for start in range(0, len(self.own), self.batch_size):
            yield [(0, i) for i in self.own[start : start + self.batch_size]]


class ResumableLoader(DataLoader[Sample]):
    """A training loader that Lightning stores with a checkpoint and that refuses to go on with other data.

    Args:
        dataset: samples.
        batches: their order.
        num_workers: processes that read and render; 0 = in this process.
        pin_memory: stage batches for the copy to a GPU.
    """

    def __init__(
        self, dataset: Dataset[Sample], batches: TrainingBatches, *, num_workers: int, pin_memory: bool
    ) -> None:
        self._batches = batches
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=heed_parent_only,
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers that tell which order of which samples this run goes through, and where it stands."""
        epoch, done = self._batches.position()
        order = {"size": self._batches.size, "batch_size": self._batches.batch_size, "seed": self._batches.seed}
        return {"epoch": epoch, "batches": done, **order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that the run that wrote ``state`` went through the same samples in the same order.

        Raises:
            UserError: it did not, so going on would be neither that run nor a new one.
        """
        for name, value in self.state_dict().items():
            if name not in ("epoch", "batches") and state[name] != value:
                raise UserError(
                    f"the checkpoint was written with {name}={state[name]} in its training data and this run has "
                    f"{name}={value}: go on with the same fewshot, data.batch_size and seed, or set resume=null"
                )


def heed_parent_only(_: int) -> None:
    """Let a loader's worker end at its parent's order only.

    Slurm signals every process of a job. The one that trains saves and leaves in its own time, and needs its workers
    until then.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
