"""Peak memory of processes and their workers together, pages that they share counted once (PSS, sampled).

The few-shot run has 5 shots of 101 classes in 10 copies and 1,700 test recordings of 10 views, and ends after 10
epochs. The cache is filled, with 2 workers, of 16 training recordings in one copy and 16 test recordings. Both
comparators are bare Python processes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.ncaltech import (
    BATCH,
    CLASSES,
    TESTING,
    build_clip,
    composed,
    fill,
    overrides,
    samples_and_cache,
    write_recordings,
)
from benchmarks.table import Row

HOLD = "from eventclip.models.factory import load_clip; encoder = load_clip('ViT-B-32', None)"
ENCODE = f"import torch; {HOLD}\nwith torch.inference_mode(): encoder.visual(torch.zeros({BATCH}, 3, 224, 224))"


def rows(*, quick: bool) -> Iterator[Row]:
    """Peaks in MiB; of 1 epoch where it need only be shown to work."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_recordings(folder / "few", 16, 16, classes=16)
        write_recordings(folder / "data", 5 * CLASSES, TESTING)
        cached = ("features=cached", "features.progress=false")
        build = overrides(folder / "few", folder / "few_cache", *cached, "fewshot.shots=1", quick=False)
        build += ["trainer.max_epochs=1", "features.rebuild=true"]
        run = overrides(folder / "data", folder / "cache", *cached, quick=False)
        run.append(f"trainer.max_epochs={1 if quick else 10}")
        cfg, encoder = composed(run, folder / "composed"), build_clip(quick=False)
        for stage, copies, views in (("fit", 1 if quick else 10, 2), ("test", 1, 10)):
            fill(*samples_and_cache(cfg, encoder, stage), copies=copies, views=views)

        def trained(settings: list[str], place: str) -> list[str]:
            place = f"hydra.run.dir={folder / place}"
            return ["-m", "eventclip.train", *settings, place]

        cases = {
            "a cache is filled, then 1 epoch": (trained(build, "build"), ENCODE),
            "few-shot run from the cache": (trained(run, "run"), HOLD),
        }
        named = {ENCODE: "bare tower, one batch of 64 encoded", HOLD: "bare process that has built the same CLIP"}
        for what, (ours, theirs) in cases.items():
            bare = ["-c", theirs]
            values = [peak(arguments) / 2**20 for arguments in (ours, bare)]
            yield Row(f"peak memory, {what}", values[0], named[theirs], values[1], "MiB", "once each")


def peak(arguments: list[str]) -> int:
    """Most memory [bytes] of a Python process and all its descendants while it runs, looked at every 50 ms."""
    most = 0
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, _family_bytes(process.pid))
            time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"python {' '.join(arguments[:2])} failed")
    return most


def _family_bytes(pid: int) -> int:
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text()
        children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it ended meanwhile
        return 0
    own = sum(1024 * int(size) for size in re.findall(r"^Pss: +(\d+) kB", told, re.MULTILINE))
    return own + sum(_family_bytes(int(child)) for some in children for child in some)
