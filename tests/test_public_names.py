"""Whatever the package offers by name is there, typed, and works as its own example says."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import eventclip
from eventclip import EVENT_DTYPE, write_events
from eventclip.datasets.symbols import simulate_symbol

GOLDEN = Path(__file__).resolve().parent / "golden"
NAMES = [name for name in eventclip.__all__ if name != "__version__"]
PROMISED = {
    "read_events",
    "open_stream",
    "write_events",
    "register_format",
    "EVENT_DTYPE",
    "FrameRenderer",
    "ViewTransform",
    "Augmentation",
    "Recordings",
    "RecordingDataset",
    "NCaltech101DataModule",
    "NCarsDataModule",
    "NImageNetDataModule",
    "FolderDataModule",
    "load_clip",
    "ClipEncoder",
    "IdentityAdapter",
    "TextAdapter",
    "VisualAdapter",
    "JointAdapter",
    "EventClassifier",
    "LitEventClassifier",
    "load_classifier",
    "EventCLIP",
    "Classification",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with what the examples read."""
    root = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(7)
    star = simulate_symbol("star", (128, 128), rng)
    write_events(root / "star.npy", star)
    few = np.zeros(300, EVENT_DTYPE)
    few["t"], few["x"], few["y"] = np.arange(300), rng.integers(0, 100, 300), rng.integers(0, 100, 300)
    folders = {
        "N-Caltech101/{}/{}/a_{}.npy": (("training", "testing"), ("airplanes", "star_fish"), 4),
        "N-Cars/{}/{}/obj_{}_td.dat.npy": (("train", "test"), ("background", "cars"), 1),
        "N-ImageNet/{}/{}/{}.npz": (("extracted_train", "extracted_val"), ("n01440764", "n01443537"), 1),
        "symbols/{}{}/{}.npy": (("",), ("star", "anchor"), 5),
    }
    for pattern, (splits, classes, count) in folders.items():
        for split in splits:
            for label in classes:
                for number in range(count):
                    path = root / pattern.format(split, label, number)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_events(path, few)
    checkpoint = torch.load(GOLDEN / "checkpoint_v0_1.ckpt", weights_only=True)
    checkpoint["eventclip"]["class_names"] = ["star", "anchor", "umbrella"]
    torch.save(checkpoint, root / "last.ckpt")
    return root


def test_every_promised_name_is_there():
    assert set(NAMES) >= PROMISED
    assert set(NAMES) <= set(dir(eventclip))
    for name in NAMES:
        assert getattr(eventclip, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nowhere'"):
        _ = eventclip.nowhere


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")  # Lightning's advice on few workers and small epochs
def test_a_name_works_as_its_example_says(world, monkeypatch, name):
    monkeypatch.chdir(world)
    offered = getattr(eventclip, name)
    text = importlib.import_module("eventclip.events.array").__doc__ if name == "EVENT_DTYPE" else offered.__doc__
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    assert any(name in line.source + line.want for line in example.examples)
    assert not any(line.options for line in example.examples)  # none is skipped
    told = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=told.append)
    assert not told, "".join(told)


def test_what_types_see_is_what_is_imported():
    tree = ast.parse(Path(eventclip.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert typed == eventclip._PLACES
    assert set(NAMES) == set(eventclip._PLACES)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, eventclip; dir(eventclip); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'numba', 'lightning', 'hydra')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
