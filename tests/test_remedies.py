"""What a sentence tells a user to type exists, and works as it is typed there."""

import ast
import re
import shutil
import sys
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from eventclip.config.composition import (
    CONFIG_DIR,
    PseudoLabelConfig,
    TrainConfig,
    register_checkpoint,
    register_schema,
)

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "eventclip"
COMMANDS = (
    *("train", "evaluate", "import_checkpoint", "pseudo_label", "pack", "data_check", "predict", "show", "simulate"),
    "pairs",
    "align",
    "export",
)
RICHEST = {"train": ("features=cached", "tuning=lora", "adapter=visual"), "data_check": ("data=folder",)}
FITTED = ("features=cached", "adapter=prototype")
"""What train may be given instead: other adapters have other settings."""
NAMED = re.compile(r"(?<![\w./{<'\"-])([a-z][a-z_]*(?:\.[a-z_]+)*)=([^\s,;:)]*)")
LITERAL = re.compile(r"[a-z0-9_-]+")
ARGUMENTS = {  # of functions, in errors that no setting of a command leads to, and Hydra's own
    *("fill", "heads", "layers", "mlp_width", "magnitude_bins", "operations", "kind", "views", "x", "y", "launcher"),
    *("p95_events", "events_per_frame"),
    *("embed_dim", "patch_size", "quick_gelu"),  # of an architecture's file
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.mode"),
    *("install", "uninstall"),  # of Hydra's --shell-completion
}


def sentences():
    """(file, text) of every text of several words in the package that is no docstring; what is filled in reads {}."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts:
                text = node.value
            else:
                continue
            if " " in text and "</" not in text:
                yield str(path.relative_to(PACKAGE)), text


def settings_named():
    """{(file, key, value)} of everything like key=value in a sentence."""
    return sorted({(file, *found.groups()) for file, text in sentences() for found in NAMED.finditer(text)})


def keys_of(section, prefix=""):
    for key in section:
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(section, key) and OmegaConf.is_dict(section._get_node(key)):
            yield from keys_of(section[key], f"{prefix}{key}.")


def composed(command, *overrides):
    register_schema(PseudoLabelConfig if command == "pseudo_label" else TrainConfig)
    if command == "evaluate":
        register_checkpoint({})
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose(command, list(overrides))


@pytest.fixture(scope="module")
def keys():
    """Command -> all keys of its configuration, and the groups that it leaves out where none is chosen."""
    chosen = {"clip", "experiment"}
    GlobalHydra.instance().clear()
    found = {command: set(keys_of(composed(command, *RICHEST.get(command, ())))) | chosen for command in COMMANDS}
    found["train"] |= set(keys_of(composed("train", *FITTED)))
    return found


def test_every_setting_named_in_a_sentence_exists(keys):
    named = settings_named()
    assert {"sort", "stream", "columns", "file_format"} <= {key for _, key, _ in named}
    known = set().union(*keys.values())
    unknown = {(file, key) for file, key, _ in named if key not in known | ARGUMENTS and f"data.{key}" not in known}
    assert not unknown


def test_what_readers_name_is_a_setting_of_predict_and_show(keys):
    for file, key, _ in settings_named():
        if file.split("/")[0] in {"io", "events"} and key not in ARGUMENTS and not key.startswith("data."):
            assert key in keys["predict"] & keys["show"], f"{key} of {file}"


def test_every_value_named_with_its_setting_composes(keys):
    literal = {(key, value) for _, key, value in settings_named() if LITERAL.fullmatch(value) and key not in ARGUMENTS}
    assert {("sort", "true"), ("drop_outside", "true"), ("damaged", "keep"), ("features", "live")} <= literal
    groups = {path.name for path in Path(CONFIG_DIR).iterdir() if path.is_dir()}
    for command in ("train", "predict", "data_check", "pack", "pseudo_label", "align"):
        own = sorted(pair for pair in literal if pair[0] in keys[command])
        literal -= set(own)
        chosen = [f"{key}={value}" for key, value in own if key in groups]
        single = [f"{key}={value}" for key, value in own if key not in groups]
        assert composed(command, *chosen), chosen
        fitted = [one for one in single if command == "train" and one.startswith("adapter.")]
        single = [one for one in single if one not in fitted]
        assert composed(command, *RICHEST.get(command, ()), *single), single
        assert composed("train", *FITTED, *fitted), fitted
    assert not literal


def test_every_extra_named_exists():
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]\n")[1].split("\n[")[0]
    extras = re.findall(r"^(\w+) = \[", section, re.MULTILINE)
    named = {extra for _, text in sentences() for extra in re.findall(r"eventclip\[(\w+)\]", text)}
    assert named
    assert named <= set(extras)


COUNT = 300
T = np.arange(COUNT) * 37 + 3811
X, Y, P = np.arange(COUNT) * 7 % 240, np.arange(COUNT) * 11 % 180, np.arange(COUNT) % 2


def csv(path, *columns, names="t,x,y,p"):
    rows = zip(*(columns or (T, X, Y, P)), strict=True)
    path.write_text(
        "".join(f"{line}\n" for line in (*filter(None, [names]), *(",".join(map(str, row)) for row in rows)))
    )


def without_sensor(path):
    csv(path)


def out_of_order(path):
    order = np.arange(COUNT)
    order[[5, 6]] = 6, 5
    csv(path, *(column[order] for column in (T, X, Y, P)))


def rows_before_columns(path):
    csv(path, Y, X, P, T, names=None)


def five_columns(path):
    csv(path, Y, X, X * 0 + 3, P, T, names=None)


def in_milliseconds(path):
    np.save(path, np.stack([X, Y, np.arange(COUNT) // 2, P], axis=1).astype(np.float32))


def outside(path):
    wide = X.copy()
    wide[7] = 1308
    words = np.stack([T, wide | Y << 14 | P << 28], axis=1).astype("<u4")
    path.write_bytes(b"% Version 2\n% Height 180\n% Width 240\n\x0c\x08" + words.tobytes())


def two_cameras(path):
    with h5py.File(path, "w") as file:
        for side in ("left", "right"):
            for name, column in zip("txyp", (T, X, Y, P), strict=True):
                file[f"davis/{side}/events/{name}"] = column


def unknown_suffix(path):
    csv(path)


KNOWN = "sensor_hw=[180,240]"
READING = [
    ("a.csv", without_sensor, "sensor_hw=", KNOWN, ()),
    ("a.csv", out_of_order, "sort=true", "sort=true", (KNOWN,)),
    ("a.csv", rows_before_columns, "columns=", "columns=yxpt", (KNOWN,)),
    ("a.csv", five_columns, "columns=txyp_", "columns=yx_pt", (KNOWN,)),
    ("a.npy", in_milliseconds, "time_unit=ms", "time_unit=ms", (KNOWN,)),
    ("a.dat", outside, "sensor_hw=[H,W]", "sensor_hw=[180,1309]", ()),
    ("a.dat", outside, "drop_outside=true", "drop_outside=true", ()),
    ("a.h5", two_cameras, "stream=davis/left/events", "stream=davis/left/events", (KNOWN,)),
    ("a.events", unknown_suffix, "file_format=", "file_format=csv", (KNOWN,)),
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Type a command in an empty folder; gives what it said where it ended in a sentence, else None."""
    monkeypatch.chdir(tmp_path)

    def type_in(command, *words):
        main = import_module(f"eventclip.{command}").main
        monkeypatch.setattr(sys, "argv", [command, *map(str, words)])
        try:
            main()
        except SystemExit as end:
            return str(end.code) if end.code else None
        return None

    return type_in


@pytest.mark.parametrize("command", ["predict", "show"])
@pytest.mark.parametrize(("name", "write", "told", "remedy", "more"), READING)
def test_the_remedy_for_a_recording_works(run, tmp_path, tiny_clip_json, command, name, write, told, remedy, more):
    write(tmp_path / name)
    clip = (f"clip.config={tiny_clip_json}", "clip.arch=null", "clip.pretrained=null", "clip=tiny", "device=cpu")
    if command == "predict":
        words = (f"recordings={name}", "classes=[ant,bee]", *clip, "out=p.csv", "progress=false", *more)
    else:
        words = (f"recording={name}", "out=s.png", *more)
    sentence = run(command, *words)
    assert sentence is not None
    assert told in sentence
    assert run(command, *words, remedy) is None


@pytest.mark.slow
def test_the_remedy_for_a_data_set_with_a_damaged_file_works(run, tmp_path, learnable_root):
    shutil.copytree(learnable_root, tmp_path / "set")
    next((tmp_path / "set" / "training").rglob("*.npy")).write_bytes(b"rubbish")
    words = (f"data.root={tmp_path / 'set'}", "data.sensor_hw=[60,80]", "data.num_workers=0", "progress=false")
    assert "data.on_bad_recording=skip" in run("data_check", *words)
    assert "damaged=keep" in run("pack", *words, "out=a", "workers=1")
    assert run("pack", *words, "out=a", "workers=1", "damaged=keep") is None


def test_the_remedy_for_a_timeline_without_windows_works(run, tmp_path, tiny_clip_json):
    csv(tmp_path / "a.csv")
    clip = (f"clip.config={tiny_clip_json}", "clip.arch=null", "clip.pretrained=null", "clip=tiny", "device=cpu")
    words = ("recordings=a.csv", "classes=[ant,bee]", *clip, KNOWN, "out=p.csv", "progress=false", "timeline=t.png")
    assert "window_us=100_000" in run("predict", *words)
    assert run("predict", *words, "window_us=100_000") is None
    assert (tmp_path / "t.png").is_file()


TRAINING = [
    ("fewshot.shots=99 fewshot.repeat=false", "fewshot.repeat=true", ("fewshot.repeat=true",)),
    ("features=cached tuning=full adapter=text", "features=live", ("features=live",)),
    ("tuning=full adapter=visual", "adapter=text", ("adapter=text",)),
    ("tuning=full adapter=visual", "tuning=frozen", ("tuning=frozen",)),
    ("tuning=full adapter=text clip.precision=fp16", "clip.precision=fp32", ("clip.precision=fp32",)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("wrong", "told", "remedy"), TRAINING)
def test_the_remedy_for_a_training_works(run, tmp_path, learnable_root, tiny_clip_json, wrong, told, remedy):
    words = (
        *("experiment=fewshot_ncaltech", f"data.root={learnable_root}", "data.sensor_hw=[60,80]", "clip=tiny"),
        *("frames.events_per_frame=200", "data.p95_events=600", "data.num_workers=0", "fewshot.shots=1"),
        *(f"clip.config={tiny_clip_json}", "clip.arch=null", "clip.pretrained=null", "trainer.max_epochs=1"),
        *("data.batch_size=2", "hydra.run.dir=run", "callbacks.progress=null", "logger.tensorboard=null"),
        *("callbacks.pictures=null", "+trainer.limit_train_batches=1", "+trainer.limit_test_batches=1"),
    )
    sentence = run("train", *words, *wrong.split())
    assert sentence is not None
    assert told in sentence
    assert run("train", *words, *wrong.split(), *remedy, "resume=null") is None
