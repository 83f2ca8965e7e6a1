"""Every command that writes, as people type it, each in a process of its own that finds everything imported."""

import contextlib
import importlib
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eventclip.datasets.symbols import simulate_symbol

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SENSOR = (128, 128)
MODEL = ("clip=tiny", "classes=[star,anchor,umbrella]", "device=cpu", "sensor_hw=[128,128]", "progress=false")
LOADED = ("training.experiment", "training.pseudo_label", "training.evaluate", "inference.settings", "plots.curve")
LOADED += ("inference.predict", "plots.timeline", "plots.views", "reports.report", "datasets.packing")
LOADED += ("simulation.folder", "datasets.audit", "datasets.pairing", "training.align")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (negative: the signal), and what it said."""

    status: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What it said of its mistake: one line, and no traceback."""
        assert "Traceback" not in self.err, self.err
        (line,) = [line for line in self.err.splitlines() if line.startswith("eventclip: ")][-1:]
        assert self.err.rstrip().endswith(line), self.err
        return line


class Running:
    """A command in a process of its own."""

    def __init__(self, command: str, arguments: tuple[str, ...], here: Path, before: Callable[[], object]) -> None:
        here.mkdir(parents=True, exist_ok=True)
        self._said = [here / f".{time.monotonic_ns()}.{name}" for name in ("out", "err")]
        with warnings.catch_warnings(action="ignore"):  # threads of the test's own process do nothing meanwhile
            self.pid = os.fork()
        if self.pid == 0:
            _become(command, arguments, here, self._said, before)

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Wait for its end, two minutes at most."""
        until = time.monotonic() + 120
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                pytest.fail(f"did not end: {self._said[1].read_text()}")
            time.sleep(0.01)
        out, err = (said.read_text(errors="surrogateescape") for said in self._said)
        for said in self._said:
            said.unlink()
        return Ended(os.waitstatus_to_exitcode(status), out, err)


def _become(
    command: str, arguments: tuple[str, ...], here: Path, said: list[Path], before: Callable[[], object]
) -> None:
    """In the new process: run the command as the interpreter would, and end."""
    status = 1
    try:
        import torch

        os.chdir(here)
        for descriptor, path in enumerate(said, start=1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", errors="backslashreplace")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)
        sys.argv = [command, *arguments]
        before()
        try:
            importlib.import_module(f"eventclip.{command}").main()
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
            if isinstance(leaving.code, str):
                print(leaving.code, file=sys.stderr)
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  (as the interpreter does)
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(status)


@dataclass(frozen=True)
class Job:
    """A command and what it leaves when all went well, as globs below its folder."""

    command: str
    arguments: Callable[[Path], tuple[str, ...]]
    made: tuple[str, ...]

    def start(self, place: Path, here: Path, before: Callable[[], object] = lambda: None) -> Running:
        """Begin it, its outputs in ``place``."""
        return Running(self.command, self.arguments(place), here, before)

    def run(self, place: Path, here: Path, before: Callable[[], object] = lambda: None) -> Ended:
        """Do it."""
        return self.start(place, here, before).wait()

    def left(self, place: Path) -> dict[str, bytes]:
        """What somebody who looks for results would take for one: neither hidden nor a part or lock."""
        return {
            str(path.relative_to(place)): path.read_bytes()
            for path in sorted(place.rglob("*"))
            if path.is_file() and not path.name.startswith(".") and path.suffix not in (".part", ".lock")
        }

    def is_whole(self, place: Path) -> bool:
        """Whether all is there that it makes."""
        return all(list(place.glob(pattern)) for pattern in self.made)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """Recordings of symbols, and images to film."""
    for name in LOADED:
        importlib.import_module(f"eventclip.{name}")
    root = tmp_path_factory.mktemp("inputs")
    (root / "films").mkdir()
    for name in ("star", "anchor", "umbrella"):
        np.save(root / "films" / f"{name}.npy", simulate_symbol(name, SENSOR, np.random.default_rng(7)))
    for name in ("ant", "bass"):
        (root / "images" / name).mkdir(parents=True)
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (24, 32), np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"image_{number}.png")
    return root


@pytest.fixture(scope="session")
def jobs(inputs, learnable_root, tmp_path_factory, golden_clip_files, golden):
    """Every command that writes, by a name for each of its outputs."""
    data = (
        "data=ncaltech101", f"data.root={learnable_root}", "data.sensor_hw=[60,80]",
    )  # fmt: skip
    small = (
        "frames.events_per_frame=200", "data.p95_events=600", "data.num_workers=0", "clip=tiny",
        "data.batch_size=4", "callbacks.progress=null",
    )  # fmt: skip
    shots = ("experiment=fewshot_ncaltech", "fewshot.shots=2", "trainer.max_epochs=1", "data.augmentation.max_shift=3")
    cache = tmp_path_factory.mktemp("cache")
    trained, cached = tmp_path_factory.mktemp("trained"), (f"paths.cache={cache}",)
    guess = ("experiment=demo_pseudo", "pseudo.threshold=0.3", "pseudo.tta_consistent=false", "pseudo.progress=false")
    guess += ("pseudo.tta_min_prob=false", "pseudo.shard_size=4")
    names = [name.lower().replace("_", " ") for name in golden[1]["class_names"]]
    for label in range(len(names)):
        (trained / "data" / "testing" / str(label)).mkdir(parents=True)
        (trained / "data" / "testing" / str(label) / "x.npy").touch()
    reference = (
        f"reference={GOLDEN / 'reference_text-identity.pth'}", "experiment=fewshot_ncaltech", "adapter=text",
        f"data.root={trained / 'data'}", f"data.class_names=[{','.join(names)}]", "clip.arch=null",
        f"clip.config={golden_clip_files[0]}", f"clip.pretrained={golden_clip_files[1]}",
    )  # fmt: skip
    films, star = f"recordings={inputs / 'films'}", f"recording={inputs / 'films' / 'star.npy'}"
    windows = ("window_us=20_000", "batch_views=4")
    show = tuple(option for option in MODEL if option != "progress=false")
    camera = (f"images={inputs / 'images'}", "sensor_hw=[30,40]", "amplitude_px=4", "saccade_us=20_000", "workers=1")
    found = {
        "train": Job(
            "train",
            lambda place: (*shots, *data, *small, f"hydra.run.dir={place / 'run'}", *cached),
            ("run/results.json", "run/checkpoints/last.ckpt"),
        ),
        "features": Job(
            "train",
            lambda place: (
                *shots,
                *data,
                *small,
                "features=cached",
                f"hydra.run.dir={place / 'run'}",
                f"paths.cache={place / 'c'}",
            ),
            ("c/features/*/cache.json",),
        ),
        "csv": Job("predict", lambda place: (films, *MODEL, f"out={place / 'p.csv'}", "batch_views=1"), ("p.csv",)),
        "timeline": Job(
            "predict",
            lambda place: (films, *MODEL, *windows, f"out={place / 'p.jsonl'}", f"timeline={place / 'lines'}"),
            ("p.jsonl", "lines/star.png", "lines/anchor.png", "lines/umbrella.png"),
        ),
        "png": Job("show", lambda place: (star, *show, f"out={place / 's.png'}"), ("s.png",)),
        "gif": Job("show", lambda place: (star, *show, f"out={place / 's.gif'}"), ("s.gif",)),
        "pseudo_label": Job(
            "pseudo_label",
            lambda place: (
                *guess,
                *data,
                *small,
                f"paths.cache={cache}",
                f"out={place / 'p.json'}",
                f"links={place / 'links'}",
            ),
            ("p.json", "p.report.json", "p.reliability.png", "links/training"),
        ),
        "simulate": Job(
            "simulate", lambda place: (*camera, "progress=false", f"out={place / 'sim'}"), ("sim/simulation.json",)
        ),
        "pairs": Job(
            "pairs",
            lambda place: (
                f"recordings={learnable_root}",
                f"originals={learnable_root}",
                f"out={place / 'p.csv'}",
                "progress=false",
            ),
            ("p.csv",),
        ),
        "align": Job(
            "align",
            lambda place: (
                *(f"images={inputs / 'images'}", f"out={place / 'a.safetensors'}", "clip=tiny", f"paths.cache={cache}"),
                *("num_workers=0", "heldout.share=0.4", "batch_size=2", "trainer.max_epochs=2", "tuning=batchnorm"),
                *("simulation.sensors=[[20,30]]", "callbacks.progress=null", "logger.tensorboard=null"),
            ),
            ("a.safetensors", "a.safetensors.run/results.json", "a.safetensors.run/pictures/nearest.png"),
        ),
        "pack": Job(
            "pack", lambda place: (*data, "workers=1", "progress=false", f"out={place / 'n'}"), ("n/pack.json",)
        ),
        "data_check": Job(
            "data_check", lambda place: (*data, "progress=false", f"out={place / 'check.json'}"), ("check.json",)
        ),
        "import": Job("import_checkpoint", lambda place: (*reference, f"out={place / 'x.ckpt'}"), ("x.ckpt",)),
    }
    done = found["train"].run(trained, trained)
    assert done.status == 0, done.err
    last = trained / "run" / "checkpoints" / "last.ckpt"
    found["evaluate"] = Job(
        "evaluate",
        lambda place: (f"checkpoint={last}", "callbacks.progress=null", f"hydra.run.dir={place / 'run'}"),
        ("run/results.json", "run/predictions.csv"),
    )
    found["report"] = Job(
        "report", lambda place: (str(trained), "--out", str(place / "rep")), ("rep/report.md", "rep/report.csv")
    )
    return found
