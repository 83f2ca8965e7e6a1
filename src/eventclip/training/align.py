"""Composed configuration -> teacher's features -> alignment -> the file of what learned, pictures, results.json."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

import eventclip
from eventclip.class_names import check_class_names
from eventclip.datasets.image_datamodule import ImageDataModule
from eventclip.datasets.images import Crops, HeldOut, Images
from eventclip.datasets.pairs import Pairs, read_pairs
from eventclip.datasets.sources import EventFiles
from eventclip.errors import UserError
from eventclip.features.cache import FeatureCache
from eventclip.files import write_json
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
from eventclip.training.experiment import make_trainer, quieten, versions
from eventclip.training.requeue import leave_if_asked
from eventclip.training.resume import begin, flat_settings

log = logging.getLogger(__name__)

_SHOWN, _FOUND = 8, 4
"""Views in the picture, and images that each finds."""

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d

_SPREAD_OF = 10_000
"""Images whose features tell mean and deviation."""


@dataclass(frozen=True)
class Teacher:
    """Frozen CLIP, which looks at images once; what it gave is read from the feature cache."""

    cache: FeatureCache

    def __call__(self, images: Any, copies: int) -> Any:
        """Features of images, copy after copy."""
        return self.cache.rows(images, copies)


def align(cfg: DictConfig) -> float:
    """Align an image tower with the event camera, and write what learned.

    Returns:
        recall@1 of held-out images by their simulated views, with the weights that were written.

    Raises:
        UserError: an option outside its range, no images, a tower that cannot learn so, or a place that cannot be
            written to.
    """
    started = time.monotonic()
    quieten()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    out, folder = Path(cfg.out).expanduser(), Path(cfg.paths.output)
    check_place(out)
    loss = AlignmentLoss(**_plain(cfg.loss))
    datamodule = build_datamodule(cfg)
    for cause in datamodule.skipped:
        log.warning("left out: %s", cause)
    encoder: ClipEncoder = build(cfg.clip, "clip", ClipEncoder)
    classes = _classes(cfg, encoder, datamodule.held_out)
    encoder.drop_text_tower()
    metadata = make_metadata(
        config=cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True)),
        class_names=[],
        clip=encoder.describe(),
        data=datamodule.describe(),
        version=eventclip.__version__,
        kind=ALIGNMENT,
    )
    trainer = make_trainer(cfg, [])
    spread = _teach(cfg, encoder, datamodule, trainer)
    buffers = _let_learn(cfg, encoder, datamodule)
    lit = LitAlignment(
        encoder,
        loss,
        build(cfg.optim, "optim"),
        spread=spread,
        keep_share=datamodule.keep_share,
        clip_factor=cfg.tuning.clip_factor,
        buffers=buffers,
        metadata=metadata,
        **classes,
    )
    resume, restarts = begin(trainer, cfg.resume, folder, metadata, trust=cfg.trust)
    frozen = _before(trainer, lit, datamodule)
    before = lit.history[0]
    trainer.fit(lit, datamodule=datamodule, ckpt_path=resume, weights_only=True)
    history = list(lit.history)
    _take_chosen(trainer, lit)
    chosen = trainer.validate(lit, datamodule=datamodule, verbose=False)[0]
    found = {name.removeprefix("val/"): float(value) for name, value in chosen.items() if name.startswith("val/")}
    if trainer.is_global_zero:
        made = {
            "images": datamodule.describe()["images"],
            "pairs": datamodule.describe()["pairs"],
            "seed": cfg.seed,
            "epochs": cfg.trainer.max_epochs,
            "before": before,
            "chosen": found,
            "settings": flat_settings(metadata["config"]),
        }
        tuning = {name: _plain(cfg.tuning)[name] for name in ("parts", "lora_targets", "lora_rank")}
        state = aligned_state(encoder.visual, buffers=buffers)
        _draw(
            folder, datamodule, history, {"before": frozen, "aligned": _features(lit, datamodule.shown_views(_SHOWN))}
        )
        results = {
            "name": cfg.name,
            "metrics": found,
            "history": history,
            "seed": cfg.seed,
            "settings": made["settings"],
            "data": metadata["data"],
            "clip": metadata["clip"],
            "versions": versions(),
            "resumed": resume is not None,
            "restarts": restarts,
            "seconds": round(time.monotonic() - started, 1),
        }
        write_json(folder / "results.json", results)
        write_alignment(out, encoder, state, tuning=tuning, made=made, dtype=cfg.dtype)  # whoever finds it finds all
        log.info("recall@1 of held-out images: %.3f before, %.3f now", before["recall"], found["recall"])
        log.info("%s: give it as clip.aligned=%s; pictures and results: %s", out, out, folder)
    trainer.strategy.barrier("the alignment is written")
    return found["recall"]


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

    Raises:
        UserError: it is a folder, is there already, or lies where nothing can be written.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"out={out} must end in .safetensors, the kind of file that is written")
    if out.exists():
        raise UserError(f"out={out} is there already: remove it to align anew, or give another out=")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error.strerror or error}): give another place") from None
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"out={out} cannot be written: give a file in a folder that you can write to")


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
    kept = build(cfg.features, "features")
    cache: FeatureCache = call_partial(kept, "features", encoder=encoder, between=leave_if_asked)
    copies = min(cache.copies, max(cfg.trainer.max_epochs or 1, 1))
    datamodule.connect(image_size=encoder.image_size, teacher=Teacher(cache), copies=copies)
    return Spread.of(datamodule.some_targets(_SPREAD_OF))


def _let_learn(cfg: DictConfig, encoder: ClipEncoder, datamodule: ImageDataModule) -> list[str]:
    """Let parts of the tower learn, and take batch norms' statistics anew where that is asked for: their names."""
    parts = _plain(cfg.tuning)["parts"]
    if parts == "frozen" and cfg.statistics != "events":
        raise UserError("tuning=frozen leaves nothing to learn: give tuning=full, layernorm, batchnorm, lora, ...")
    lora = {"lora_targets": cfg.tuning.lora_targets, "lora_rank": cfg.tuning.lora_rank}
    modules = dict(encoder.visual.named_modules())
    norms = {name: part for name, part in modules.items() if isinstance(part, BatchNorm)}
    names = []
    if cfg.statistics == "events":
        if not norms:
            arch = encoder.describe()["arch"]
            raise UserError(f"statistics=events: the image tower of {arch} has no batch norm, so leave it out")
        take_statistics(encoder, list(norms.values()), datamodule)
        names = [f"{name}.{buffer}" for name in norms for buffer in ("running_mean", "running_var")]
    call_partial(tune, "tuning", encoder=encoder, parts=parts, seed=cfg.seed, **lora)
    return names


@torch.no_grad()
def take_statistics(encoder: ClipEncoder, norms: list[BatchNorm], datamodule: ImageDataModule) -> None:
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


def _take_chosen(trainer: Trainer, lit: LitAlignment) -> None:
    """Put the weights of the best epoch, or of the last one, into the tower."""
    best = next((c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)), None)
    if best is None or not best.best_model_path:
        return
    checkpoint = read_checkpoint(Path(best.best_model_path), trust=True, kind=ALIGNMENT)
    lit.load_learned(checkpoint["state_dict"])


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
