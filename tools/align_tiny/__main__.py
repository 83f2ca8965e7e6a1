"""Align the tiny CLIP that travels with the package with the event camera, from pictures like those it learned from.

    python tools/align_tiny

Draws new pictures as its pre-training did, of all its symbols and of the demo's forty three times as often, without a
word about what they show, and hands them to ``eventclip align experiment=align_demo``. None of the font, drawing style,
camera settings or seeds of the demo's recordings comes in. A stopped run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image

from eventclip.models.alignment import read_alignment
from eventclip.plots.style import MUTED, SMALL, new_figure, save_figure, show_view
from eventclip.rng import generator
from eventclip.training.align import build_datamodule

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "src" / "eventclip" / "assets" / "tiny_clip"
sys.path.append(str(ROOT / "tools" / "pretrain_tiny"))

from pictures import FONTS, Pictures  # noqa: E402

SIDE = 160  # of a picture [px]: larger than the tower's 64, as an event camera sees more than CLIP
COUNT, BATCH = 3200, 64
SHOWN, EPOCHS = 8, 4  # images in the guide's picture of views, and views of each


def draw(folder: Path) -> None:
    """Draw the pictures, where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.glob("*.png"))) == COUNT:
        return
    pictures = Pictures(side=SIDE)
    for first in range(0, COUNT, BATCH):
        batch = pictures.draw(generator(0, "pictures to align with", index=first), BATCH)
        pixels = (batch.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
        for number, picture in enumerate(pixels, first):
            Image.fromarray(picture).save(folder / f"{number:05d}.png")
        print(f"{first + BATCH} of {COUNT} pictures", flush=True)


class Nothing:
    """Stands for features where only views are wanted."""

    def __getitem__(self, row: int) -> np.ndarray:
        return np.zeros((1, 1), np.float32)


def draw_views(run: Path, path: Path) -> None:
    """Draw some images, and what the simulated camera sees of them in the first epochs."""
    datamodule = build_datamodule(OmegaConf.load(run / ".hydra" / "config.yaml"))
    datamodule.connect(image_size=64, teacher=lambda *_: Nothing(), copies=EPOCHS)
    dataset = datamodule._simulated  # noqa: SLF001
    figure = new_figure(0.95 * SHOWN + 0.4, 0.98 * (EPOCHS + 1))
    axes = figure.subplots(EPOCHS + 1, SHOWN)
    for column in range(SHOWN):
        show_view(axes[0, column], np.asarray(dataset.images[0, column]["views"][0]))
        for epoch in range(EPOCHS):
            show_view(axes[1 + epoch, column], dataset[epoch, column]["view"].numpy())
    for row, words in enumerate(["image", *(f"epoch {epoch + 1}" for epoch in range(EPOCHS))]):
        axes[row, 0].set_ylabel(words, fontsize=SMALL, color=MUTED)
    save_figure(path, figure)


def record(file: Path, results: dict[str, Any]) -> dict[str, Any]:
    """What the file came from, and what it finds on held-out pictures."""
    made = read_alignment(file).made
    return {
        "command": "python tools/align_tiny",
        "settings": "conf/experiment/align_demo.yaml",
        "seed": made["seed"],
        "pictures": {"drawn": COUNT, "side": SIDE, "fonts": list(FONTS), "learned from and held out": made["images"]},
        "epochs": made["epochs"],
        "held_out": {"before": made["before"], "after": made["chosen"]},
        "seconds": results["seconds"],
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def main() -> None:
    """Draw, align, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("outputs/align_tiny"), help="where pictures and runs lie")
    parser.add_argument("--out", type=Path, default=ASSETS, help="where the alignment and its record go")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs", help="where the guide's pictures go")
    parser.add_argument("more", nargs="*", metavar="KEY=VALUE", help="for eventclip align, such as seed=1")
    options = parser.parse_args()
    draw(options.work / "pictures")
    options.out.mkdir(parents=True, exist_ok=True)
    file, run = options.out / "aligned.safetensors", options.work / "run"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "eventclip.align", "experiment=align_demo", f"images={options.work / 'pictures'}"]
    subprocess.run([*command, f"out={file}", f"hydra.run.dir={run}", *options.more], check=True)
    notes = record(file, json.loads((run / "results.json").read_text()))
    (options.out / "aligned.json").write_text(json.dumps(notes, indent=2) + "\n")
    for name in ("nearest", "progress"):
        shutil.copyfile(run / "pictures" / f"{name}.png", options.pictures / f"align_{name}.png")
    draw_views(run, options.pictures / "align_views.png")
    print(json.dumps(notes["held_out"], indent=2))


if __name__ == "__main__":
    main()
