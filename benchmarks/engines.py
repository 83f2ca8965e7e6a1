"""Ready views to features: a frozen tower run by another engine against torch, all cores, each in turn.

"Ready views" are one tensor of uint8 in memory. Both sides are `encode_in_batches` on the same untrained weights, in
the same batches, with as many threads; what an engine does once, such as compiling the tower, is in no time. Exact
features are compared with torch's; those of "fast" are told beside it: their smallest cosine to torch's.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.allocator import EFFICIENTNET
from benchmarks.measure import DifferError, medians
from benchmarks.table import Row
from eventclip.features.encode import encode_in_batches
from eventclip.models.engines import ENGINES, is_installed
from eventclip.models.factory import load_clip

_EXACT = 1e-4  # of the largest feature: untrained towers round more than trained ones


def rows(*, quick: bool) -> Iterator[Row]:
    """Views in a second, tower after tower; engines that are not installed are left out."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "efficientnet.json")
        file.write_text(json.dumps(EFFICIENTNET))
        towers: dict[str, dict[str, Any]] = {
            "EfficientNet-Lite0": {"arch": None, "config": file, "quick_gelu": False},
            "ViT-B/32": {"arch": "ViT-B-32"},
        }
        for tower, options in {"the tiny CLIP": {"arch": "tiny"}}.items() if quick else towers.items():
            yield from _rows(tower, options, quick=quick)


def _rows(tower: str, options: dict[str, Any], *, quick: bool) -> Iterator[Row]:
    kinds = [(name, kind) for name, has in ENGINES.items() if name == "torch" or is_installed(name) for kind in has]
    encoders = [load_clip(**options, engine=name, engine_precision=kind) for name, kind in kinds]
    for encoder in encoders:
        encoder.drop_text_tower()
    side = encoders[0].image_size
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(256, (32 if quick else 128, 1, side, side), dtype=torch.uint8, generator=generator)
    features = [encode_in_batches(encoder, [views]) for encoder in encoders]
    runs = 1 if quick else 5
    taken = medians([partial(encode_in_batches, encoder, [views]) for encoder in encoders], runs)
    how = f"median of {runs}, in turns, {len(views)} views"
    for (name, kind), own, seconds in list(zip(kinds, features, taken, strict=True))[1:]:
        what, reference = f"ready views → features, {tower}, {name}, {kind}", features[0]
        if kind == "exact" and np.abs(own - reference).max() > _EXACT * np.abs(reference).max():
            raise DifferError(what)
        cosine = (own * reference).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(reference, axis=1)
        told = how if kind == "exact" else f"{how}; cosine to torch's features ≥ {cosine.min():.4f}"
        yield Row(what, len(views) / seconds, "torch", len(views) / taken[0], "views/s", told, more_is_better=True)
