"""Unlabelled images as batches of simulated event views, each with the feature that it shall get."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from eventclip.datasets.dataset import PairedViews, Sample
from eventclip.datasets.image_views import (
    ImageDataset,
    RecordedViews,
    SimulatedViews,
    Targets,
    Together,
    collate_views,
    one_view,
)
from eventclip.datasets.images import Crops, HeldOut, Images, find_images, readable
from eventclip.datasets.pairs import Pairs
from eventclip.datasets.resumable import ResumableDataModule
from eventclip.datasets.samplers import heed_parent_only
from eventclip.datasets.sources import EventFiles
from eventclip.errors import UserError
from eventclip.events.frames import FrameRenderer
from eventclip.simulation.ranges import SimulationRanges

Teacher = Callable[[ImageDataset, int], Targets]
"""Images and a number of copies -> the feature that the frozen tower gives each of them."""


class ImageDataModule(ResumableDataModule):
    """Images of a folder, as batches of what an event camera would see of them.

    Args:
        root: folder with images, flat or nested.
        renderer: events -> frame.
        ranges: what camera, motion and scene of each view are drawn from.
        heldout: which images progress is told by.
        crops: which part of an image is seen in an epoch; None shows all of it always.
        keep_share: share of the samples that bring their image along.
        leave_out: folders directly in ``root`` that are not wanted.
        on_bad_image: "error", or "skip" to read all images once beforehand and leave out those that cannot be used.
        pairs: recordings of a real camera whose images are known, learned from as well.
        pair_files: reads them; None takes them as they are.
        batch_size: samples per optimizer step, over all processes together.
        num_workers: loader processes in each training process; results do not depend on it.
        seed: seed of everything drawn.
        progress: whether to show progress bars.

    Attributes:
        skipped: a sentence for each image that was left out.

    Raises:
        UserError: an option outside its range, or no images.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        renderer: FrameRenderer,
        ranges: SimulationRanges,
        heldout: HeldOut,
        crops: Crops | None = None,
        keep_share: float = 0.5,
        leave_out: Collection[str] = (),
        on_bad_image: str = "error",
        pairs: Pairs | None = None,
        pair_files: EventFiles | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        super().__init__()
        if batch_size < 2:
            raise UserError(f"batch_size must be 2 or more, got {batch_size}: views are told apart within a batch")
        if on_bad_image not in ("error", "skip"):
            raise UserError(f"on_bad_image must be error or skip, got {on_bad_image!r}")
        self.root, self.renderer, self.ranges, self.crops = Path(root).expanduser(), renderer, ranges, crops
        self.keep_share, self.batch_size, self.num_workers, self.seed = keep_share, batch_size, num_workers, seed
        self.pairs, self.pair_files = pairs, EventFiles() if pair_files is None else pair_files
        found, self.skipped = find_images(self.root, leave_out=leave_out), list[str]()
        if on_bad_image == "skip":
            found, self.skipped = readable(found, workers=max(num_workers, 1), progress=progress)
        self.learned, self.held_out = heldout(found, seed)
        self._training: Together
        self._validation: SimulatedViews
        self._simulated: SimulatedViews

    @property
    def training_size(self) -> int:
        """Number of images, and of pairs, that are learned from."""
        return len(self.learned) + (0 if self.pairs is None else len(self.pairs))

    @property
    def kept_share(self) -> float:
        """Share of the training samples that bring their image along; recordings bring none."""
        return self.keep_share * len(self.learned) / self.training_size

    def connect(self, *, image_size: int, teacher: Teacher, copies: int = 1) -> None:
        """Tell what is known only once CLIP is, and have the teacher look at every image.

        Args:
            image_size: side S of CLIP's input [px].
            teacher: gives the features of images.
            copies: how many parts of each image are seen; epoch e sees copy e modulo their number.
        """
        copies = 1 if self.crops is None else copies
        learned = ImageDataset(self.learned, image_size=image_size, crops=self.crops, seed=self.seed)
        held_out = ImageDataset(self.held_out, image_size=image_size)
        shown: dict[str, Any] = {"ranges": self.ranges, "renderer": self.renderer, "seed": self.seed}
        self._simulated = SimulatedViews(
            learned, teacher(learned, copies), copies=copies, keep_share=self.keep_share, **shown
        )
        parts: list[SimulatedViews | RecordedViews] = [self._simulated]
        if self.pairs is not None and len(self.pairs):
            images = Images(self.pairs.images, np.zeros(len(self.pairs), "S1"))
            transform = one_view(self.renderer, image_size, all_events=False)
            views = PairedViews(self.pairs, self.pair_files, transform, seed=self.seed)
            parts.append(RecordedViews(views, teacher(ImageDataset(images, image_size=image_size), 1)))
        self._training = Together(parts)
        self._validation = SimulatedViews(held_out, teacher(held_out, 1), purpose="held out", **shown)

    def train_dataloader(self) -> DataLoader[Sample]:
        """Training batches, resumable between any two of them.

        Raises:
            UserError: fewer samples in a batch than processes.
        """
        processes = self.ranks()["world_size"]
        if self.batch_size < processes:
            raise UserError(
                f"batch_size={self.batch_size} is the batch of all {processes} processes together and must be at least "
                f"{processes}"
            )
        return self.training_loader(self._training, collate_views, workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[Sample]:
        """One view of each held-out image, the same whenever it is asked for.

        Raises:
            UserError: fewer of them than processes.
        """
        processes = self.ranks()["world_size"]
        if len(self.held_out) < processes:
            raise UserError(
                f"{len(self.held_out)} held-out images cannot be shared among {processes} processes: give more images, "
                f"or fewer trainer.devices"
            )
        return self.ordered_loader(
            self._validation,
            len(self._validation),
            collate_views,
            batch_size=self.batch_size,
            workers=self.num_workers,
        )

    def views_once(self) -> Iterator[torch.Tensor]:
        """The views of one epoch of simulated images in their order, in batches: uint8 (B, C, S, S)."""
        size = len(self.learned)
        loader = DataLoader(
            self._simulated,
            batch_sampler=[[(0, i) for i in range(k, min(k + 64, size))] for k in range(0, size, 64)],
            collate_fn=collate_views,
            num_workers=self.num_workers,
            worker_init_fn=heed_parent_only,
        )
        for batch in loader:
            yield batch["views"]

    def some_targets(self, most: int) -> torch.Tensor:
        """Features that the frozen tower gives images learned from, at most so many, spread over all: (n, D)."""
        targets, size = self._simulated.targets, len(self.learned)
        rows = [targets[int(row)][0] for row in np.linspace(0, size - 1, min(size, most)).round()]
        return torch.from_numpy(np.stack(rows).astype(np.float32))

    def held_out_targets(self) -> NDArray[np.float32]:
        """Features that the frozen tower gives the held-out images: (n, D)."""
        rows = [self._validation.targets[row][0] for row in range(len(self.held_out))]
        return np.stack(rows).astype(np.float32)

    def shown_places(self, count: int) -> list[int]:
        """Positions of some held-out images, spread over all of them."""
        size = len(self.held_out)
        return [int(place) for place in np.linspace(0, size - 1, min(count, size)).round()]

    def shown_views(self, count: int) -> torch.Tensor:
        """Views of some held-out images, see :meth:`shown_places`: uint8 (n, C, S, S)."""
        return torch.stack([self._validation[0, place]["view"] for place in self.shown_places(count)])

    def shown_image(self, position: int) -> NDArray[np.uint8]:
        """A held-out image as CLIP gets it: uint8 (3, S, S)."""
        image: NDArray[np.uint8] = self._validation.images[0, position]["views"][0].numpy()
        return image

    def describe(self) -> dict[str, object]:
        """Plain values for ``results.json``: what was learned from and what was held out."""
        return {
            "root": str(self.root),
            "images": {"learned": len(self.learned), "held_out": len(self.held_out)},
            "pairs": 0 if self.pairs is None else len(self.pairs),
            "skipped": {"count": len(self.skipped), "causes": self.skipped[:20]},
            "checksums": {"training": self.learned.checksum(self.root), "held_out": self.held_out.checksum(self.root)},
        }
