"""Composed configuration -> teacher's features -> alignment -> the file of what learned, pictures, results.json."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

import eventclip
from eventclip.class_names import check_class_names
from eventclip.datasets.image_datamodule import ImageDataModule
from eventclip.datasets.image_views import ImageDataset, Targets
from eventclip.datasets.images import Crops, HeldOut, Images
from eventclip.datasets.pairs import Pairs, read_pairs
from eventclip.datasets.sources import EventFiles
from eventclip.errors import UserError
from eventclip.features.cache import FeatureCache
from eventclip.files import check_out, held, write_json
from eventclip.models.alignment import aligned_state, write_alignment
from eventclip.models.building import build, call_partial
from eventclip.models.checkpoint import ALIGNMENT, make_metadata, read_checkpoint
from eventclip.models.encoder import ClipEncoder
from eventclip.models.prompts import encode_classes
from eventclip.models.tuning import tune
from eventclip.plots.alignment import draw_nearest, draw_progress, nearest
from eventclip.plots.style import save_figure
from eventclip.simulation.ranges import SimulationRanges
from eventclip.training.alignment_loss import AlignmentLoss, Spread
from eventclip.training.alignment_module import LitAlignment
from eventclip.training.experiment import build_feature_cache, make_trainer, quieten, versions
from eventclip.training.requeue import leave_if_asked
from eventclip.training.resume import begin, flat_settings

log = logging.getLogger(__name__)

_SHOWN, _FOUND = 8, 4
"""Views in the picture, and images that each finds."""

_SKIPPED = 20
"""Images left out that are named, one by one, in the log."""

_SPREAD_OF = 10_000
"""Images whose features tell mean and deviation."""


_ORPHANS_S = 15.0
"""For which a lock may still be held by the loaders' workers of a process that was killed."""


@dataclass(frozen=True)
class Teacher:
    """Frozen CLIP, which looks at images once; what it gave is read from the feature cache."""

    cache: FeatureCache

    def __call__(self, images: ImageDataset, copies: int) -> Targets:
        """Features of images, copy after copy."""
        return self.cache.rows(images, copies)


@dataclass(frozen=True)
class Parts:
    """What an alignment is made of.

    Attributes:
        lit: the tower that learns, its loss and its optimizer.
        datamodule: images, connected to the tower and to its teacher.
        trainer: runs them.
        buffers: names of the tower's buffers that are part of what learned.
    """

    lit: LitAlignment
    datamodule: ImageDataModule
    trainer: Trainer
    buffers: list[str]


def align(cfg: DictConfig) -> float:
    """Align an image tower with the event camera, and write what learned.

    Returns:
        recall@1 of held-out images by their simulated views, with the weights that were written.

    Raises:
        UserError: an option outside its range, no images, a tower that cannot learn so, a place that cannot be
            written to, or another process that writes there.
    """
    started = time.monotonic()
    quieten()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    out = Path(cfg.out).expanduser()
    check_place(out)
    trainer = make_trainer(cfg, [])
    with held(out, waiting=_patience(out)) if trainer.is_global_zero else nullcontext():
        check_place(out)  # the one that was waited for may have written it
        return _align(cfg, out, assemble(cfg, trainer), started)


def _align(cfg: DictConfig, out: Path, parts: Parts, started: float) -> float:
    """Fit, choose the epoch, and write everything."""
    lit, datamodule, trainer, folder = parts.lit, parts.datamodule, parts.trainer, Path(cfg.paths.output)
    resume, restarts = begin(trainer, cfg.resume, folder, lit.metadata, trust=cfg.trust)
    frozen = _before(trainer, lit, datamodule)
    before = lit.history[0]
    if any(parameter.requires_grad for parameter in lit.parameters()):
        trainer.fit(lit, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    history = list(lit.history)  # which the validation below begins anew
    chosen = _take_chosen(trainer, lit)
    told = trainer.validate(lit, datamodule=datamodule, verbose=False)[0]
    found = {name.removeprefix("val/"): float(value) for name, value in told.items() if name.startswith("val/")}
    if trainer.is_global_zero:
        seen = {"before": frozen, "aligned": _features(lit, datamodule.shown_views(_SHOWN))}
        _draw(folder, datamodule, history, seen)
        further = {
            "metrics": found,
            "before": before,
            "epoch": chosen,
            "history": history,
            "resumed": resume is not None,
            "restarts": restarts,
            "seconds": round(time.monotonic() - started, 1),
        }
        _write(cfg, out, parts, further)
        log.info("recall@1 of held-out images: %.3f before, %.3f now", before["recall"], found["recall"])
        log.info("%s: give it as clip.aligned=%s; pictures and results: %s", out, out, folder)
    trainer.strategy.barrier("the alignment is written")
    return found["recall"]


def assemble(cfg: DictConfig, trainer: Trainer) -> Parts:
    """Build images, CLIP and the Lightning module, and have frozen CLIP look at every image.

    Args:
        cfg: the composed configuration.
        trainer: not yet used.

    Raises:
        UserError: as for :func:`align`; what can be told before the teacher looks is told before.
    """
    loss = AlignmentLoss(**_plain(cfg.loss))
    if "_target_" not in cfg.features:
        raise UserError("features=live keeps nothing of what frozen CLIP sees in the images: give features=cached")
    optim = build(cfg.optim, "optim")
    datamodule = build_datamodule(cfg)
    _tell_skipped(datamodule.skipped)
    encoder: ClipEncoder = build(cfg.clip, "clip", ClipEncoder)
    classes = _classes(cfg, encoder, datamodule.held_out)
    encoder.drop_text_tower()
    _let_learn(cfg, copy.deepcopy(encoder))
    metadata = make_metadata(
        config=cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True)),
        class_names=[],
        clip=encoder.describe(),
        data=datamodule.describe(),
        version=eventclip.__version__,
        kind=ALIGNMENT,
    )
    spread = _teach(cfg, encoder, datamodule, trainer)
    buffers = _let_learn(cfg, encoder, datamodule)
    lit = LitAlignment(
        encoder,
        loss,
        optim,
        spread=spread,
        kept_share=datamodule.kept_share,
        clip_factor=cfg.tuning.clip_factor,
        buffers=buffers,
        views_at_once=cfg.views_at_once,
        metadata=metadata,
        **classes,
    )
    return Parts(lit, datamodule, trainer, buffers)


def _write(cfg: DictConfig, out: Path, parts: Parts, further: dict[str, Any]) -> None:
    """Write ``results.json``, and then the alignment: whoever finds it finds all."""
    metadata, encoder = parts.lit.metadata, parts.lit.encoder
    settings = flat_settings(metadata["config"])
    results = {
        "name": cfg.name,
        "seed": cfg.seed,
        "settings": settings,
        "data": metadata["data"],
        "clip": metadata["clip"],
        "versions": versions(),
    }
    made = {
        "images": metadata["data"]["images"],
        "pairs": metadata["data"]["pairs"],
        "seed": cfg.seed,
        "epochs": cfg.trainer.max_epochs,
        "before": further["before"],
        "chosen": {"epoch": further["epoch"], **further["metrics"]},
        "settings": settings,
    }
    tuning = {name: _plain(cfg.tuning)[name] for name in ("parts", "lora_targets", "lora_rank")}
    write_json(Path(cfg.paths.output) / "results.json", results | further)
    state = aligned_state(encoder.visual, buffers=parts.buffers)
    write_alignment(out, encoder, state, tuning=tuning, made=made, dtype=cfg.dtype)


def _patience(out: Path) -> Callable[[], None]:
    """What to do while another process holds the lock."""
    until = time.monotonic() + _ORPHANS_S

    def wait() -> None:
        leave_if_asked()
        if time.monotonic() > until:
            raise UserError(f"another process is writing {out}: wait for it, or give another out=")

    return wait


def _tell_skipped(causes: list[str]) -> None:
    if causes:
        log.warning("on_bad_image=skip leaves out %d images", len(causes))
    for cause in causes[:_SKIPPED]:
        log.warning("left out: %s", cause)
    if len(causes) > _SKIPPED:
        log.warning("left out: %d more", len(causes) - _SKIPPED)


def build_datamodule(cfg: DictConfig) -> ImageDataModule:
    """The images and pairs that a configuration names."""
    return ImageDataModule(
        cfg.images,
        renderer=build(cfg.frames, "frames"),
        ranges=SimulationRanges(**_plain(cfg.simulation)),
        heldout=HeldOut(**_plain(cfg.heldout)),
        crops=None if cfg.crops is None else Crops(**_plain(cfg.crops)),
        keep_share=cfg.keep_share,
        leave_out=list(cfg.leave_out),
        on_bad_image=cfg.on_bad_image,
        pairs=_pairs(cfg.pairs),
        pair_files=EventFiles(sensor_hw=cfg.pairs.sensor_hw),
        batch_size=cfg.batch_size,
        num_workers=cfg.num_workers,
        seed=cfg.seed,
    )


def check_place(out: Path) -> None:
    """Tell before hours of work that their result could not be written.

    Args:
        out: the file to write; its folder is made.

    Raises:
        UserError: it is a folder, is there already, or lies where nothing can be written.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"out={out} must end in .safetensors, the kind of file that is written")
    if out.exists():
        raise UserError(f"out={out} is there already: remove it to align anew, or give another out=")
    check_out(out)


def _pairs(section: DictConfig) -> Pairs | None:
    if section.map is None:
        return None
    for key in ("recordings", "images"):
        if section[key] is None:
            raise UserError(f"pairs.{key}= is missing, the folder that the paths of pairs.map={section.map} begin at")
    return read_pairs(section.map, recordings=section.recordings, images=section.images)


def _classes(cfg: DictConfig, encoder: ClipEncoder, held_out: Images) -> dict[str, Tensor]:
    """Text features of the held-out folders' names, where accuracy on them was asked for; nothing else sees a name."""
    if not cfg.heldout_accuracy:
        return {}
    folders = sorted(set(held_out.folders.tolist()))
    if folders == [b""] or len(folders) < 2:
        raise UserError("heldout_accuracy=true needs held-out images of several folders, which are named as classes")
    names = [os.fsdecode(folder).replace("_", " ").strip() for folder in folders]
    features = encode_classes(encoder, check_class_names(names, "folders"), list(cfg.prompts))
    return {"class_features": features, "labels": torch.from_numpy(np.searchsorted(folders, held_out.folders))}


def _teach(cfg: DictConfig, encoder: ClipEncoder, datamodule: ImageDataModule, trainer: Trainer) -> Spread:
    """Have frozen CLIP look at every image, and measure how its features spread."""
    encoder.to(trainer.strategy.root_device)
    cache = cast("FeatureCache", build_feature_cache(cfg, encoder))
    datamodule.connect(image_size=encoder.image_size, teacher=Teacher(cache), copies=cache.copies)
    return Spread.of(datamodule.some_targets(_SPREAD_OF))


def _let_learn(cfg: DictConfig, encoder: ClipEncoder, datamodule: ImageDataModule | None = None) -> list[str]:
    """Let parts of the tower learn, and take batch norms' statistics anew where that is asked for.

    Args:
        cfg: the configuration.
        encoder: CLIP in float32.
        datamodule: gives the views that statistics are taken of; None only sees whether all of it can be done.

    Returns:
        Names of the buffers that hold such statistics.

    Raises:
        UserError: nothing would learn, or this tower cannot learn so.
    """
    parts = _plain(cfg.tuning)["parts"]
    if parts in ("frozen", ["frozen"]) and cfg.statistics != "events":
        raise UserError("tuning=frozen leaves nothing to learn: give tuning=full, layernorm, batchnorm, lora, ...")
    lora = {"lora_targets": cfg.tuning.lora_targets, "lora_rank": cfg.tuning.lora_rank}
    norms = {name: part for name, part in encoder.visual.named_modules() if isinstance(part, _BatchNorm)}
    names = []
    if cfg.statistics == "events":
        arch = encoder.describe()["arch"]
        if not norms:
            raise UserError(f"statistics=events: the image tower of {arch} has no batch norm: give statistics=images")
        if encoder.precision != "fp32":
            raise UserError(
                f"statistics=events with clip.precision={encoder.precision} would round what it measures: set "
                f"clip.precision=fp32"
            )
        if datamodule is not None:
            take_statistics(encoder, list(norms.values()), datamodule)
        names = [f"{name}.{buffer}" for name in norms for buffer in ("running_mean", "running_var")]
    call_partial(tune, "tuning", encoder=encoder, parts=parts, seed=cfg.seed, **lora)
    return names


@torch.no_grad()
def take_statistics(encoder: ClipEncoder, norms: list[_BatchNorm], datamodule: ImageDataModule) -> None:
    """Give batch norms the mean and variance of one epoch of event views (AdaBN, Li et al., arXiv 1603.04779).

    Every process sees all views in one order, so that the statistics are the same whatever their number.
    """
    device = encoder.pixel_scale.device
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.training = True
    for views in datamodule.views_once():
        encoder.encode_views(views.to(device))
    for norm in norms:
        norm.training = False


def _before(trainer: Trainer, lit: LitAlignment, datamodule: ImageDataModule) -> Tensor:
    """How well the tower finds images before anything was learned: into the history; and what shown views give."""
    trainer.validate(lit, datamodule=datamodule, verbose=False)
    return _features(lit, datamodule.shown_views(_SHOWN))


def _take_chosen(trainer: Trainer, lit: LitAlignment) -> int:
    """Put the weights of the best epoch into the tower, where one was kept; tells how many epochs they learned."""
    best = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)
    if best is None or not best.best_model_path:
        return trainer.current_epoch
    checkpoint = read_checkpoint(Path(best.best_model_path), trust=True, kind=ALIGNMENT)
    lit.load_learned(checkpoint["state_dict"])
    return int(checkpoint["epoch"]) + 1


@torch.no_grad()
def _features(lit: LitAlignment, views: Tensor) -> Tensor:
    """What the tower gives views now."""
    return lit.encoder.encode_views(views.to(lit.encoder.pixel_scale.device)).cpu()


def _draw(
    folder: Path, datamodule: ImageDataModule, history: list[dict[str, float]], features: dict[str, Tensor]
) -> None:
    """Draw how recall rose, and what some held-out views find."""
    save_figure(folder / "pictures" / "progress.png", draw_progress(history))
    places, targets = datamodule.shown_places(_SHOWN), datamodule.held_out_targets()
    found = {
        name: [
            [(datamodule.shown_image(int(one)), int(one) == own) for one in row]
            for own, row in zip(places, nearest(given.numpy(), targets, _FOUND), strict=True)
        ]
        for name, given in features.items()
    }
    views = list(datamodule.shown_views(_SHOWN).numpy())
    own = [datamodule.shown_image(place) for place in places]
    save_figure(folder / "pictures" / "nearest.png", draw_nearest(views, own, found))


def _plain(section: Any) -> Any:
    return OmegaConf.to_container(section, resolve=True)
