"""The Lightning module: it connects classifier, loss, metrics and optimizer, and knows nothing else."""

from __future__ import annotations

from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from eventclip.adapters.view_transformer import SampleDropout, set_dropout_keys
from eventclip.errors import UserError
from eventclip.models.classifier import EventClassifier, Prediction
from eventclip.models.pooling import logits_loss, probability_loss
from eventclip.models.tuning import parameter_groups
from eventclip.rng import random_keys
from eventclip.training.optim import AdamWarmupCosine, scheduled

LOSSES = {"logits": logits_loss, "probabilities": probability_loss}
"""Of the part of a prediction that has the same name."""


class LitEventClassifier(LightningModule):
    """Train and test an :class:`EventClassifier`.

    Example:
        >>> import lightning
        >>> from eventclip import EventClassifier, LitEventClassifier, NCaltech101DataModule, TextAdapter, load_clip
        >>> from eventclip.models.prompts import encode_classes
        >>> from eventclip.training.optim import AdamWarmupCosine, scheduled
        >>> encoder, data = load_clip("tiny"), NCaltech101DataModule("N-Caltech101", batch_size=4)
        >>> data.connect(image_size=encoder.image_size)
        >>> text_features = encode_classes(encoder, data.class_names, ["a point cloud image of a {}"])
        >>> classifier = EventClassifier(encoder, TextAdapter(text_features, encoder.logit_scale))
        >>> module = LitEventClassifier(classifier, AdamWarmupCosine(lr=1e-3), num_classes=len(data.class_names))
        >>> quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        >>> trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
        >>> trainer.fit(module, datamodule=data)
        >>> (results,) = trainer.test(module, datamodule=data, verbose=False)
        >>> 0 <= results["test/top1_probabilities"] <= 1
        True

    Args:
        classifier: encoder, adapter and pooling.
        optim: recipe of optimizer and schedule.
        num_classes: K.
        clip_factor: learning rate of CLIP's own weights as a fraction of the base rate, where they learn.
        loss: "logits" (cross entropy on the pooled logits) or "probabilities" (on the views' mean probability).
        seed: seed of dropout, keyed by epoch and sample so that neither a restart nor the number of processes matters.
        metadata: plain values stored with every checkpoint, enough to rebuild the run, see
            :func:`eventclip.models.checkpoint.make_metadata`.
    """

    def __init__(
        self,
        classifier: EventClassifier,
        optim: AdamWarmupCosine,
        *,
        num_classes: int,
        clip_factor: float = 0.1,
        loss: str = "logits",
        seed: int = 0,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise UserError(f"classifier.loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        if not isinstance(clip_factor, int | float) or not clip_factor > 0:
            raise UserError(
                f"tuning.clip_factor must be above 0, got {clip_factor!r}: tuning=frozen keeps CLIP as it is"
            )
        self.classifier, self.optim = classifier, optim
        self.loss, self.clip_factor, self.seed = loss, clip_factor, seed
        self.drops = any(isinstance(module, SampleDropout) for module in classifier.modules())
        self.metadata = metadata or {}
        self.strict_loading = False  # checkpoints leave frozen CLIP weights out; on_load_checkpoint checks the rest
        self.metrics = nn.ModuleDict({stage: _metrics(num_classes, stage) for stage in ("fit", "val", "test")})
        # Not Lightning's own mean: over ranks, it rounds the number of recordings.
        self.mean_loss = nn.ModuleDict({stage: MeanMetric() for stage in ("val", "test")})

    def forward(self, batch: dict[str, Any]) -> Prediction:
        """Classify a batch of samples; see :class:`EventClassifier`."""
        return cast("Prediction", self.classifier(batch.get("views"), batch["valid"], features=batch.get("features")))

    def _update(self, stage: str, prediction: Prediction, labels: Tensor) -> None:
        """Count a batch in the metrics of ``stage``, if it has a row."""
        if len(labels):
            for name, metric in cast("nn.ModuleDict", self.metrics[stage]).items():
                scores = prediction.logits if name.endswith("logits") else prediction.probabilities
                cast("Metric", metric).update(scores, labels)

    def _tell(self, stage: str) -> None:
        """Log the metrics of ``stage``, once: what Lightning does for each call takes longer than a small adapter."""
        for name, metric in cast("nn.ModuleDict", self.metrics[stage]).items():
            self.log(f"{stage}/{name}", cast("Metric", metric), on_step=False, on_epoch=True)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Key what is random in the network itself: our dropout by sample; torch's, in another's adapter, by batch."""
        self.key_randomness(batch_idx * self.trainer.world_size + self.global_rank, batch["index"])

    def key_randomness(self, number: int, indices: Tensor) -> None:
        """Key what is random in the network for the next batch of this epoch.

        Args:
            number: of the batch, counted over all processes.
            indices: (B,) of its samples.
        """
        _seed(random_keys(self.seed, "dropout batch", epoch=self.current_epoch, indices=[number])[0], self.device)
        if self.drops:
            keys = random_keys(self.seed, "dropout sample", epoch=self.current_epoch, indices=indices.tolist())
            set_dropout_keys(self.classifier, torch.tensor(keys, device=self.device))

    def on_train_epoch_end(self) -> None:
        """Tell the epoch's accuracy."""
        self._tell("fit")

    def on_validation_epoch_end(self) -> None:
        """Tell the accuracy."""
        self._tell("val")

    def on_test_epoch_end(self) -> None:
        """Tell the accuracy."""
        self._tell("test")

    def on_train_end(self) -> None:
        """Leave a network that takes any batch."""
        set_dropout_keys(self.classifier, None)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one batch, weighted such that the mean over processes is the mean over all their recordings."""
        prediction, labels = self(batch), batch["label"]
        own, together = batch["share"]
        loss: Tensor = LOSSES[self.loss](getattr(prediction, self.loss), labels)
        loss = loss * (own * self.trainer.world_size / together)
        self.log("fit/loss", loss, batch_size=together, on_epoch=True, prog_bar=True, sync_dist=True)
        self._update("fit", prediction, labels[:own])
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int, stage: str = "val") -> dict[str, Tensor]:
        """Update the metrics of validation or test; callbacks get the (B, K) probabilities."""
        prediction, labels = self(batch), batch["label"]
        mean = cast("Metric", self.mean_loss[stage])
        mean.update(LOSSES[self.loss](getattr(prediction, self.loss), labels), weight=len(labels))
        self.log(f"{stage}/loss", mean, batch_size=len(labels), on_step=False, on_epoch=True, prog_bar=True)
        self._update(stage, prediction, labels)
        return {"probabilities": prediction.probabilities}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """As in validation."""
        return self.validation_step(batch, batch_idx, "test")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam over what learns, each group at its own rate; the schedule runs per step over the whole training."""
        return scheduled(self.trainer, self.optim, parameter_groups(self.classifier, clip_factor=self.clip_factor))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what learned and the metadata, how an adapter was fitted among them; leave frozen CLIP weights out."""
        fitted = getattr(self.classifier.adapter, "fitted", None)
        checkpoint["state_dict"] = self.classifier.learned_state_dict()
        checkpoint["eventclip"] = {**self.metadata, **({"fitted": dict(fitted)} if fitted else {})}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load what learned, all of it or an error, and give Lightning nothing more to load."""
        self.classifier.load_learned_state_dict(checkpoint["state_dict"])
        checkpoint["state_dict"] = {}


def _seed(key: int, device: torch.device) -> None:
    """Seed what torch draws with; torch.manual_seed looks at every kind of device there is, and takes long."""
    torch.default_generator.manual_seed(key)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(key)


def _metrics(num_classes: int, stage: str) -> nn.ModuleDict:
    """Top-1 from probabilities and from logits; outside training also top-5 (10 classes and more) and calibration."""

    def top(k: int) -> MulticlassAccuracy:
        return MulticlassAccuracy(num_classes, top_k=k, average="micro")

    metrics = {"top1_probabilities": top(1), "top1_logits": top(1)}
    if stage != "fit":
        if num_classes >= 10:
            metrics |= {"top5_probabilities": top(5), "top5_logits": top(5)}
        metrics["calibration_error"] = MulticlassCalibrationError(num_classes)
    return nn.ModuleDict(metrics)
