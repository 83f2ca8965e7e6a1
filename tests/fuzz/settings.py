"""Every command with one odd value in one of its settings, as it is typed, up to where it would begin heavy work."""

import contextlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from random import Random

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from kinds import Prepared
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from weights import SENSOR, _card_and_state

from eventclip.config.composition import (
    CONFIG_DIR,
    PseudoLabelConfig,
    TrainConfig,
    register_checkpoint,
    register_schema,
)
from eventclip.errors import UserError

VALUES = (
    *("null", "true", "false", "no", "0", "-1", "1", "1.5", "1e5", "nan", "inf", "1e308", "2147483648", "abc", "''"),
    *(
        "9223372036854775808",
        "1" + "0" * 30,
        "[]",
        "[1]",
        "[null]",
        "[a,b]",
        "[[1]]",
        "{}",
        "{a:1}",
        "{_target_:os.system}",
    ),
    *(
        "100ms",
        "180x240",
        "[180.5,240]",
        "'a b'",
        "'../x'",
        "'${oc.env:HOME}'",
        "'${nope}'",
        "???",
        "/dev/null/x",  # a folder nobody can make, root included
    ),
)
_MANY = ("workers", "devices", "num_nodes")  # where a large number would be taken at its word


def prepare(folder: Path) -> Prepared:
    """Small data for every command, and all their settings."""
    words = _commands(folder)
    settings = {name: _settings(name, typed) for name, typed in words.items()}
    _stop_before_heavy_work()
    samples = [json.dumps([name, typed]).encode() for name, typed in words.items()]
    return Prepared(folder / "typed.json", samples, _odd(words, settings), _type, named="eventclip: ", of=_told)


def _told(content: bytes) -> str:
    name, typed = json.loads(content)
    return f"{name} {typed[-1]}: "


def _settings(name: str, typed: list[str]) -> list[str]:
    """Every key of a command; none where its configuration does not compose, which its sound sample tells."""
    try:
        return list(_keys(_composed(name, typed)))
    except HydraException:
        return []


def _odd(words: dict[str, list[str]], settings: dict[str, list[str]]):
    def mutate(rng: Random, _: object) -> bytes:
        name = rng.choice([name for name in sorted(words) if settings[name]])
        key = rng.choice(settings[name])
        value = rng.choice(VALUES)
        while any(word in key for word in _MANY) and value.isdigit() and int(value) > 1:
            value = rng.choice(VALUES)
        if rng.random() < 0.04:
            key += rng.choice(("s", "_"))
        return json.dumps([name, [*words[name], f"{key}={value}"]]).encode()

    return mutate


def _commands(folder: Path) -> dict[str, list[str]]:
    """What is typed for each command where nothing is odd."""
    tree = _card_and_state(folder)
    tree["eventclip"]["config"]["data"]["root"] = str(folder / "set")
    torch.save(tree, folder / "sound.ckpt")
    torch.save({"state_dict": {"text_feats": torch.zeros(2, 8)}}, folder / "sound.pth")
    rng = np.random.default_rng(0)
    for split in ("training", "validation", "testing"):
        for name in ("ant", "bee"):
            place = folder / "set" / split / name
            place.mkdir(parents=True)
            for number in range(3):
                columns = (
                    rng.integers(0, 80, 500),
                    rng.integers(0, 60, 500),
                    np.sort(rng.random(500)),
                    rng.integers(0, 2, 500),
                )
                np.save(place / f"{number}.npy", np.stack(columns, axis=1).astype(np.float32))
    (folder / "images" / "ant").mkdir(parents=True)
    for number in range(5):
        Image.fromarray(rng.integers(0, 255, (20, 30), dtype=np.uint8)).save(
            folder / "images" / "ant" / f"{number}.png"
        )
    clip = ["clip=tiny", f"clip.config={folder / 'small.json'}", "clip.arch=null", "clip.pretrained=null"]
    data = [f"data.root={folder / 'set'}", f"data.sensor_hw=[{SENSOR[0]},{SENSOR[1]}]", "data.p95_events=600"]
    run = [
        *clip,
        *data,
        "frames.events_per_frame=200",
        "data.num_workers=0",
        "fewshot.shots=1",
        "hydra.run.dir=run",
        "data.batch_size=2",
    ]
    recording = folder / "set" / "testing" / "ant" / "0.npy"
    looking = [
        *clip,
        f"sensor_hw=[{SENSOR[0]},{SENSOR[1]}]",
        "classes=[ant,bee]",
        "device=cpu",
        "frames.events_per_frame=200",
    ]
    return {
        "train": ["experiment=fewshot_ncaltech", *run, "trainer.max_epochs=1"],
        "evaluate": [f"checkpoint={folder / 'sound.ckpt'}", *data, "data.num_workers=0", "hydra.run.dir=run"],
        "import_checkpoint": [
            f"reference={folder / 'sound.pth'}",
            "experiment=fewshot_ncaltech",
            *run[:-2],
            "hydra.run.dir=run",
            "out=made.ckpt",
        ],
        "pseudo_label": [
            "experiment=pseudo_label_nimagenet_mini",
            "data=ncaltech101",
            *run,
            "out=pseudo.json",
            "pseudo.threshold=0.5",
        ],
        "pack": [*data, "data.num_workers=0", "out=packed", "workers=1", "progress=false"],
        "data_check": [*data, "data.num_workers=0", "progress=false"],
        "predict": [f"recordings={recording}", *looking, "out=p.csv", "progress=false"],
        "show": [f"recording={recording}", *looking, "out=s.png"],
        "simulate": [
            f"images={folder / 'images'}",
            "out=recordings",
            "sensor_hw=[20,30]",
            "amplitude_px=2",
            "progress=false",
        ],
        "pairs": [
            f"recordings={folder / 'set'}",
            f"originals={folder / 'set'}",
            "out=pairs.csv",
            "progress=false",
        ],
        "align": [
            f"images={folder / 'images'}",
            *clip,
            "out=aligned.safetensors",
            "num_workers=0",
            "heldout.share=0.4",
            "trainer.max_epochs=1",
        ],
    }


def _composed(name: str, typed: list[str]) -> DictConfig:
    register_schema(PseudoLabelConfig if name == "pseudo_label" else TrainConfig)
    if name == "evaluate":
        path = next(word.removeprefix("checkpoint=") for word in typed if word.startswith("checkpoint="))
        register_checkpoint(torch.load(path, weights_only=True)["eventclip"]["config"])
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose(name, typed)


def _keys(section: DictConfig, prefix: str = "") -> Iterator[str]:
    """Every key of a configuration, dotted, sections too."""
    for key in section:
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(section, key) and OmegaConf.is_dict(section._get_node(key)):
            yield from _keys(section[key], f"{prefix}{key}.")


class _HeavyWork(BaseException):
    """A command has accepted its settings."""


def _stop_before_heavy_work() -> None:
    """Let training, testing, guessing, packing, pairing, simulating and what caches features raise at their start."""

    def begin(*_: object, **__: object) -> None:
        raise _HeavyWork

    import lightning

    from eventclip.simulation.folder import Simulation

    for owner, name in (
        *(
            (lightning.Trainer, "fit"),
            (lightning.Trainer, "test"),
            (lightning.Fabric, "launch"),
            (Simulation, "simulate"),
        ),
        (import_module("eventclip.datasets.packing"), "_fill"),
        (import_module("eventclip.features.cache").FeatureCache, "rows"),
        (import_module("eventclip.datasets.pairing").Files, "below"),  # of a home folder, it may be long
    ):
        assert hasattr(owner, name), f"{owner} has no {name}"
        setattr(owner, name, begin)


def _type(path: Path) -> str:
    """Run a command as typed, in this process and an empty folder; UserError with what it said if it refused."""
    name, typed = json.loads(path.read_bytes())
    main = import_module(f"eventclip.{name}").main
    here = path.parent / "here"
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir()
    argv, before, told, environment = sys.argv, Path.cwd(), io.StringIO(), dict(os.environ)
    sys.argv = [name, *typed]
    os.chdir(here)
    GlobalHydra.instance().clear()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            main()
    except _HeavyWork:
        pass
    except SystemExit as end:
        if isinstance(end.code, str):
            raise UserError(end.code) from None
        lines = [line for line in told.getvalue().splitlines() if line.strip()]
        if end.code:
            assert len(lines) == 1, f"says {lines[-6:]}"
            raise UserError(lines[0]) from None
    finally:
        sys.argv = argv
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)
    assert "Traceback" not in told.getvalue(), "a traceback on stderr"
    return "accepted"


PREPARE = {"settings": prepare}
