"""The order of samples: keyed by (seed, epoch), shared among the ranks, resumable between any two batches."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from eventclip.datasets.dataset import Batch, Sample
from eventclip.errors import UserError
from eventclip.rng import generator

Position = Callable[[], tuple[int, int]]
"""Tells (epoch, batches of it already trained on) at the moment it is called."""

Collate = Callable[[list[Sample]], Batch]
"""Samples -> a batch."""


class SharedBatch(list[tuple[int, int]]):
    """Keys of the samples that one process sees of a batch of all processes together.

    Args:
        keys: (epoch, position) each.
        share: how many recordings are this process's, and how many all processes'. 0 of its own where it only looks
            on, at one sample of another.
    """

    def __init__(self, keys: Iterable[tuple[int, int]], share: tuple[int, int]) -> None:
        super().__init__(keys)
        self.share = share


class TrainingBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, position) keys: each epoch a fresh permutation, cut into batches, shared among the ranks.

    The order depends on seed and epoch alone. Of global batch g, rank r of R gets every R-th sample from its r-th
    on, so R processes with batches of B/R see together what one process sees with batches of B. The last batch of an
    epoch may be shared unevenly, down to ranks that only look on; what a rank has of it stands with every batch.

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

    def __iter__(self) -> Iterator[SharedBatch]:
        epoch, done = self.position()
        order = generator(self.seed, "order", epoch=epoch).permutation(self.size)
        for start in range(done * self.batch_size, self.size, self.batch_size):
            batch = order[start : start + self.batch_size]
            own = batch[self.rank :: self.world_size]
            # Every rank must take part in every step: one without a sample of its own looks at another's.
            seen = own if len(own) else batch[:1]
            yield SharedBatch(((epoch, int(i)) for i in seen), (len(own), len(batch)))


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


class _Sharing(Dataset[Sample]):
    """The samples of a data set, and with a batch of them the share that its keys came with."""

    def __init__(self, samples: Dataset[Sample]) -> None:
        self.samples = samples

    def __getitem__(self, key: Any) -> Sample:
        return self.samples[key]

    def __getitems__(self, keys: SharedBatch) -> tuple[list[Sample], tuple[int, int]]:
        return [self.samples[key] for key in keys], keys.share


class _Collate:
    """Samples and share -> a batch with ``share``."""

    def __init__(self, collate: Collate) -> None:
        self.collate = collate

    def __call__(self, fetched: Any) -> Batch:
        samples, share = fetched
        return {**self.collate(samples), "share": share}


class Resumable:
    """What Lightning stores of a training loader with a checkpoint, and refuses to go on without.

    Args:
        batches: the order of the samples.
    """

    def __init__(self, batches: TrainingBatches) -> None:
        self._batches = batches

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


class ResumableLoader(Resumable, DataLoader[Sample]):
    """A training loader that Lightning stores with a checkpoint and that refuses to go on with other data.

    A batch has ``share``, how many of its recordings are this process's and how many all processes' together.

    Args:
        dataset: samples.
        batches: their order.
        collate: samples -> batch.
        num_workers: processes that read and render; 0 = in this process.
        pin_memory: stage batches for the copy to a GPU.
    """

    def __init__(
        self,
        dataset: Dataset[Sample],
        batches: TrainingBatches,
        *,
        collate: Collate,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        Resumable.__init__(self, batches)
        DataLoader.__init__(
            self,
            _Sharing(dataset),
            batch_sampler=batches,
            collate_fn=_Collate(collate),
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            worker_init_fn=heed_parent_only,
        )


class EpochLoader(Resumable):
    """A training loader that gives what is left of an epoch at once, for samples that are at hand; for one process.

    What it gives is a batch of all samples, in the data set's order, and with it ``batches``: the positions of the
    samples of each batch that is to come, (b,) int64 each, in the order that :class:`ResumableLoader` has.

    Args:
        epoch: number of an epoch -> all its samples as one batch.
        batches: their order.
    """

    def __init__(self, epoch: Callable[[int], Batch], batches: TrainingBatches) -> None:
        super().__init__(batches)
        self._epoch = epoch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Batch]:
        keys = list(self._batches)
        yield {**self._epoch(keys[0][0][0]), "batches": [torch.tensor([i for _, i in batch]) for batch in keys]}


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
