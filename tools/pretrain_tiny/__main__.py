"""Pre-train the tiny CLIP that travels with the package.

    python tools/pretrain_tiny

RGB pictures of named symbols with captions, nothing else: no event, no event frame, none of the font and drawing
style that the demo's recordings show. One thread of an ordinary CPU needs under half an hour. A stopped run
continues where its last checkpoint was, with the same pictures; a finished one is only evaluated and recorded again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pictures import FONTS, OUTLINE_TEMPLATES, SIDE, TEMPLATES, Pictures
from safetensors.torch import save
from torch import Tensor, nn

from eventclip.rng import generator
from eventclip.simulation.drawings import CLASSES, MARGIN, Hand

ASSETS = Path(__file__).resolve().parents[2] / "src" / "eventclip" / "assets" / "tiny_clip"
UNSEEN_FONT = "DejaVuSansMono"
HELD_OUT = 1280  # pictures in each test


@dataclass(frozen=True)
class Recipe:
    """What decides the weights; recorded beside them."""

    steps: int = 5000
    batch: int = 64
    seed: int = 0
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warm_up: int = 60
    prototype_share: float = 0.6  # of the steps: images learn learnable class prototypes before they meet captions
    warp_share: float = 0.4  # of the steps, over which warps and noise grow to their full strength
    prototype_scale: float = 20.0


class Training:
    """The model, its prototypes, its optimiser, and how far they have come."""

    def __init__(self, recipe: Recipe, pictures: Pictures) -> None:
        torch.manual_seed(recipe.seed)
        open_clip.add_model_config(ASSETS / "tiny.json")
        self.recipe, self.pictures = recipe, pictures
        self.clip = open_clip.create_model("tiny").to(memory_format=torch.channels_last)
        self.tokenize = open_clip.get_tokenizer("tiny")
        width = self.clip.visual.output_dim
        self.prototypes = nn.Parameter(torch.randn(len(pictures.names), width))
        self.parameters = [*self.clip.parameters(), self.prototypes]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)
        )
        self.step, self.seconds = 0, 0.0

    def images(self, pixels: Tensor) -> Tensor:
        """Unit image features of pictures in [0, 1]."""
        mean, std = (torch.tensor(v)[:, None, None] for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
        normal = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
        return self.clip.encode_image(normal, normalize=True)

    def texts(self, captions: list[str]) -> Tensor:
        """Unit text features."""
        return self.clip.encode_text(self.tokenize(captions), normalize=True)

    def loss(self, rng: np.random.Generator) -> Tensor:
        """Loss of one step: prototypes first (a contrastive start from nothing stays on a plateau), then CLIP's."""
        done, recipe = self.step / self.recipe.steps, self.recipe
        contrastive = done >= recipe.prototype_share
        batch = self.pictures.draw(rng, recipe.batch, warp=min(1.0, done / recipe.warp_share), distinct=contrastive)
        concept = torch.from_numpy(batch.concept)
        prototypes = F.normalize(self.prototypes, dim=-1)
        image = self.images(batch.images)
        image_loss = F.cross_entropy(recipe.prototype_scale * image @ prototypes.T, concept)
        if not contrastive:
            named = rng.choice(len(self.pictures.names), 48, replace=False)
            text = self.texts([self.pictures.caption(rng, c, bool(rng.integers(2))) for c in named])
            scores = recipe.prototype_scale * text @ prototypes.detach().T
            return image_loss + F.cross_entropy(scores, torch.from_numpy(named))
        # Every concept has a caption in every batch: more negatives than pictures cost next to nothing here.
        sketched = rng.random(len(self.pictures.names)) < 0.5
        sketched[batch.concept] = batch.sketched
        text = self.texts([self.pictures.caption(rng, c, s) for c, s in enumerate(sketched)])
        logits = self.clip.logit_scale.exp() * image @ text.T
        matching = torch.arange(recipe.batch)
        clip_loss = (F.cross_entropy(logits, concept) + F.cross_entropy(logits[:, concept].T, matching)) / 2
        text_loss = F.cross_entropy(recipe.prototype_scale * text @ prototypes.detach().T, torch.arange(len(text)))
        return clip_loss + 0.3 * image_loss + 0.2 * text_loss

    def run(self, checkpoint: Path, every: int) -> None:
        """Train to the last step, leaving a checkpoint every now and then."""
        recipe = self.recipe
        self.clip.train()
        while self.step < recipe.steps:
            started = time.perf_counter()
            ramp = min(1.0, (self.step + 1) / recipe.warm_up)
            rate = recipe.learning_rate * ramp * (1 + math.cos(math.pi * self.step / recipe.steps)) / 2
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = self.loss(generator(recipe.seed, "pre-training", index=self.step))
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 3.0)
            self.optimizer.step()
            with torch.no_grad():
                self.clip.logit_scale.clamp_(0, math.log(100))
            self.step += 1
            self.seconds += time.perf_counter() - started
            if self.step % every == 0 or self.step == recipe.steps:
                self.save(checkpoint)
                print(
                    f"step {self.step}/{recipe.steps}  loss {loss.item():.3f}  {self.seconds:.0f} s  "
                    f"held-out {self.accuracy(printed(self.pictures, recipe.seed)):.3f}",
                    flush=True,
                )

    def save(self, path: Path) -> None:
        """Write everything that a later start needs, never a half-written file."""
        state = {
            "recipe": asdict(self.recipe), "step": self.step, "seconds": self.seconds, "clip": self.clip.state_dict(),
            "prototypes": self.prototypes.detach(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same recipe."""
        state = torch.load(path, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            raise SystemExit(f"{path} belongs to another recipe: {state['recipe']}; delete it or choose --work")
        self.step, self.seconds = state["step"], state["seconds"]
        self.clip.load_state_dict(state["clip"])
        self.prototypes.data.copy_(state["prototypes"])
        self.optimizer.load_state_dict(state["optimizer"])

    @torch.no_grad()
    def accuracy(self, batches: Iterable[tuple[Tensor, np.ndarray]]) -> float:
        """Share of pictures that are given the right one of the demo's names."""
        self.clip.eval()
        text = self.texts([f"a picture of a {name}" for name in CLASSES])
        right = [(self.images(i) @ text.T).argmax(dim=1).numpy() == label for i, label in batches]
        self.clip.train()
        return float(np.concatenate(right).mean())


def printed(pictures: Pictures, seed: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Held-out pictures of the demo's classes in the printed styles, with places in CLASSES as labels."""
    among = np.asarray([pictures.names.index(name) for name in CLASSES])
    for start in range(0, HELD_OUT, 64):
        batch = pictures.draw(generator(seed, "held-out pictures", index=start), 64, among=among)
        yield batch.images, (among[None] == batch.concept[:, None]).argmax(axis=1)


def sketched(seed: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    """Held-out pictures in the demo's style, which pre-training never shows: sketches, not events of them."""
    names = list(CLASSES)
    for start in range(0, HELD_OUT, 64):
        labels = np.arange(start, start + 64) % len(names)
        views = []
        for index, label in enumerate(labels, start):
            picture = Hand().sketch(names[label], 128, generator(seed, "held-out sketches", index=index))
            views.append(torch.from_numpy(picture[MARGIN:-MARGIN, MARGIN:-MARGIN]))
        small = F.interpolate(torch.stack(views)[:, None], SIDE, mode="bicubic", antialias=True)
        yield small.clamp(0, 1).expand(-1, 3, -1, -1), labels


def record(training: Training) -> dict[str, object]:
    """What the weights were made from and how well they do, to lie beside them."""
    pictures, recipe = training.pictures, training.recipe
    other = Pictures(fonts=(UNSEEN_FONT,))
    return {
        "command": "python tools/pretrain_tiny",
        "recipe": asdict(recipe),
        "data": {
            "concepts": len(pictures.names),
            "glyphs": len(pictures.masks),
            "fonts": list(FONTS),
            "pictures": recipe.steps * recipe.batch,
            "prompts": [*TEMPLATES, *OUTLINE_TEMPLATES],
        },
        "seconds": round(training.seconds),
        "threads": torch.get_num_threads(),
        "held_out_accuracy": {
            "classes": len(CLASSES),
            "pictures": HELD_OUT,
            "printed, seen fonts, new warps": training.accuracy(printed(pictures, recipe.seed)),
            f"printed, unseen font {UNSEEN_FONT}": training.accuracy(printed(other, recipe.seed)),
            "sketched, the demo's unseen style, as images": training.accuracy(sketched(recipe.seed)),
        },
        "logit_scale": round(training.clip.logit_scale.exp().item(), 3),
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, open_clip, np, mpl)},
        },
    }


def main() -> None:
    """Parse, train, export, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1, help="one is fastest where the cores are shared")
    parser.add_argument("--every", type=int, default=250, help="steps between two checkpoints")
    parser.add_argument("--work", type=Path, default=Path("outputs/pretrain_tiny"), help="where checkpoints lie")
    parser.add_argument("--out", type=Path, default=ASSETS, help="where the weights and their record go")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pictures = Pictures()
    training = Training(Recipe(steps=options.steps, seed=options.seed), pictures)
    checkpoint = options.work / "last.pt"
    if checkpoint.is_file():
        training.load(checkpoint)
        print(f"continuing at step {training.step}")
    training.run(checkpoint, options.every)
    options.out.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in training.clip.state_dict().items()
    }
    file = options.out / "tiny.safetensors"
    file.write_bytes(save(weights))
    # What is measured is what is shipped: half precision.
    training.clip.load_state_dict(weights)
    notes = record(training) | {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (options.out / "record.json").write_text(json.dumps(notes, indent=2) + "\n")
    print(json.dumps(notes["held_out_accuracy"], indent=2))


if __name__ == "__main__":
    main()
