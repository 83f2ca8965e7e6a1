"""Composed configuration -> built parts -> fit -> test -> results.json."""

from __future__ import annotations

import logging
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import lightning
import open_clip
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar, Timer
from omegaconf import DictConfig, OmegaConf

import eventclip
from eventclip.adapters.support import SupportAdapter
from eventclip.datasets.audit import check_first
from eventclip.datasets.datamodule import EventDataModule, grouped
from eventclip.errors import UserError
from eventclip.features.cache import FeatureCache
from eventclip.files import write_json
from eventclip.models.building import build, build_classifier, call_partial, with_sentences
from eventclip.models.checkpoint import make_metadata
from eventclip.models.classifier import EventClassifier
from eventclip.models.encoder import ClipEncoder
from eventclip.parallel import start_plainly
from eventclip.training.callbacks import Diagnostics, PredictionPictures, PredictionTable
from eventclip.training.checkpoints import WholeFileIO
from eventclip.training.module import LitEventClassifier
from eventclip.training.requeue import leave_if_asked, slurm_environment
from eventclip.training.resume import begin, flat_settings
from eventclip.training.support import NO_PART, check_classes, check_fit, fit_support, learns, results_of_fit, take_over
from eventclip.training.whole_epochs import LitWholeEpochs, suits

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a configuration describes, built and connected."""

    datamodule: EventDataModule
    classifier: EventClassifier
    lit: LitEventClassifier
    metadata: dict[str, Any]

    def by_whole_epochs(self, cfg: DictConfig) -> Parts:
        """The same, trained on an epoch of cached features at a time."""
        self.datamodule.connect(whole_epochs=True)
        classes = len(self.metadata["class_names"])
        return replace(self, lit=_lit(cfg, self.classifier, classes, self.metadata, kind=LitWholeEpochs))

    def on_tested_classes(self, cfg: DictConfig) -> Parts:
        """The same with what was learned, told the names of the classes that are tested."""
        names = self.datamodule.tested_names
        classifier = build_classifier(cfg, names)
        take_over(self.classifier, classifier)
        return replace(self, classifier=classifier, lit=_lit(cfg, classifier, len(names), self.metadata))


def build_datamodule(cfg: DictConfig) -> EventDataModule:
    """Build the data set's module; its views get their size once CLIP is known."""
    few_shot = {str(key): value for key, value in cfg.fewshot.items() if key != "classes"}
    datamodule: EventDataModule = build(
        cfg.data,
        "data",
        EventDataModule,
        arrange=grouped,
        renderer=build(cfg.frames, "frames"),
        few_shot=build(OmegaConf.create(few_shot), "fewshot"),
        half=cfg.fewshot.get("classes", "all"),  # checkpoints of 0.2 do not say
        selection=cfg.selection.split,
        seed=cfg.seed,
        cache=cfg.paths.cache,
        **cfg.views,
    )
    return datamodule


def build_feature_cache(cfg: DictConfig, encoder: ClipEncoder, *, every_copy: bool = False) -> FeatureCache | None:
    """Build the feature cache of a frozen tower; None where views are encoded live.

    Args:
        cfg: the configuration.
        encoder: CLIP.
        every_copy: all copies are read, whatever the number of epochs.
    """
    if not cfg.features:
        return None
    kept = build(cfg.features, "features")
    cache: FeatureCache = call_partial(kept, "features", encoder=encoder, between=leave_if_asked)
    epochs = cfg.trainer.max_epochs or -1
    if epochs > 0 and not every_copy:
        cache.copies = min(cache.copies, epochs)  # further ones would never be read
    return cache


def assemble(cfg: DictConfig, *, evaluated: str | None = None) -> Parts:
    """Build data module, CLIP, adapter and Lightning module from a composed configuration.

    Args:
        cfg: the configuration.
        evaluated: the one split that is looked at; None for a run that trains, if anything learns, and tests.
    """
    if evaluated is None:
        check_fit(cfg)
    datamodule = build_datamodule(cfg)
    datamodule.connect(tested=evaluated or "test")
    class_names = datamodule.class_names  # a missing data set is told before gigabytes of CLIP are loaded
    if len(class_names) < 2:
        raise UserError(f"{datamodule.root} has one class, {class_names[0]!r}: give a data set of two or more")
    cfg = with_sentences(cfg, list(dict.fromkeys([*class_names, *datamodule.tested_names])))
    classifier = build_classifier(cfg, class_names, keep=_others_follow())
    if datamodule.half == "new" and not getattr(classifier.adapter, "open_vocabulary", False):
        raise UserError(
            f"fewshot.classes=new tests classes that were not learned, and to {type(classifier.adapter).__name__} its "
            f"own alone mean anything: give adapter=prolip, gda, visual, clip_adapter or identity, or "
            f"fewshot.classes=base"
        )
    fits = isinstance(classifier.adapter, SupportAdapter)
    cache = build_feature_cache(cfg, classifier.encoder, every_copy=fits)
    datamodule.connect(image_size=classifier.encoder.image_size, feature_cache=cache)
    data = datamodule.describe(training=evaluated is None and learns(classifier))
    counts = ", ".join(f"{count} {split}" for split, count in data["recordings"].items())
    log.info("%s: %d classes, recordings: %s", datamodule.root, len(class_names), counts)
    metadata = make_metadata(
        config=cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True)),
        class_names=class_names,
        clip=classifier.encoder.describe(),
        data=data,
        version=eventclip.__version__,
    )
    return Parts(datamodule, classifier, _lit(cfg, classifier, len(class_names), metadata), metadata)


def _others_follow() -> bool:
    """Whether this process makes further runs of a sweep."""
    if not HydraConfig.initialized():
        return False
    hydra = HydraConfig.get()
    return bool(hydra.mode == RunMode.MULTIRUN) and "submitit" not in str(hydra.launcher.get("_target_"))


def _lit(
    cfg: DictConfig,
    classifier: EventClassifier,
    classes: int,
    metadata: dict[str, Any],
    *,
    kind: type[LitEventClassifier] = LitEventClassifier,
) -> LitEventClassifier:
    return kind(
        classifier,
        build(cfg.optim, "optim"),
        num_classes=classes,
        clip_factor=cfg.tuning.clip_factor,
        loss=cfg.classifier.loss,
        seed=cfg.seed,
        metadata=metadata,
    )


def check_recordings(parts: Parts) -> None:
    """Tell before training what any recording would end it with, such as a sensor of unknown size.

    Raises:
        RecordingError: the first recording of a format that is trained or tested on cannot be used.
        UserError: an adapter is to be fitted to a class that has no recording.
    """
    data, adapter = parts.datamodule, parts.classifier.adapter
    if isinstance(adapter, SupportAdapter):
        check_classes(adapter, data.training)
    stages = ["test", *(["fit"] if learns(parts.classifier) else []), *(["validate"] if data.selection else [])]
    for stage in stages:
        check_first(data.recordings(stage), data.files)


def run(cfg: DictConfig) -> float | None:
    """Fit, test and write ``results.json`` into the run's folder.

    Returns:
        The best validation accuracy for sweepers to maximise; None where selection looks at no validation split.
        The test accuracy is never returned: a sweep over it would choose on the test split.
    """
    started = time.monotonic()
    quieten()
    start_plainly()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    if cfg.selection.split == "test":
        log.warning("selection=test chooses the weights on the test split itself: its accuracy is too optimistic")
    output = Path(cfg.paths.output)
    parts = assemble(cfg)
    check_recordings(parts)
    trainer = make_trainer(cfg, parts.metadata["class_names"])
    fits = isinstance(parts.classifier.adapter, SupportAdapter)
    without = NO_PART if fits else ()
    resume, restarts = begin(trainer, cfg.resume, output, parts.metadata, trust=cfg.trust, without=without)
    if fits:
        fit_support(trainer, parts.lit, parts.datamodule, resume)
    elif learns(parts.classifier):
        if cfg.features and suits(trainer, parts.lit):
            parts = parts.by_whole_epochs(cfg)
        trainer.fit(parts.lit, datamodule=parts.datamodule, ckpt_path=resume, weights_only=True)
    validation = trainer.callback_metrics.get("val/top1_probabilities")
    best = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)
    chosen = None
    if best is not None and best.best_model_path:
        chosen, validation = best.best_model_path, best.best_model_score
    if parts.datamodule.half == "new":
        parts = parts.on_tested_classes(cfg)
        name_classes(trainer, parts.datamodule.tested_names)
    trainer.test(parts.lit, datamodule=parts.datamodule, ckpt_path=chosen, verbose=False, weights_only=True)
    further = {
        "validation": None if validation is None else float(validation),
        "selection": {"split": cfg.selection.split, "tested": "best" if chosen else "last"},
        "resumed": resume is not None,
        "restarts": restarts,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_results(cfg, parts, trainer, further)
    return None if validation is None else float(validation)


def write_results(cfg: DictConfig, parts: Parts, trainer: Trainer, further: dict[str, Any]) -> None:
    """Write ``results.json`` of a test that has just ended, and log its metrics; only the first process does.

    Args:
        cfg: the configuration, whose ``paths.output`` is the run's folder.
        parts: what was tested.
        trainer: that tested it.
        further: what this kind of run has to tell beside what every test does.
    """
    if not trainer.is_global_zero:
        return
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
    output, adapter = Path(cfg.paths.output), parts.classifier.adapter
    fitted = {"adapter": results_of_fit(adapter)} if isinstance(adapter, SupportAdapter) else {}
    results = {
        "name": cfg.name,
        "metrics": metrics,
        **_diagnostics(trainer),
        **fitted,
        "seed": cfg.seed,
        "settings": flat_settings(parts.metadata["config"], without=NO_PART if fitted else ()),
        "data": parts.metadata["data"],
        "class_names": parts.datamodule.tested_names,
        "clip": parts.metadata["clip"],
        "versions": versions(),
    }
    write_json(output / "results.json", results | further)
    for name, value in sorted(metrics.items()):
        log.info("%-28s %.4f", name, value)
    log.info("results and pictures: %s", output)


def make_trainer(cfg: DictConfig, class_names: list[str]) -> Trainer:
    """Build the Trainer with its loggers and callbacks; an entry set to null is left out."""
    callbacks = [build(node, f"callbacks.{name}") for name, node in cfg.callbacks.items() if node is not None]
    callbacks = [call_partial(c, "callbacks", class_names=class_names) if _is_partial(c) else c for c in callbacks]
    loggers = [build(node, f"logger.{name}") for name, node in cfg.logger.items() if node is not None]
    if not loggers:
        callbacks = [c for c in callbacks if not isinstance(c, LearningRateMonitor)]
    trainer: Trainer = build(
        cfg.trainer,
        "trainer",
        Trainer,
        callbacks=callbacks,
        logger=loggers or False,
        plugins=[WholeFileIO(), *slurm_environment()],
        enable_progress_bar=any(isinstance(c, ProgressBar) for c in callbacks),
    )
    if any(isinstance(c, Timer) for c in trainer.callbacks):  # type: ignore[attr-defined]
        raise UserError(
            "trainer.max_time ends training as if it had finished, and counts the time of earlier turns too: leave it "
            "out, a run goes on by itself after Slurm's time limit"
        )
    return trainer


def name_classes(trainer: Trainer, class_names: list[str]) -> None:
    """Tell the callbacks that write classes down what the classes are from now on."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Diagnostics | PredictionPictures | PredictionTable):
            callback.class_names = list(class_names)


def _diagnostics(trainer: Trainer) -> dict[str, Any]:
    """What the test's diagnostics tell in ``results.json``; nothing where they are left out."""
    results = [callback.results() for callback in trainer.callbacks if isinstance(callback, Diagnostics)]  # type: ignore[attr-defined]
    return results[0] if results else {}


def versions() -> dict[str, str]:
    """Versions of what shapes a result."""
    modules = (eventclip, torch, lightning, open_clip)
    return {module.__name__: str(module.__version__) for module in modules}


def _is_partial(part: Any) -> bool:
    return hasattr(part, "func") and hasattr(part, "keywords")


def quieten() -> None:
    """Silence remarks that do not apply here, and Lightning's own handlers beside the ones Hydra set up."""
    for message in (
        ".*module\\(s\\) in eval mode.*",  # the frozen tower is
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*Checkpoint directory .* exists.*",
        ".*Experiment logs directory .* exists.*",  # what it held has been taken over
        ".*`srun` command is available.*",  # a cluster's login node
        ".*Total length of `list` across ranks is zero.*",  # no validation split is looked at
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*all_gather is deprecated.*",  # Lightning's own use of it
    ):
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()
    # open_clip narrates its tokenizer and configuration on the root logger itself.
    logging.getLogger().addFilter(lambda record: record.name != "root" or record.levelno >= logging.WARNING)
    for name in ("utilities.rank_zero", "trainer.connectors.checkpoint_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
