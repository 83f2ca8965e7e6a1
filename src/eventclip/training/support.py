"""Adapters that are fitted in one go: gather the cached features of the support, fit, keep a checkpoint.

No epoch, batch or learning rate has a part in it. Views are never encoded here for the fit alone: what augmented copies
a support has is a matter of the feature cache, which encodes them once for all runs and all processes.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor

from eventclip.adapters.support import SupportAdapter
from eventclip.datasets.datamodule import EventDataModule
from eventclip.datasets.recordings import Recordings
from eventclip.errors import UserError
from eventclip.features.cache import FeatureDataset
from eventclip.models.building import build
from eventclip.models.checkpoint import load_learned, read_checkpoint
from eventclip.models.classifier import EventClassifier
from eventclip.training.checkpoints import LastCheckpoint
from eventclip.training.module import LitEventClassifier

log = logging.getLogger(__name__)

NO_PART = (
    "optim",
    "tuning.clip_factor",
    "data.batch_size",
    "selection.every_n_epochs",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip_val",
    "trainer.gradient_clip_algorithm",
    "trainer.limit_train_batches",
)
"""Settings, or sections of them, that decide nothing where the adapter is fitted."""

_OF_MEMORY = 0.5
"""Share of the machine's memory that a support may take."""


class Support(NamedTuple):
    """Cached features of recordings, as an adapter is fitted from them."""

    features: Tensor
    """(n, P, V, D) float32, of n recordings in P copies, zeros where invalid."""
    valid: Tensor
    """(n, P, V) bool."""
    labels: Tensor
    """(n,) int64."""


def gather(samples: FeatureDataset) -> Support:
    """Read the features of all recordings, in their order, in every copy that there is.

    Args:
        samples: n recordings in P copies of any number of views.

    Raises:
        UserError: they would take more than half of the machine's memory.
    """
    size, copies = len(samples), samples.copies
    counts = torch.tensor([[len(samples.rows[copy * size + i]) for copy in range(copies)] for i in range(size)])
    views, width = int(counts.max()), samples.rows[0].shape[-1]
    needed, there = 4 * counts.numel() * views * width, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > _OF_MEMORY * there:
        raise UserError(
            f"the features of {size} recordings in {copies} copies of {views} views take {needed / 1e9:.1f} GB and "
            f"this machine has {there / 1e9:.1f}: lower features.copies or fewshot.shots, or give adapter=text"
        )
    features = torch.zeros(size, copies, views, width)
    for i in range(size):
        for copy in range(copies):
            features[i, copy, : counts[i, copy]] = samples[copy, i]["features"]
    labels = torch.tensor([int(label) for label in samples.recordings.labels])
    return Support(features, torch.arange(views) < counts.unsqueeze(-1), labels)


def learns(classifier: EventClassifier) -> bool:
    """Whether anything learns from training recordings, by steps or in one go; zero-shot needs none."""
    fits = isinstance(classifier.adapter, SupportAdapter)
    return fits or any(parameter.requires_grad for parameter in classifier.parameters())


def fitted_kind(cfg: DictConfig) -> type[SupportAdapter] | None:
    """The class of the configuration's adapter where that is fitted; None where it learns by steps, or not at all."""
    made = getattr(build(cfg.adapter, "adapter"), "func", None)
    return made if isinstance(made, type) and issubclass(made, SupportAdapter) else None


def check_fit(cfg: DictConfig) -> None:
    """Tell what cannot be fitted as soon as the configuration is known, before CLIP is loaded.

    Raises:
        UserError: the image tower learns, features are not cached, or there is nothing to validate on.
    """
    kind = fitted_kind(cfg)
    if kind is None:
        return
    parts = cfg.tuning.parts if isinstance(cfg.tuning.parts, str) else ",".join(cfg.tuning.parts)
    if parts != "frozen":
        raise UserError(
            f"tuning={parts} trains the image tower step by step, and {kind.__name__} is fitted once from the features "
            f"of a frozen one: give tuning=frozen, or adapter=text"
        )
    if not cfg.features:
        raise UserError(
            f"{kind.__name__} is fitted from the feature cache, and features=live keeps none: give features=cached"
        )
    if cfg.adapter.get("weights") == "validation" and cfg.selection.split != "validation":
        raise UserError(
            "adapter.weights=validation sets free numbers on the validation split, and this run looks at none: give "
            "selection=validation, or adapter.weights=support"
        )


def check_classes(adapter: SupportAdapter, recordings: Recordings) -> None:
    """Tell before anything is encoded which class could not be fitted.

    Raises:
        UserError: a class has no recording.
    """
    own = recordings.by_class()
    empty = [folder for folder, of_class in zip(recordings.class_folders, own, strict=True) if not len(of_class)]
    if empty:
        raise UserError(
            f"class {empty[0]!r} has none of the {len(recordings)} training recordings, and {type(adapter).__name__} "
            f"is fitted from one or more of each class: add some (to fewshot.split_file, where that lists them), or "
            f"give adapter=text"
        )


def fit_support(trainer: Trainer, lit: LitEventClassifier, datamodule: EventDataModule, resume: Path | None) -> None:
    """Have the trainer fit the adapter before it first looks at a recording; or take what was fitted.

    Where selection looks at a split the fitted adapter is validated on it here, once.

    Args:
        trainer: not yet used; tests the module next.
        lit: whose adapter is fitted; where another module is tested, that takes what was fitted.
        datamodule: connected to a feature cache.
        resume: checkpoint of this very fit, or None.

    Raises:
        UserError: the checkpoint is of a fit to other recordings.
    """
    if resume is not None:
        _take(resume, lit)
    trainer.callbacks.append(_Fit(lit, datamodule, resume))  # type: ignore[attr-defined]
    if datamodule.selection is not None:
        trainer.validate(lit, datamodule=datamodule, verbose=False)


def take_over(learned: EventClassifier, other: EventClassifier) -> None:
    """Give another classifier, of other classes perhaps, all that one has learned, and how it was fitted."""
    other.load_learned_state_dict(learned.learned_state_dict())
    if isinstance(learned.adapter, SupportAdapter) and isinstance(other.adapter, SupportAdapter):
        other.adapter.fitted = learned.adapter.fitted


def _take(path: Path, lit: LitEventClassifier) -> None:
    """Load what was fitted, if it was to the recordings of this run."""
    checkpoint = read_checkpoint(path, trust=True)  # whoever chose it has looked
    there, here = (metadata["data"]["checksums"] for metadata in (checkpoint["eventclip"], lit.metadata))
    if any(there.get(split) != here.get(split) for split in ("training", "validation")):
        raise UserError(
            f"{path} was fitted to other recordings than this run has: go on with the same data.root, fewshot, "
            f"selection and seed, or set resume=null"
        )
    load_learned(path, checkpoint, lit.classifier)


class _Fit(Callback):
    """Fit in the first process, once all are there and the tower is where it works; the others take its result."""

    def __init__(self, lit: LitEventClassifier, datamodule: EventDataModule, resume: Path | None) -> None:
        self.lit, self.datamodule, self.resume = lit, datamodule, resume
        self.done = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit before the validation, where there is one."""
        if not self.done:
            self.done = True
            self._fit(trainer, self.lit.to(trainer.strategy.root_device), cast("LitEventClassifier", pl_module))

    on_test_start = on_validation_start

    @torch.inference_mode(mode=False)
    @torch.enable_grad()
    def _fit(self, trainer: Trainer, lit: LitEventClassifier, tested: LitEventClassifier) -> None:
        adapter = cast("SupportAdapter", lit.classifier.adapter)
        # The first process decides: a file system may show its checkpoint to the others late.
        resume: Path | None = trainer.strategy.broadcast(self.resume)
        if resume is None:
            samples = self._samples("fit")  # each process: who comes first encodes, and the others wait at its lock
            validation = self._samples("validate") if adapter.weights == "validation" else None
            if trainer.is_global_zero:
                _fit(adapter, samples, validation, device=trainer.strategy.root_device, seed=lit.seed)
        if trainer.world_size > 1:
            state, told = trainer.strategy.broadcast((lit.classifier.learned_state_dict(), adapter.fitted))
            if not trainer.is_global_zero:
                lit.classifier.load_learned_state_dict(state)
                adapter.fitted = told
        if tested is not lit:
            take_over(lit.classifier, tested.classifier)
        for last in (callback for callback in trainer.checkpoint_callbacks if isinstance(callback, LastCheckpoint)):
            if resume is None or resume.parent != last.folder:
                last.write(trainer)

    def _samples(self, stage: str) -> FeatureDataset:
        cache: Any = self.datamodule.feature_cache
        samples: FeatureDataset = cache(self.datamodule.dataset(stage))
        return samples


def _fit(
    adapter: SupportAdapter,
    samples: FeatureDataset,
    validation: FeatureDataset | None,
    *,
    device: torch.device,
    seed: int,
) -> None:
    """Fit where the adapter lies, and say in a line what was fitted."""
    started = time.monotonic()
    support, *further = (
        Support(*(part.to(device) for part in gather(one))) for one in (samples, validation) if one is not None
    )
    adapter.fit_support(*support, validation=further[0] if further else None, seed=seed)
    for module in adapter.modules():
        for key, value in module.named_buffers(recurse=False):
            setattr(module, key, value.contiguous())  # as a checkpoint gives it back: another layout rounds otherwise
    name = type(adapter).__name__
    for key, value in adapter.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(
                f"{name} was fitted to {key} that are no finite numbers: give other options of it, such as "
                f"adapter.weights=fixed, or adapter=text"
            )
    log.info(
        "%s fitted to %d recordings in %d copies: %s (%.2f s)",
        *(name, len(samples), samples.copies, describe_fit(adapter), time.monotonic() - started),
    )
    if told := adapter.explain():
        log.info("%s: %s", name, told)


def results_of_fit(adapter: SupportAdapter) -> dict[str, float | str]:
    """How free numbers were really set, under ``"weights"``, and to what, for ``results.json``."""
    return {"weights": adapter.weights, **adapter.fitted}


def describe_fit(adapter: SupportAdapter) -> str:
    """The same in words; says where it is not as it was asked for."""
    told = results_of_fit(adapter)
    used = told.pop("weights")
    asked = "" if used == adapter.weights else f" (asked for: {adapter.weights})"
    values = (f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in told.items())
    return ", ".join([f"weights={used}{asked}", *values])
