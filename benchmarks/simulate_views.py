"""Training steps of an alignment while 2 workers simulate, all cores, ViT-B/32 with untrained weights.

Images are JPEGs of 300x400 px with the spectrum of natural ones; cameras, motions, crops and loss are those of
conf/align.yaml. The comparator is the same training on the same batches, held in memory. On a machine of few cores
the workers take theirs from the tower, so that the ratio tells what simulation costs (and nothing where other work
keeps the cores busy). Where the tower has a GPU, what counts is that views are made faster than it takes them, which
the second row tells: one thread's views in a second, against reading and resizing the image alone.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from lightning import Callback, LightningModule, Trainer
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.measure import medians
from benchmarks.table import Row
from eventclip.config.composition import CONFIG_DIR, register_schema
from eventclip.datasets.image_datamodule import ImageDataModule
from eventclip.datasets.image_views import ImageDataset, Targets
from eventclip.models.factory import clip_options, load_clip
from eventclip.models.tuning import tune
from eventclip.training.align import build_datamodule
from eventclip.training.alignment_loss import AlignmentLoss, Spread
from eventclip.training.alignment_module import LitAlignment
from eventclip.training.experiment import quieten
from eventclip.training.optim import AdamWarmupCosine

IMAGE_HW, BATCH, WARM = (300, 400), 8, 6
"""Size of the images, views in a step, and steps that fill the workers' queues before time is taken."""


def rows(*, quick: bool) -> Iterator[Row]:
    """Views in a second, learned from and made."""
    steps, runs = (2, 1) if quick else (16, 3)
    quieten()
    with tempfile.TemporaryDirectory() as name:
        write_images(Path(name) / "images", BATCH * (WARM + steps) + 2)
        module = datamodule(Path(name))
        encoder = load_clip(**clip_options("tiny")) if quick else load_clip("ViT-B-32", None)
        encoder.drop_text_tower()
        tune(encoder, "full")
        targets = torch.randn(len(module.learned), encoder.width, generator=torch.Generator().manual_seed(0))
        module.connect(image_size=encoder.image_size, teacher=Given(targets))
        loss = AlignmentLoss()
        lit = LitAlignment(encoder, loss, AdamWarmupCosine(lr=1e-6), spread=Spread.of(targets), kept_share=0.5)
        held = Held(list(module.train_dataloader()))
        turns = [[training(lit, module, batches, steps) for batches in (None, held)] for _ in range(runs)]
        ours, theirs = (BATCH * steps / statistics.median(seconds) for seconds in zip(*turns, strict=True))
        how = f"median of {runs}, in turns, {steps} steps of {BATCH} views and half as many images"
        yield Row("training, 2 workers simulating", ours, "batches in memory", theirs, "views/s", how, True)
        yield making(module, 1 if quick else 5, 8 if quick else 100)


class Given:
    """A teacher whose features are given, row by row."""

    def __init__(self, features: Tensor) -> None:
        self.features = features.numpy()[:, None]

    def __call__(self, images: ImageDataset, copies: int) -> Targets:
        """The same for every copy, and for held-out images."""
        return np.resize(self.features, (copies * len(images), *self.features.shape[1:]))


class Held(DataLoader[Any]):
    """Batches in memory."""

    def __init__(self, batches: list[Any]) -> None:
        super().__init__(batches, batch_size=None)  # type: ignore[arg-type]


class Clock(Callback):
    """Time from the end of one step to the end of another [s]."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last, self.begun, self.seconds = first, last, 0.0, 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Look at the clock."""
        if trainer.global_step == self.first:
            self.begun = time.perf_counter()
        elif trainer.global_step == self.last:
            self.seconds = time.perf_counter() - self.begun


def training(lit: LitAlignment, module: ImageDataModule, held: Held | None, steps: int) -> float:
    """Time of so many steps after the first ones, with workers that simulate or with batches held in memory [s]."""
    clock = Clock(WARM, WARM + steps)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        accelerator="cpu",
        max_steps=WARM + steps,
        limit_val_batches=0,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[clock],
        **quiet,  # type: ignore[arg-type]
    )
    module.train_dataloader = ImageDataModule.train_dataloader.__get__(module) if held is None else lambda: held  # type: ignore[method-assign]
    trainer.fit(lit, datamodule=module)
    return clock.seconds


def making(module: ImageDataModule, runs: int, count: int) -> Row:
    """Views that one thread makes."""
    simulated = module._simulated  # noqa: SLF001  (the samples, whoever loads them)

    def simulate() -> None:
        for place in range(count):
            simulated[0, place]

    def read() -> None:
        for place in range(count):
            simulated.images[0, place]

    ours, theirs = medians([simulate, read], runs, clock=time.thread_time)
    how = f"median of {runs}, in turns, CPU time of {count}"
    return Row(
        "image file → event view", count / ours, "image file → CLIP's input", count / theirs, "views/s", how, True
    )


def datamodule(folder: Path) -> ImageDataModule:
    """The images as ``eventclip align`` deals them."""
    register_schema()
    settings = [f"images={folder / 'images'}", f"out={folder / 'aligned.safetensors'}", "paths.output=run"]
    settings += [f"batch_size={BATCH}", "num_workers=2", "heldout.most=2"]
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("align", settings)
    OmegaConf.resolve(cfg.simulation)
    return build_datamodule(cfg)


def write_images(folder: Path, count: int) -> None:
    """JPEGs with a 1/f amplitude spectrum, as photographs have on average (Field 1987)."""
    folder.mkdir()
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, IMAGE_HW), indexing="ij"))
    frequency[0, 0] = np.inf
    rng = np.random.default_rng(0)
    for number in range(count):
        planes = [np.fft.ifft2(np.fft.fft2(rng.standard_normal(IMAGE_HW)) / frequency).real for _ in range(3)]
        levels = np.stack([127.5 + 40 * plane / plane.std() for plane in planes], axis=-1)
        Image.fromarray(levels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.jpg", quality=90)
