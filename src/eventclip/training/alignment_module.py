"""The Lightning module of an alignment: an image tower that learns to see in event views what it saw in images."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from eventclip.errors import UserError
from eventclip.models.alignment import aligned_state, learning_tensors
from eventclip.models.encoder import ClipEncoder
from eventclip.models.tuning import parameter_groups
from eventclip.training.alignment_loss import AlignmentLoss, Spread, recall_at_1
from eventclip.training.optim import AdamWarmupCosine, scheduled

_AT_ONCE_ON_CPU = 16
# Where they fit the processor's cache and the allocator's kept blocks, seeing every view twice costs less than the
# memory of seeing all at once: EfficientNet-Lite0, a batch of 96, takes 79 ms a view in pieces of 16 and 103 ms whole
# (one thread), and 2.6 GB instead of 10.4.


class LitAlignment(LightningModule):
    """Align an image tower; its batches are those of :class:`eventclip.datasets.image_datamodule.ImageDataModule`.

    Args:
        encoder: CLIP, with what shall learn told by :func:`eventclip.models.tuning.tune`.
        loss: what is minimised.
        optim: recipe of optimizer and schedule.
        spread: of the images' features.
        kept_share: share of the samples that bring their image along.
        clip_factor: learning rate of CLIP's own weights as a fraction of the base rate.
        buffers: names of the tower's buffers that are part of what learned.
        views_at_once: how many views the tower sees at once; more of a batch are seen in pieces, each once more when
            its gradients are taken, which changes a result by rounding alone. None: 16 on a CPU, elsewhere all.
        metadata: plain values stored with every checkpoint.
        class_features: (K, D) unit text features, to tell zero-shot accuracy on the held-out images.
        labels: (n,) class of each held-out image.

    Attributes:
        history: what each validation found: "epoch", "recall", "cosine", and "zero_shot" where there are classes.
    """

    def __init__(
        self,
        encoder: ClipEncoder,
        loss: AlignmentLoss,
        optim: AdamWarmupCosine,
        *,
        spread: Spread,
        kept_share: float = 0.5,
        clip_factor: float = 1.0,
        buffers: Collection[str] = (),
        views_at_once: int | None = None,
        metadata: dict[str, Any] | None = None,
        class_features: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.loss, self.optim, self.spread = encoder, loss, optim, spread
        self.kept_share, self.clip_factor, self.buffer_names = kept_share, clip_factor, tuple(buffers)
        self.views_at_once, self.metadata = views_at_once, metadata or {}
        self.class_features, self.labels = class_features, labels
        self.strict_loading = False
        self.history: list[dict[str, float]] = []
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_fit_start(self) -> None:
        """Bring to the device, once, what every step needs."""
        self.spread = self.spread.to(self.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of a batch of all processes together, in each of them; their mean is what one process would find."""
        own, together = batch["share"]
        views, images = batch["views"], batch["images"]
        both = torch.cat([views.expand(-1, 3, -1, -1), images]) if len(images) else views
        features = self._features(both)
        seen, wanted = (
            self._of_all(rows[:own], together) for rows in (features[: len(views)], batch["targets"].to(features))
        )
        loss = self.loss.of_views(seen, wanted, self.spread)
        if self.loss.keep_images and self.kept_share:
            mine = batch["kept"] < own  # a process that only looks on has another's sample
            kept, before = features[len(views) :][mine], batch["targets"][batch["kept"][mine]]
            expected = self.kept_share * together / self.trainer.world_size
            loss = loss + self.loss.of_images(kept, before.to(kept), self.spread, expected)
        self.log("fit/loss", loss, batch_size=together, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin anew."""
        self._seen = []

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """See what the tower gives held-out views."""
        features = self._features(batch["views"])
        self._seen.append((batch["index"], features, batch["targets"].to(features)))

    def on_validation_epoch_end(self) -> None:
        """Tell recall@1 of a view's own image among all held-out ones, and the mean cosine to it.

        Raises:
            UserError: features that are not finite.
        """
        index, features, targets = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
        size = len(self.trainer.datamodule.held_out)  # type: ignore[attr-defined]
        index, features, targets = (self._of_all(rows, size) for rows in (index, features, targets))
        order = index.argsort()
        features, targets = features[order], targets[order]
        if not bool(features.isfinite().all()):
            raise UserError("the image tower gives features that are not finite: alignment diverged, lower optim.lr")
        found = {
            "recall": recall_at_1(features, targets),
            "cosine": float(F.cosine_similarity(features, targets).mean()),
        }
        if self.class_features is not None and self.labels is not None:
            logits = F.normalize(features, dim=-1) @ self.class_features.to(features).T
            labels = self.labels.to(index.device)[index[order]]
            found["zero_shot"] = float((logits.argmax(-1) == labels).float().mean())
        for name, value in found.items():
            self.log(f"val/{name}", value, prog_bar=name == "recall", sync_dist=True)  # the same in all processes
        if not self.trainer.sanity_checking:
            epoch = 0 if self.trainer.state.fn != "fit" else self.current_epoch + 1
            self.history = [entry for entry in self.history if entry["epoch"] < epoch]
            self.history.append({"epoch": epoch, **found})

    def _features(self, views: Tensor) -> Tensor:
        """Raw features of any number of views; without gradients, or in pieces whose activations nobody keeps."""
        at_once = self.views_at_once or (_AT_ONCE_ON_CPU if views.device.type == "cpu" else len(views))
        pieces = torch.split(views, at_once)
        if len(pieces) == 1 or not torch.is_grad_enabled():
            return torch.cat([self.encoder.encode_views(piece) for piece in pieces])
        return torch.cat([checkpoint(self.encoder.encode_views, piece, use_reentrant=False) for piece in pieces])

    def _of_all(self, rows: Tensor, together: int) -> Tensor:
        """The rows of all processes, whose shares differ by one at most; gradients go back to each."""
        world = self.trainer.world_size
        if world == 1:
            return rows
        most = math.ceil(together / world)
        padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
        gathered = self.all_gather(padded, sync_grads=rows.requires_grad)
        counts = [len(range(rank, together, world)) for rank in range(world)]
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam over what learns, each group at its own rate; the schedule runs per step over the whole training."""
        return scheduled(self.trainer, self.optim, parameter_groups(self.encoder, clip_factor=self.clip_factor))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what learned, how far it has come, and the metadata."""
        checkpoint["state_dict"] = aligned_state(self.encoder.visual, buffers=self.buffer_names)
        checkpoint["eventclip"] = self.metadata
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load what learned, all of it or an error, and give Lightning nothing more to load."""
        self.load_learned(checkpoint["state_dict"])
        history = checkpoint.get("history")
        self.history = list(history) if isinstance(history, list) else []
        checkpoint["state_dict"] = {}

    def load_learned(self, state: dict[str, Tensor]) -> None:
        """Take over what learned.

        Raises:
            UserError: a name is missing or unknown here, or a shape differs.
        """
        own = learning_tensors(self.encoder.visual, buffers=self.buffer_names)
        wrong = sorted(own.keys() ^ state.keys()) or [n for n in own if own[n].shape != state[n].shape]
        if wrong:
            raise UserError(f"{wrong[0]} of the checkpoint does not fit: give the tuning and CLIP it was aligned with")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(state[name])
