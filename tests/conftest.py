"""What every room's tests share: golden answers, small data sets, and where the optional ../shared lies."""

import copy
import importlib.util
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image, ImageDraw

from eventclip.config.composition import CONFIG_DIR, register_schema
from eventclip.io import formats

GOLDEN = Path(__file__).resolve().parent / "golden"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _logging_stays_as_it_was() -> Iterator[None]:
    """A command run in this process sets up logging for its own process: some silence all loggers there are."""
    root = logging.getLogger()
    level, disabled = root.level, {name for name, one in _loggers().items() if one.disabled}
    yield
    root.setLevel(level)
    for name, one in _loggers().items():
        one.disabled = name in disabled


@pytest.fixture(autouse=True)
def _formats_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """A format of one's own stays known for the rest of a process, which is a test's here."""
    monkeypatch.setattr(formats, "_FORMATS", dict(formats._FORMATS))


def _loggers() -> dict[str, logging.Logger]:
    known = logging.Logger.manager.loggerDict
    return {name: one for name, one in known.items() if isinstance(one, logging.Logger)}


_NEEDS_SHARED = f"needs ../shared, looked for at {SHARED}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked "shared" where there is none; whoever uses it without the mark is told."""
    for item in items:
        marked = item.get_closest_marker("shared") is not None
        if marked != ("shared" in getattr(item, "fixturenames", ())):
            raise pytest.UsageError(f'{item.nodeid}: the mark and the fixture "shared" go together')
        if marked and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=_NEEDS_SHARED))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Count what was skipped for want of ../shared: recordings and models too large for the repository."""
    reports = terminalreporter.stats.get("skipped", [])
    count = sum(_NEEDS_SHARED in str(report.longrepr) for report in reports)
    if count:
        terminalreporter.write_line(f"{count} tests need ../shared and were skipped", yellow=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared recordings and models, for tests that are marked so."""
    return SHARED


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """The folder of golden answers: frames, logits, checkpoints, splits and odd recordings with what is right."""
    return GOLDEN


@pytest.fixture(scope="session")
def damage() -> Any:
    """The module ``tests/damage.py``: seeded damage to files."""
    spec = importlib.util.spec_from_file_location("damage", Path(__file__).with_name("damage.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY_ARCHITECTURE = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}
SENSOR = (60, 80)
CLASSES = ("Faces_easy", "airplanes", "yin_yang")


def write_recording(path: Path, label: int, rng: np.random.Generator, *, events: int = 600) -> None:
    """Write an EST .npy whose class decides how widely the events spread, which even an untrained tower can see."""
    height, width = SENSOR
    spread = (4, 20, width)[label]
    x = rng.integers(0, width - spread + 1) + rng.integers(0, spread, events)
    y = rng.integers(0, height, events)
    x[:2], y[:2] = (0, width - 1), (0, height - 1)  # the extent is the sensor's, so that centring moves nothing
    t = np.sort(rng.random(events)) * 0.3
    p = rng.choice([-1.0, 1.0], events)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.stack([x, y, t, p], axis=1).astype(np.float32))


@pytest.fixture(scope="session")
def learnable_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """N-Caltech101's layout and format: 3 classes of 6 training, 2 validation and 4 testing recordings."""
    root = tmp_path_factory.mktemp("ncaltech") / "N-Caltech101"
    rng = np.random.default_rng(0)
    for split, count in (("training", 6), ("validation", 2), ("testing", 4)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                write_recording(root / split / name / f"{name}_{number}.npy", label, rng)
    return root


@pytest.fixture(scope="session")
def tiny_clip_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration file of a CLIP that encodes a batch in milliseconds, untrained."""
    path = tmp_path_factory.mktemp("clip") / "tiny_test_clip.json"
    path.write_text(json.dumps(TINY_ARCHITECTURE))
    return path


@pytest.fixture
def compose_experiment(learnable_root: Path, tiny_clip_json: Path, tmp_path: Path) -> Callable[..., DictConfig]:
    """Compose an experiment on the learnable data set with the tiny CLIP; its run has a folder of its own."""

    def compose_with(*overrides: str, folder: str = "run", experiment: str = "fewshot_ncaltech") -> DictConfig:
        output = tmp_path / folder
        output.mkdir(exist_ok=True)
        register_schema()
        small = [
            f"experiment={experiment}",
            f"data.root={learnable_root}",
            f"data.sensor_hw=[{SENSOR[0]},{SENSOR[1]}]",
            "frames.events_per_frame=200",
            "data.p95_events=600",
            "data.num_workers=0",
            "data.augmentation.max_shift=3",
            f"clip.config={tiny_clip_json}",
            "clip.arch=null",
            "clip.pretrained=null",
            "fewshot.shots=3",
            "data.batch_size=4",
            "optim.lr=0.01",
            "trainer.max_epochs=3",
            "callbacks.progress=null",
            f"paths.output={output}",
        ]
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            return compose("train", [*small, *overrides])

    return compose_with


@pytest.fixture
def run_experiment(compose_experiment: Callable[..., DictConfig]) -> Callable[..., Path]:
    """Run an experiment on the learnable data set with the tiny CLIP, in this process; gives the run's folder."""

    def run_with(*overrides: str, folder: str = "run", experiment: str = "fewshot_ncaltech") -> Path:
        from eventclip.training.experiment import run

        cfg = compose_experiment(*overrides, folder=folder, experiment=experiment)
        run(cfg)
        return Path(cfg.paths.output)

    return run_with


def draw_shapes(path: Path, rng: np.random.Generator, *, side: tuple[int, int] = (48, 64)) -> None:
    """Draw dark shapes on a bright ground, which an event camera sees the edges of."""
    height, width = side
    image = Image.new("RGB", (width, height), tuple(int(level) for level in rng.integers(200, 256, 3)))
    pencil = ImageDraw.Draw(image)
    for _ in range(4):
        (left, right), (top, bottom) = (sorted(rng.integers(0, high - 6, 2).tolist()) for high in (width, height))
        shape = (pencil.rectangle, pencil.ellipse)[int(rng.integers(2))]
        shape((left, top, right + 6, bottom + 6), fill=tuple(int(level) for level in rng.integers(0, 160, 3)))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-one images in three folders and a nested one."""
    root = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(3)
    for number in range(21):
        draw_shapes(root / ("ant", "bee", "cow/brown")[number % 3] / f"image_{number:02}.png", rng)
    return root


SMALL_ALIGNMENT = (
    *("clip.arch=null", "clip.pretrained=null", "num_workers=0", "simulation.sensors=[[24,32],[20,20]]"),
    *("batch_size=6", "trainer.max_epochs=3", "optim.lr=3e-3", "heldout.share=0.2"),
    *("features.copies=2", "callbacks.progress=null", "logger.tensorboard=null"),
)
"""Overrides with which an alignment of the untrained CLIP takes some seconds."""


@pytest.fixture
def compose_alignment(shapes_root: Path, tiny_clip_json: Path, tmp_path: Path) -> Callable[..., DictConfig]:
    """Compose an alignment of the untrained CLIP on the drawn images; ``<name>.safetensors`` is to be written."""

    def compose_with(*overrides: str, name: str = "aligned") -> DictConfig:
        own = (f"images={shapes_root}", f"out={tmp_path / name}.safetensors", f"clip.config={tiny_clip_json}")
        places = (f"paths.output={tmp_path / name}.safetensors.run", f"paths.cache={tmp_path / 'cache'}")
        register_schema()
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            return compose("align", [*own, *places, *SMALL_ALIGNMENT, *overrides])

    return compose_with


@pytest.fixture
def run_alignment(compose_alignment: Callable[..., DictConfig]) -> Callable[..., Path]:
    """Align in this process; gives the file that was written, whose run folder is ``<file>.run``."""

    def run_with(*overrides: str, name: str = "aligned") -> Path:
        from eventclip.training.align import align

        cfg = compose_alignment(*overrides, name=name)
        align(cfg)
        return Path(cfg.out)

    return run_with


def spread_events(label: int, sensor: tuple[int, int], rng: np.random.Generator, events: int = 600) -> np.ndarray:
    """(4, N) x, y, t [s], p {0, 1} whose class, 0 to 2, decides how widely they spread; the extent is the sensor's."""
    height, width = sensor
    spread = (width // 20, width // 4, width)[label]
    x = rng.integers(0, width - spread + 1) + rng.integers(0, spread, events)
    y = rng.integers(0, height, events)
    x[:2], y[:2] = (0, width - 1), (0, height - 1)
    return np.stack([x, y, np.sort(rng.random(events)) * 0.1, rng.integers(0, 2, events)])


@pytest.fixture(scope="session")
def ncars_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """N-Cars as released with EST, its names and its (N, 4) floats: 2 classes of 8 training and 4 test recordings."""
    root = tmp_path_factory.mktemp("ncars") / "N-Cars"
    rng = np.random.default_rng(1)
    for split, count in (("train", 8), ("test", 4)):
        for label, name in enumerate(("background", "cars")):
            for number in range(count):
                x, y, t, p = spread_events(2 * label, (100, 120), rng)
                path = root / split / name / f"obj_{number:06}_td.dat.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, np.stack([x, y, t, 2 * p - 1], axis=1))
    return root


WNIDS = ("n01440764", "n01443537", "n01616318")  # tench, goldfish, vulture: the last two are also in Mini


@pytest.fixture(scope="session")
def nimagenet_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """N-ImageNet as released, its folders and its .npz: 3 classes of 6 training, 4 and (variants) 3 test recordings."""
    root = tmp_path_factory.mktemp("nimagenet") / "N-ImageNet"
    rng = np.random.default_rng(2)
    folders = {"extracted_train": 6, "extracted_val": 4, "extracted_val_mode_1": 3, "extracted_val_brightness_7": 3}
    for folder, count in folders.items():
        for label, wnid in enumerate(WNIDS):
            for number in range(count):
                x, y, t, p = spread_events(label, (480, 640), rng)
                events = np.zeros(len(x), [("x", "<u2"), ("y", "<u2"), ("t", "<i8"), ("p", "?")])
                events["x"], events["y"], events["t"], events["p"] = x, y, t * 1e6, p
                path = root / folder / wnid / f"{wnid}_{number}.npz"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.savez_compressed(path, event_data=events)
    return root


@pytest.fixture
def run_data_set(
    run_experiment: Callable[..., Path], learnable_root: Path, ncars_root: Path, nimagenet_root: Path
) -> Callable[..., dict[str, Any]]:
    """Run a data set's own experiment on its fake with the tiny CLIP, in this process; gives results.json."""
    roots = {"ncaltech": learnable_root, "ncars": ncars_root, "nimagenet": nimagenet_root}
    sensors = {"ncaltech": SENSOR, "ncars": (100, 120), "nimagenet": (480, 640)}

    def run_with(experiment: str, *overrides: str, folder: str = "run") -> dict[str, Any]:
        name = experiment.split("_")[1]
        height, width = sensors[name]
        own = (f"data.root={roots[name]}", f"data.sensor_hw=[{height},{width}]", "logger.tensorboard=null")
        output = run_experiment(*own, "callbacks.pictures=null", *overrides, folder=folder, experiment=experiment)
        return json.loads((output / "results.json").read_text())

    return run_with


@pytest.fixture(scope="session")
def golden():
    """Images, features and logits computed with the reference, as arrays by name, and the values beside them."""
    arrays = dict(np.load(GOLDEN / "model.npz"))
    return arrays, json.loads((GOLDEN / "model.json").read_text())


@pytest.fixture(scope="session")
def golden_clip_files(tmp_path_factory):
    """The golden CLIP as an architecture file and a weight file in OpenAI's layout."""
    import torch

    spec = importlib.util.spec_from_file_location("tiny_clip", GOLDEN / "tiny_clip.py")
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    folder = tmp_path_factory.mktemp("golden_clip")
    config = {
        "embed_dim": tiny.EMBED_DIM,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": tiny.IMAGE_SIZE,
            "layers": tiny.VISION_LAYERS,
            "width": tiny.VISION_WIDTH,
            "head_width": 64,
            "patch_size": tiny.PATCH,
        },
        "text_cfg": {
            "context_length": tiny.CONTEXT,
            "vocab_size": tiny.VOCAB,
            "width": tiny.TEXT_WIDTH,
            "heads": tiny.TEXT_HEADS,
            "layers": tiny.TEXT_LAYERS,
        },
    }
    (folder / "golden_clip.json").write_text(json.dumps(config))
    state = {name: torch.from_numpy(np.array(value)) for name, value in tiny.state_dict().items()}
    torch.save(state, folder / "golden_clip.pt")
    return folder / "golden_clip.json", folder / "golden_clip.pt"


@pytest.fixture(scope="session")
def loaded_golden_clip(golden_clip_files: tuple[Path, Path]) -> Any:
    """The CLIP behind the golden answers, loaded once: not to be changed."""
    from eventclip import load_clip

    config, weights = golden_clip_files
    return load_clip(None, str(weights), config=config)


@pytest.fixture
def golden_clip(loaded_golden_clip: Any) -> Any:
    """The CLIP behind the golden answers, a test's own."""
    return copy.deepcopy(loaded_golden_clip)


@pytest.fixture
def golden_batch(golden):
    """Raw image features (B, V, D) with zeros where invalid, valid (B, V), labels (B,), unit text features (K, D)."""
    import torch

    arrays, _ = golden
    valid = torch.from_numpy(arrays["valid"])
    features = torch.zeros(*valid.shape, arrays["image_features"].shape[1])
    features[valid] = torch.from_numpy(arrays["image_features"])
    return features, valid, torch.from_numpy(arrays["labels"]), torch.from_numpy(arrays["text_features"])
