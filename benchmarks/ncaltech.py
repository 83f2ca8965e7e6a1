"""A data set of N-Caltech101's layout and size on disk, and the few-shot run on it as a command says it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from eventclip.blocks import RowStore
from eventclip.config.composition import CONFIG_DIR, register_schema
from eventclip.datasets.dataset import RecordingDataset
from eventclip.features.cache import FeatureCache, row_keys, rows_in_block
from eventclip.models.encoder import ClipEncoder
from eventclip.models.factory import clip_options, load_clip
from eventclip.training.experiment import build_datamodule, build_feature_cache

CLASSES, TRAINING, TESTING, EVENTS, SENSOR, DIFFERENT = 101, 4343, 1700, 225_000, (180, 240), 20
BATCH = 64
"""Views that go through the bare tower at once, as many as the cache takes."""


def write_recordings(root: Path, training: int, testing: int, *, classes: int = CLASSES) -> None:
    """Recordings of 225,000 events (95 of 100 have fewer), ten views each: 20 different ones, the rest hard links.

    The files would take gigabytes otherwise; each is read, rendered and kept under its own name all the same.
    """
    rng = np.random.default_rng(0)
    made = []
    for number in range(DIFFERENT):
        angle, noise = rng.uniform(0, 2 * np.pi, EVENTS), rng.random(EVENTS) < 0.1
        ring = rng.choice([0.15, 0.25, 0.4], EVENTS)
        columns = []
        for unit, side in ((np.cos(angle), SENSOR[1]), (np.sin(angle), SENSOR[0])):
            edge = np.clip(side * (0.5 + ring * unit + rng.normal(0, 0.02, EVENTS)), 0, side - 1)
            columns.append(np.where(noise, rng.integers(0, side, EVENTS), edge.astype(int)))
        columns += [np.sort(rng.random(EVENTS)) * 0.3, rng.choice([-1.0, 1.0], EVENTS)]
        path = root / "made" / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.stack(columns, axis=1).astype(np.float32))
        made.append(path)
    for split, count in (("training", training), ("testing", testing)):
        for number in range(count):
            path = root / split / f"class_{number % classes:03d}" / f"{number:05d}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(made[number % DIFFERENT], path)


def build_clip(*, quick: bool) -> ClipEncoder:
    """ViT-B/32 with untrained weights, whose speed is that of trained ones; or a tiny CLIP."""
    encoder = load_clip(**clip_options("tiny")) if quick else load_clip("ViT-B-32", None)
    encoder.drop_text_tower()
    return encoder


def overrides(root: Path, cache: Path, *more: str, quick: bool) -> list[str]:
    """The few-shot run as a command says it, evaluated every 5 epochs like the reference."""
    return [
        "experiment=fewshot_ncaltech",
        *(["clip=tiny"] if quick else ["clip=vit_b_32", "clip.pretrained=null"]),
        "selection=test",
        "selection.every_n_epochs=5",
        f"data.root={root}",
        f"paths.cache={cache}",
        "callbacks.progress=null",
        *more,
    ]


def composed(settings: list[str], output: Path) -> DictConfig:
    """The configuration of such a run."""
    register_schema()
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose("train", [*settings, f"paths.output={output}"])


def samples_and_cache(cfg: DictConfig, encoder: ClipEncoder, stage: str) -> tuple[RecordingDataset, FeatureCache]:
    """What a run reads at a stage, and the feature cache it reads it from."""
    module, cache = build_datamodule(cfg), build_feature_cache(cfg, encoder)
    if cache is None:
        raise ValueError("the configuration has features=live")
    module.connect(image_size=encoder.image_size)
    cache.progress = False
    return module.dataset(stage), cache


def fill(dataset: RecordingDataset, cache: FeatureCache, *, copies: int, views: int) -> int:
    """Put made-up features into a cache for all that a run would have encoded; gives how many views were missing."""
    rng, keys = np.random.default_rng(0), row_keys(dataset, copies)
    store = RowStore(cache.place(dataset))
    missing, block = store.missing(keys), rows_in_block(len(keys))
    for start in range(0, len(missing), block):
        own = keys[missing[start : start + block]]
        store.write(own, list(rng.standard_normal((len(own), views, cache.encoder.width), np.float32)))
    return views * len(missing)
