"""What `clip.aligned` costs once a CLIP is loaded, on one thread: the same tower with and without, in turns.

Untrained towers whose alignment is LoRA on every matrix, multiplied out and merged at load; that no parametrization is
left and that the features are those of the tower that learned is checked. From events to a label through EventCLIP, and
from ready views to features. The ratio should be 1.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import parametrize

from benchmarks.classify import COUNT, SENSOR, made_up
from benchmarks.measure import DifferError, medians
from benchmarks.table import Row
from eventclip import EventCLIP
from eventclip.features.encode import encode_in_batches
from eventclip.models.alignment import aligned_state, write_alignment
from eventclip.models.encoder import ClipEncoder
from eventclip.models.factory import clip_options, load_clip
from eventclip.models.tuning import tune


def rows(*, quick: bool) -> Iterator[Row]:
    """Time of one recording, and views in a second."""
    runs, count = (1, 2) if quick else (7, 32)  # what the cache encodes at once: fewer are filled up
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        for arch in ("tiny",) if quick else ("ViT-B-32", "RN50"):
            path = Path(name) / f"{arch}.safetensors"
            options = {**clip_options({"arch": arch, "pretrained": None}), "quick_gelu": True}
            views, learned = write(path, options, count)
            plain, aligned = load_clip(**options), load_clip(**options, aligned=path)
            if any(parametrize.is_parametrized(module) for module in aligned.modules()):
                raise SystemExit(f"{arch}: a parametrization is left after loading")
            if not np.allclose(encode_in_batches(aligned, [views]), learned, atol=1e-4):
                raise DifferError(f"{arch}, ready views → features")
            how = f"median of {runs}, in turns, {count} views, CPU time"
            ours, theirs = medians([encoding(aligned, views), encoding(plain, views)], runs, clock=time.thread_time)
            what = f"ready views → features, {arch} aligned"
            yield Row(what, count / ours, f"{arch} without", count / theirs, "views/s", how, True)
        yield classifying(Path(name), "tiny" if quick else "ViT-B-32", runs)


def write(path: Path, options: dict[str, Any], count: int) -> tuple[Tensor, NDArray[np.floating[Any]]]:
    """Let LoRA move every matrix a little, and write that; gives views, and the features of the tower that learned."""
    encoder, generator = load_clip(**options), torch.Generator().manual_seed(0)
    tune(encoder, "lora", lora_targets="all", lora_rank=8)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(0.002 * torch.randn(parameter.shape, generator=generator))
    tuning = {"parts": "lora", "lora_targets": "all", "lora_rank": 8}
    write_alignment(path, encoder, aligned_state(encoder.visual), tuning=tuning, made={})
    side = encoder.image_size
    views = torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=generator)
    return views, encode_in_batches(encoder, [views])


def encoding(encoder: ClipEncoder, views: Tensor) -> Callable[[], object]:
    """Encode the views, as the feature cache does."""
    return lambda: encode_in_batches(encoder, [views])


def classifying(folder: Path, arch: str, runs: int) -> Row:
    """Events in memory to a label."""
    clip = {"arch": arch, "pretrained": None, "quick_gelu": True}
    names, events = [f"thing {k}" for k in range(101)], made_up()
    aligned, plain = (
        EventCLIP.zero_shot(names, clip={**clip, **more}, device="cpu")
        for more in ({"aligned": folder / f"{arch}.safetensors"}, {})
    )
    work = [lambda model=model: model.classify(events, sensor_hw=SENSOR) for model in (aligned, plain)]
    ours, theirs = medians(work, runs, clock=time.thread_time)
    what = f"{COUNT:,} events → label, {arch} aligned"
    return Row(what, 1e3 * ours, f"{arch} without", 1e3 * theirs, "ms", f"median of {runs}, in turns, CPU time")
