"""What keeping freed memory saves where a CLIP runs on a CPU: ready views to features, with and without, on one thread.

Each side is a process of its own that encodes the same views over and over; the sides take turns. The features are
compared bit by bit. How much it saves depends on how fast the kernel gives memory out: more on a virtual machine whose
memory is itself handed out as needed. On another C library than glibc both sides are the same.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import DifferError
from benchmarks.table import Row

EFFICIENTNET = {
    "embed_dim": 256,
    "vision_cfg": {
        "timm_model_name": "efficientnet_lite0",
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": 224,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}

ENCODE = """
import hashlib, json, sys, time
import torch
from eventclip.features.encode import encode_in_batches
from eventclip.models import factory
kept, clip, count, runs = json.loads(sys.argv[1])
if not kept:
    factory.keep_freed_memory = lambda: False
torch.set_num_threads(1)
encoder = factory.load_clip(**clip)
views = torch.randint(256, (count, 1, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
taken = []
for _ in range(runs + 1):
    start = time.perf_counter()
    features = encode_in_batches(encoder, [views])
    taken.append(time.perf_counter() - start)
print(json.dumps([taken[1:], hashlib.sha256(features.tobytes()).hexdigest()]))
"""


def rows(*, quick: bool) -> Iterator[Row]:
    """Views in a second of some towers."""
    turns, runs, count = (1, 1, 4) if quick else (3, 2, 32)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "efficientnet_lite0.json"
        config.write_text(json.dumps(EFFICIENTNET))
        towers = {
            "EfficientNet-Lite0": {"arch": None, "config": str(config)},
            "RN50": {"arch": "RN50", "quick_gelu": True},
            "ViT-B/32": {"arch": "ViT-B-32", "quick_gelu": True},
        }
        for name, clip in list(towers.items())[: 1 if quick else None]:
            taken: dict[bool, list[float]] = {True: [], False: []}
            seen = set()
            for kept in (True, False) * turns:
                words = [sys.executable, "-c", ENCODE, json.dumps([kept, clip, count, runs])]
                done = subprocess.run(words, check=True, capture_output=True, text=True)
                times, digest = json.loads(done.stdout)
                taken[kept] += times
                seen.add(digest)
            if len(seen) > 1:
                raise DifferError(f"{name}, ready views → features")
            ours, theirs = (count / statistics.median(taken[kept]) for kept in (True, False))
            how = f"median of {turns * runs} in {turns} processes, in turns, {count} views"
            yield Row(f"ready views → features, {name}", ours, "memory handed back", theirs, "views/s", how, True)
