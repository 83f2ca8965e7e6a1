"""Composed configuration -> built parts -> fit -> test -> results.json; every ``instantiate`` is here."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning
import open_clip
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, ProgressBar
from omegaconf import DictConfig, OmegaConf
from torch import nn

import eventclip
from eventclip.data.datamodule import EventDataModule
from eventclip.errors import UserError
from eventclip.files import write_json
from eventclip.models.classifier import EventClassifier
from eventclip.models.encoder import ClipEncoder
from eventclip.models.prompts import encode_classes
from eventclip.models.tuning import tune
from eventclip.training.checkpoints import WholeFileIO, make_card
from eventclip.training.lit import LitEventClassifier
from eventclip.training.requeue import slurm_environment
from eventclip.training.resume import begin

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What a configuration describes, built and connected."""

    datamodule: EventDataModule
    classifier: EventClassifier
    lit: LitEventClassifier
    card: dict[str, Any]


def build(node: DictConfig, section: str, expected: type[Any] = object, **given: Any) -> Any:
    """Instantiate one section of the configuration.

    Args:
        node: the section, with its ``_target_``.
        section: its name, for messages.
        expected: what the result must be.
        given: objects that the configuration cannot hold.

    Raises:
        UserError: a key the target does not take, a value it refuses, or a target that does not exist.
    """
    try:
        built = instantiate(node, **given, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        if isinstance(cause, TypeError | ValueError | ImportError) or cause is None:
            reason = " ".join(str(cause or error).split())
            target = str(node.get("_target_", "")).rsplit(".", 1)[-1]
            raise UserError(f"{section} ({target}) cannot be built: {reason}") from cause
        raise
    if not isinstance(built, expected):
        raise UserError(f"{section} must be {_article(expected)}, got {type(built).__name__}: check {section}._target_")
    return built


def build_datamodule(cfg: DictConfig) -> EventDataModule:
    """Build the data set's module; its views get their size once CLIP is known."""
    datamodule: EventDataModule = build(
        cfg.data,
        "data",
        EventDataModule,
        renderer=build(cfg.frames, "frames"),
        draw=build(cfg.fewshot, "fewshot"),
        selection=cfg.selection.split,
        seed=cfg.seed,
        **cfg.views,
    )
    return datamodule


def build_classifier(cfg: DictConfig, class_names: Sequence[str]) -> EventClassifier:
    """Build CLIP, encode the classes' prompts, let learn what shall, and put the adapter on top.

    The text tower is dropped once the prompts are encoded.

    Raises:
        UserError: a part of the configuration is wrong, or the image tower shall learn below an adapter of its own.
    """
    encoder: ClipEncoder = build(cfg.clip, "clip", ClipEncoder)
    text_features = encode_classes(encoder, class_names, list(cfg.classifier.prompts))
    make_adapter = build(cfg.adapter, "adapter")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cfg.seed)
        adapter = _called(make_adapter, "adapter", text_features=text_features, logit_scale=encoder.logit_scale)
    encoder.drop_text_tower()
    _tune(encoder, adapter, cfg)
    return EventClassifier(encoder, adapter, pooling=cfg.classifier.pooling)


def assemble(cfg: DictConfig) -> Parts:
    """Build data module, CLIP, adapter and Lightning module from a composed configuration."""
    datamodule = build_datamodule(cfg)
    class_names = datamodule.class_names  # a missing data set is told before gigabytes of CLIP are loaded
    log.info("%s: %d training recordings, %d classes", datamodule.root, len(datamodule.training), len(class_names))
    classifier = build_classifier(cfg, class_names)
    datamodule.image_size = classifier.encoder.image_size
    card = make_card(
        config=cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True)),
        class_names=class_names,
        clip=classifier.encoder.describe(),
        data=datamodule.describe(),
        version=eventclip.__version__,
    )
    lit = LitEventClassifier(
        classifier,
        build(cfg.optim, "optim"),
        num_classes=len(class_names),
        clip_factor=cfg.tuning.clip_factor,
        loss=cfg.classifier.loss,
        seed=cfg.seed,
        card=card,
    )
    return Parts(datamodule, classifier, lit, card)


def run(cfg: DictConfig) -> float | None:
    """Fit, test and write ``results.json`` into the run's folder.

    Returns:
        The best validation accuracy for sweepers to maximise; None where selection looks at no validation split.
        The test accuracy is never returned: a sweep over it would choose on the test split.
    """
    started = time.monotonic()
    quieten()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    if cfg.selection.split == "test":
        log.warning("selection=test chooses the weights on the test split itself: its accuracy is too optimistic")
    output = Path(cfg.paths.output)
    parts = assemble(cfg)
    trainer = make_trainer(cfg, parts)
    resume, restarts = begin(trainer, cfg.resume, output, parts.card)
    if any(p.requires_grad for p in parts.lit.parameters()):
        trainer.fit(parts.lit, datamodule=parts.datamodule, ckpt_path=resume, weights_only=True)
    validation = trainer.callback_metrics.get("val/top1_probabilities")
    best = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)
    chosen = None
    if best is not None and best.best_model_path:
        chosen, validation = best.best_model_path, best.best_model_score
    trainer.test(parts.lit, datamodule=parts.datamodule, ckpt_path=chosen, verbose=False, weights_only=True)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
    if trainer.is_global_zero:
        results = {
            "name": cfg.name,
            "metrics": metrics,
            "validation": None if validation is None else float(validation),
            "selection": {"split": cfg.selection.split, "tested": "best" if chosen else "last"},
            "seed": cfg.seed,
            "resumed": resume is not None,
            "restarts": restarts,
            "data": parts.card["data"],
            "class_names": parts.card["class_names"],
            "clip": parts.card["clip"],
            "versions": versions(),
            "seconds": round(time.monotonic() - started, 1),
        }
        write_json(output / "results.json", results)
        for name, value in sorted(metrics.items()):
            log.info("%-28s %.4f", name, value)
        log.info("results, checkpoints and pictures: %s", output)
    return None if validation is None else float(validation)


def make_trainer(cfg: DictConfig, parts: Parts) -> Trainer:
    """Build the Trainer with its loggers and callbacks; an entry set to null is left out."""
    callbacks = [build(node, f"callbacks.{name}") for name, node in cfg.callbacks.items() if node is not None]
    class_names = parts.card["class_names"]
    callbacks = [_called(c, "callbacks", class_names=class_names) if _is_partial(c) else c for c in callbacks]
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
    return trainer


def versions() -> dict[str, str]:
    """Versions of what shapes a result."""
    modules = (eventclip, torch, lightning, open_clip)
    return {module.__name__: str(module.__version__) for module in modules}


def _tune(encoder: ClipEncoder, adapter: nn.Module, cfg: DictConfig) -> None:
    """Let parts of the image tower learn, which goes with learned text features and no other adapter."""
    parts = cfg.tuning.parts
    chosen = parts if isinstance(parts, str) else [str(part) for part in parts]
    lora = {"lora_targets": cfg.tuning.lora_targets, "lora_rank": cfg.tuning.lora_rank}
    _called(tune, "tuning", encoder=encoder, parts=chosen, seed=cfg.seed, **lora)
    further = {name for name, _ in adapter.named_parameters()} - {"text_features"}
    if further and any(p.requires_grad for p in encoder.parameters()):
        raise UserError(
            f"tuning={chosen} trains the image tower, dropout-free and with no adapter but the text features, and "
            f"{type(adapter).__name__} has {len(further)} tensors of its own: set adapter=text, or tuning=frozen"
        )


def _called(make: Any, section: str, **given: Any) -> Any:
    """Call a partial of the configuration; a wrong value in it is the user's mistake."""
    try:
        return make(**given)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{section} cannot be built: {error}") from error


def _article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


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
    ):
        warnings.filterwarnings("ignore", message=message)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()
    # open_clip narrates its tokenizer and configuration on the root logger itself.
    logging.getLogger().addFilter(lambda record: record.name != "root" or record.levelno >= logging.WARNING)
    for name in ("utilities.rank_zero", "trainer.connectors.checkpoint_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").setLevel(logging.WARNING)
