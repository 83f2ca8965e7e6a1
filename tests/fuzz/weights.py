"""Files that torch reads: checkpoints, weights, and what describes an architecture; and what a teacher's run leaves."""

import io
import json
import zipfile
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from random import Random

import mutators
import numpy as np
import torch
from kinds import Prepared

from eventclip.inference.api import EventCLIP
from eventclip.models.architecture import build_clip, find_architecture
from eventclip.models.building import build_classifier
from eventclip.models.checkpoint import CLASSIFIER, load_reference_checkpoint, make_metadata
from eventclip.models.factory import load_clip
from eventclip.models.weights import fill, read_weight_file
from eventclip.training.resume import _count_start, _newest
from eventclip.training.scores import ScoreStore
from eventclip.training.selection import score_dtype

ARCHITECTURE = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}
SENSOR = (60, 80)


def _saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _retyped_torch(rng: Random, samples: list[bytes], *, trees: list[object]) -> bytes:
    """A value of another kind in what torch saved; half of the time damaged as bytes."""
    if rng.random() < 0.4:
        return mutators.damaged_headers(rng, samples)
    content = deepcopy(rng.choice(trees))
    for _ in range(rng.choice((1, 1, 2))):
        content = _odd_tensor(rng, content) if rng.random() < 0.3 else mutators.odd_value(rng, content)
    return _saved(content)


def _odd_tensor(rng: Random, content: object) -> object:
    """Replace a tensor by one of another type, shape or value."""
    places = [(holder, key) for holder, key in mutators._places(content) if isinstance(holder[key], torch.Tensor)]
    if not places:
        return mutators.odd_value(rng, content)
    holder, key = rng.choice(places)
    odd = (
        *(torch.zeros(0), torch.tensor(1.0), torch.full(holder[key].shape, torch.nan), holder[key].half()),
        *(
            holder[key].to(torch.int8),
            torch.zeros(3, 1, 2),
            holder[key].to_sparse(),
            holder[key].expand(2, *holder[key].shape),
        ),
        *(holder[key].to(torch.complex64), torch.zeros(1).expand(1 << 40), torch.empty(4, 4, device="meta")),
    )
    holder[key] = rng.choice(odd)
    return content


def _encoder(folder: Path) -> tuple[Path, Path]:
    """An untrained CLIP of a few kilobytes beside its words: (configuration, weights)."""
    config, weights = folder / "small.json", folder / "small.pt"
    config.write_text(json.dumps(ARCHITECTURE))
    torch.save(
        build_clip(find_architecture(None, config), quick_gelu=False, precision="fp32", seed=0).state_dict(), weights
    )
    return config, weights


def _card_and_state(folder: Path) -> dict[str, object]:
    """A checkpoint of ours, made as `eventclip.train` makes it."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from eventclip.config.composition import CONFIG_DIR, register_schema

    config, _ = _encoder(folder)
    register_schema()
    overrides = (
        *("experiment=fewshot_ncaltech", f"clip.config={config}", "clip.arch=null", "clip.pretrained=null"),
        *(
            f"data.root={folder}",
            f"data.sensor_hw=[{SENSOR[0]},{SENSOR[1]}]",
            "frames.events_per_frame=200",
            f"paths.output={folder}",
        ),
    )
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("train", list(overrides))
    plain = OmegaConf.to_container(cfg, resolve=True)
    classifier = build_classifier(cfg, ["ant", "bee"])
    card = make_metadata(
        config=plain,
        class_names=["ant", "bee"],
        clip=classifier.encoder.describe(),
        data={"root": str(folder), "checksums": {"test": "a" * 64}, "recordings": {"test": 4}},
        version="0.1.0",
    )
    state = {name: tensor.clone() for name, tensor in classifier.learned_state_dict().items()}
    return {"global_step": 5, "epoch": 1, "state_dict": state, "eventclip": card}


def _checkpoint(folder: Path) -> Prepared:
    tree = _card_and_state(folder)
    events = np.stack(
        [np.arange(400) % 80, np.arange(400) % 60, np.arange(400) / 1e4, np.arange(400) % 2], axis=1
    ).astype(np.float32)

    def read(path: Path) -> None:
        model = EventCLIP.from_checkpoint(path, device="cpu")
        found = model.classify(events, sensor_hw=SENSOR)
        assert np.isfinite(found.probabilities).all(), "probabilities that are no numbers"

    return Prepared(folder / "mutant.ckpt", [_saved(tree)], partial(_retyped_torch, trees=[tree]), read)


def _resumed_checkpoint(folder: Path) -> Prepared:
    """The only checkpoint of a run that is to go on."""
    tree = _card_and_state(folder)
    place = folder / "checkpoints"
    place.mkdir()
    return Prepared(
        place / "last.ckpt",
        [_saved(tree)],
        partial(_retyped_torch, trees=[tree]),
        lambda path: _newest(path.parent, CLASSIFIER),
        named=str(place),
    )


def _reference(folder: Path) -> Prepared:
    state = {
        "adapter.in_proj.weight": torch.ones(4, 8),
        "text_feats": torch.ones(2, 8),
        "adapter.dummy": torch.zeros(1),
    }
    tree = {"state_dict": state, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}}
    mutate = partial(_retyped_torch, trees=[tree])
    return Prepared(folder / "mutant.pth", [_saved(tree)], mutate, load_reference_checkpoint)


def _read_into(model: torch.nn.Module) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        fill(model, path, read_weight_file(path), arch="small")
        assert all(bool(value.isfinite().all()) for value in model.parameters()), "weights that are no numbers"

    return read


def _small_model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))


def _torch_weights(folder: Path) -> Prepared:
    model = _small_model()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trees = [
        state,
        {"state_dict": dict(state), "epoch": 1},
        {f"module.{name}": tensor for name, tensor in state.items()},
    ]
    samples = [_saved(tree) for tree in trees]
    return Prepared(folder / "mutant.pt", samples, partial(_retyped_torch, trees=trees), _read_into(model))


def _safetensors(folder: Path) -> Prepared:
    from safetensors.torch import save

    model = _small_model()
    return Prepared(folder / "mutant.safetensors", [save(model.state_dict())], _retold_safetensors, _read_into(model))


def _retold_safetensors(rng: Random, samples: list[bytes]) -> bytes:
    """The JSON at its start retyped, its length made right; half of the time damaged as bytes."""
    if rng.random() < 0.5:
        return mutators.damaged(rng, samples)
    sample = rng.choice(samples)
    size = int.from_bytes(sample[:8], "little")
    head = mutators.retyped(rng, [sample[8 : 8 + size]])
    return len(head).to_bytes(8, "little") + head + sample[8 + size :]


def _torchscript(folder: Path) -> Prepared:
    model = _small_model()
    scripted = io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(model, torch.zeros(1, 4)), scripted)
    return Prepared(folder / "mutant.pt", [scripted.getvalue()], _rezipped_torchscript, _read_into(model))


def _rezipped_torchscript(rng: Random, samples: list[bytes]) -> bytes:
    return mutators.rezipped(rng, samples, inner=mutators.damaged, compression=zipfile.ZIP_STORED)


def _clip_config(folder: Path) -> Prepared:
    published = {"model_cfg": ARCHITECTURE, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}
    samples = [json.dumps(one).encode() for one in (ARCHITECTURE, published)]

    def read(path: Path) -> None:
        encoder = load_clip(None, None, config=path)
        views = torch.zeros(1, 3, encoder.image_size, encoder.image_size, dtype=torch.uint8)
        if encoder.image_size <= 64:
            encoder.encode_views(views)

    return Prepared(folder / "mutant.json", samples, mutators.retyped, read, named="mutant", may_ask_for_memory=True)


def _starts(folder: Path) -> Prepared:
    def read(path: Path) -> None:
        before = _count_start(path, afresh=False)
        assert type(before) is int, f"{before!r} starts"
        assert before >= 0, f"{before} starts"

    return Prepared(folder / "starts.json", [b'{\n "starts": 3\n}\n'], mutators.retyped, read, always_read=True)


def _scores(folder: Path) -> Prepared:
    paths = np.array([b"a/%d.npy" % number for number in range(6)])

    def store() -> ScoreStore:
        return ScoreStore(folder, {"teacher": "x"}, paths, shard_size=6, tta=4)

    rng = np.random.default_rng(0)
    scores = np.zeros(6, score_dtype(4))
    scores["probability"], scores["top"] = rng.random(6), rng.random((6, 4))
    store().write(0, scores)
    (kept,) = store().folder.glob("000000*")

    def read(path: Path) -> None:
        found = store()
        if found.missing([0]):
            return
        assert found.read().tobytes() == scores.tobytes(), "other scores are believed"

    return Prepared(kept, [kept.read_bytes()], mutators.damaged, read, named=str(folder))


PREPARE: dict[str, Callable[[Path], Prepared]] = {
    "checkpoint": _checkpoint,
    "resumed_checkpoint": _resumed_checkpoint,
    "reference": _reference,
    "torch_weights": _torch_weights,
    "safetensors": _safetensors,
    "torchscript": _torchscript,
    "clip_config": _clip_config,
    "starts": _starts,
    "scores": _scores,
}
