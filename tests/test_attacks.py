"""Whatever a checkpoint asks for is refused in one sentence and not run, by every command, unless it is trusted."""

import copy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from eventclip import EventCLIP, evaluate, predict, pseudo_label, show
from eventclip.config.composition import CONFIG_DIR, register_checkpoint
from eventclip.errors import UserError
from eventclip.models.checkpoint import ALIGNMENT, read_checkpoint
from eventclip.models.trust import SHIPPED

SECTIONS = (
    *("clip", "tuning", "frames", "views", "data", "fewshot", "adapter", "classifier", "optim", "features"),
    *("selection", "trainer", "logger", "callbacks", "paths", "hydra", "evil"),
)


@pytest.fixture
def pwned(tmp_path, monkeypatch):
    """What an attack would make; the folder it would be made in is the one commands run in."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "source").write_text("ran")
    return tmp_path / "here" / "PWNED"


def copying(**more):
    """A node that makes a file when it is built, and that no version of Hydra refuses by itself."""
    return {"_target_": "shutil.copyfile", "src": "source", "dst": "PWNED", **more}


def torch_load():
    """A node whose pickle would run."""

    class Attack:
        def __reduce__(self):
            return (open, ("PWNED", "w"))

    import io
    import pickle

    file = io.BytesIO()
    pickle.dump(Attack(), file)
    content = {"_target_": "builtins.bytes.fromhex", "_args_": [file.getvalue().hex()]}
    return {"_target_": "torch.load", "f": {"_target_": "io.BytesIO", "_args_": [content]}, "weights_only": False}


def nested():
    node = copying()
    for _ in range(6):
        node = {"deeper": [node]}
    return node


ATTACKS = {
    "direct": copying,
    "nested": nested,
    "tuple": lambda: (copying(),),
    "tuple of tuples": lambda: ((1, (copying(),)),),
    "list": lambda: [1, [copying()]],
    "interpolation": lambda: "${evil}",
    "interpolation in a sentence": lambda: "a ${evil._target_} b",
    "oc.create": lambda: "${oc.create:'{_target_: shutil.copyfile, src: source, dst: PWNED}'}",
    "oc.env": lambda: "${oc.env:HOME}",
    "arguments": lambda: {"_target_": "eventclip.models.factory.load_clip", "_args_": ["ViT-B-32"]},
    "arguments of another": lambda: {"_target_": "shutil.copyfile", "_args_": ["source", "PWNED"]},
    "partial": lambda: copying(_partial_=True),
    "partial without a target": lambda: {"_partial_": True},
    "partial by a word": lambda: {"_target_": "eventclip.events.frames.FrameRenderer", "_partial_": "yes"},
    "recursive": lambda: {"_recursive_": False},
    "convert": lambda: {"_convert_": "all"},
    "key of a later Hydra": lambda: {"_call_": "shutil.copyfile"},
    "method of an allowed module": lambda: {"_target_": "eventclip.models.weights.Path.touch", "self": "PWNED"},
    "method of an allowed class": lambda: {"_target_": "eventclip.adapters.paper.TextAdapter.load_state_dict"},
    "class behind an allowed function": lambda: {"_target_": "eventclip.models.encoder.ClipEncoder"},
    "module behind ours": lambda: {"_target_": "eventclip.files.os.system", "command": "touch PWNED"},
    "get_method": lambda: {"_target_": "hydra.utils.get_method", "path": "os.system"},
    "instantiate": lambda: {"_target_": "hydra.utils.instantiate", "_args_": [copying()]},
    "instantiate as a name": lambda: {"_target_": "hydra._internal.instantiate._instantiate2.instantiate"},
    "our own instantiate": lambda: {"_target_": "eventclip.models.building.build", "node": copying(), "section": "x"},
    "our own function": lambda: {"_target_": "eventclip.files.write_json", "path": "PWNED", "value": {}},
    "import": lambda: {"_target_": "importlib.import_module", "name": "antigravity"},
    "no target at all": lambda: {"_target_": None},
    "target in pieces": lambda: {"_target_": ["shutil", "copyfile"]},
    "target with a space": lambda: copying(_target_=" eventclip.adapters.paper.TextAdapter"),
    "torch.load": torch_load,
    "os.system": lambda: {"_target_": "os.system", "command": "touch PWNED"},
    "further configuration": lambda: {"defaults": [{"/views@hydra.run": "checkpoint"}]},
}


@pytest.fixture
def honest(compose_experiment, tmp_path):
    """A checkpoint as eventclip writes it, untrained."""
    from eventclip.training.experiment import assemble

    parts = assemble(compose_experiment("adapter=joint", "adapter.width=16", "adapter.heads=2"))
    return {
        "state_dict": parts.classifier.learned_state_dict(),
        "eventclip": parts.metadata,
        "global_step": 3,
    }


def put(checkpoint, section, attack):
    """The checkpoint with the attack in a section of its metadata, beside what is there and as one of its values."""
    attacked = copy.deepcopy(checkpoint)
    config = attacked["eventclip"]["config"]
    if section in ("adapter", "data", "fewshot") and isinstance(attack, dict) and "_target_" in attack:
        config[section] = {**config[section], **attack}
    elif isinstance(attack, dict) and "defaults" in attack:
        config.setdefault(section, {}).update(attack)
    else:
        config.setdefault(section, {})["further"] = attack
    config["evil"] = copying() if isinstance(attack, str) else config.get("evil", {})
    return attacked


def saved(checkpoint, path):
    torch.save(checkpoint, path)
    return path


def assert_refused(call, pwned):
    with pytest.raises((UserError, SystemExit)) as told:
        call()
    assert "\n" not in str(told.value)
    assert not pwned.exists()
    return str(told.value)


def test_an_honest_checkpoint_passes_and_a_trusted_one_runs(honest, pwned, tmp_path):
    EventCLIP.from_checkpoint(saved(honest, tmp_path / "a.ckpt"))
    attacked = saved(put(honest, "adapter", {"width": copying()}), tmp_path / "b.ckpt")
    assert "trust=True in Python" in assert_refused(lambda: EventCLIP.from_checkpoint(attacked), pwned)
    with pytest.raises(UserError):
        EventCLIP.from_checkpoint(attacked, trust=True)
    assert pwned.exists()  # so this file would tell


@pytest.mark.parametrize("section", SECTIONS)
def test_no_attack_passes_in_any_section(honest, pwned, tmp_path, section):
    for name, attack in ATTACKS.items():
        path = saved(put(honest, section, attack()), tmp_path / "a.ckpt")
        told = assert_refused(lambda path=path: read_checkpoint(path), pwned)
        assert str(path) in told, name


@pytest.mark.parametrize("place", ["eventclip", "data", "clip", "class_names"])
def test_an_interpolation_is_refused_anywhere_even_if_trusted(honest, pwned, tmp_path, place):
    attacked = copy.deepcopy(honest)
    value = "${oc.env:HOME}"
    if place == "class_names":
        attacked["eventclip"][place][0] = value
    else:
        (attacked["eventclip"] if place == "eventclip" else attacked["eventclip"][place])["version"] = value
    path = saved(attacked, tmp_path / "a.ckpt")
    for trust in (False, True):
        assert_refused(lambda trust=trust: read_checkpoint(path, trust=trust), pwned)


FEW = ("direct", "tuple", "oc.create", "our own instantiate", "further configuration")


@pytest.fixture
def doors(run_experiment, learnable_root, tiny_clip_json, tmp_path, monkeypatch):
    """Every way to hand a checkpoint to eventclip, by name."""
    recording = next(learnable_root.rglob("*.npy"))

    def typed(command, *arguments):
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        command.main()

    quiet = ("callbacks.progress=null", f"clip.config={tiny_clip_json}", "clip.arch=null", "clip.pretrained=null")
    data = ("experiment=fewshot_ncaltech", f"data.root={learnable_root}", "data.sensor_hw=[60,80]")
    return {
        "api": EventCLIP.from_checkpoint,
        "predict": lambda path, *more: typed(predict, f"recordings={recording}", f"checkpoint={path}", *more),
        "show": lambda path, *more: typed(show, f"recording={recording}", f"checkpoint={path}", *more),
        "evaluate": lambda path, *more: typed(evaluate, f"checkpoint={path}", *more),
        "pseudo_label": lambda path, *more: typed(
            pseudo_label, *data, *quiet, f"checkpoint={path}", "out=pseudo.json", "pseudo.progress=false", *more
        ),
        "train": lambda path, *more: run_experiment(f"resume={path}", *more, folder="resumed"),
    }


@pytest.mark.parametrize("door", ["api", "predict", "show", "evaluate", "pseudo_label", "train"])
def test_every_door_refuses_unrun(honest, pwned, tmp_path, doors, door):
    for name in FEW:
        path = saved(put(honest, "adapter", ATTACKS[name]()), tmp_path / "a.ckpt")
        told = assert_refused(lambda path=path: doors[door](path), pwned)
        assert str(path) in told, (door, name, told)
    before = {path.name for path in Path().iterdir()}
    assert before <= {"source", "outputs"}, before


@pytest.mark.parametrize("door", ["predict", "show", "evaluate", "pseudo_label"])
def test_trust_is_said_as_it_is_typed(honest, pwned, tmp_path, doors, door):
    attacked = copy.deepcopy(honest)
    attacked["eventclip"]["config"]["adapter"] = copying()
    path = saved(attacked, tmp_path / "a.ckpt")
    assert "give trust=true" in assert_refused(lambda: doors[door](path), pwned)
    with pytest.raises(SystemExit) as told:
        doors[door](path, "trust=true")
    assert pwned.exists(), told.value


@pytest.mark.parametrize("word", ["false", "no", "off", "0", "maybe", "null"])
def test_nothing_but_true_is_trust(honest, pwned, tmp_path, doors, word):
    path = saved(put(honest, "adapter", {"width": copying()}), tmp_path / "a.ckpt")
    for door in ("predict", "evaluate"):
        assert_refused(lambda door=door: doors[door](path, f"trust={word}"), pwned)


@pytest.mark.parametrize(
    "name", ["../../escape", "a/b", "a\\b", "..", ".", "", " ", "${oc.env:HOME}", "a\nb", "a\0b", "x" * 300, 5, None]
)
def test_a_name_that_leads_elsewhere_is_refused(honest, pwned, tmp_path, doors, name):
    attacked = copy.deepcopy(honest)
    attacked["eventclip"]["config"]["name"] = name
    assert_refused(lambda: doors["evaluate"](saved(attacked, tmp_path / "a.ckpt")), pwned)
    assert {path.name for path in Path().iterdir()} == {"source"}


def test_a_checkpoint_says_nothing_of_where_files_are_written(honest, tmp_path):
    honest["eventclip"]["config"]["clip"]["cache_dir"] = "/anywhere"
    path = saved(honest, tmp_path / "a.ckpt")
    assert read_checkpoint(path)["eventclip"]["config"]["clip"]["cache_dir"] is None
    assert read_checkpoint(path, trust=True)["eventclip"]["config"]["clip"]["cache_dir"] == "/anywhere"


def test_metadata_that_hold_themselves_or_swell_are_refused(honest, pwned, tmp_path):
    loop: dict = {}
    loop["again"] = loop
    wide: list = [0] * 10
    for _ in range(12):
        wide = [wide] * 10
    for value in (loop, wide):
        path = saved(put(honest, "evil", value), tmp_path / "a.ckpt")
        assert "without end" in assert_refused(lambda path=path: read_checkpoint(path), pwned)


def test_what_a_run_names_may_stand_in_its_checkpoint(honest, tmp_path):
    config = honest["eventclip"]["config"]
    config["adapter"]["_target_"] = "mine.Adapter"
    path = saved(honest, tmp_path / "a.ckpt")
    read_checkpoint(path, own=config)
    with pytest.raises(UserError, match=r"asks for mine\.Adapter"):
        read_checkpoint(path)


def shipped():
    """(place, target, partial) of every target in the configuration that metadata may hold."""
    found = set()

    def walk(place, node):
        for key, value in node.items():
            if isinstance(value, dict):
                walk((*place, key), value)
        if "_target_" in node and place[0] != "hydra":
            section = f"{place[0]}.*" if place[0] in ("logger", "callbacks") else ".".join(place)
            found.add((section, node["_target_"], node.get("_partial_", False)))

    for path in Path(CONFIG_DIR).rglob("*.yaml"):
        whole = "@package _global_" in path.read_text()
        walk(() if whole else path.relative_to(CONFIG_DIR).parent.parts, yaml.safe_load(path.read_text()) or {})
    return found


def test_what_may_be_built_is_what_the_configuration_names():
    listed = {(place, target, partial) for place, some in SHIPPED.items() for target, partial in some.items()}
    assert listed == shipped()


def test_no_attack_passes_where_an_alignment_goes_on(run_alignment, pwned, tmp_path):
    out = run_alignment("trainer.max_epochs=1")
    honest = torch.load(out.parent / f"{out.name}.run" / "checkpoints" / "last.ckpt", weights_only=True)
    path = tmp_path / "a.ckpt"
    for section in ("clip", "tuning", "optim", "loss", "simulation", "heldout", "crops", "pairs", "callbacks", "evil"):
        for name in (*FEW, "interpolation", "torch.load"):
            saved(put(honest, section, ATTACKS[name]()), path)
            told = assert_refused(lambda: read_checkpoint(path, kind=ALIGNMENT), pwned)
            assert str(path) in told, (section, name)
    for name in FEW:
        saved(put(honest, "optim", ATTACKS[name]()), path)
        told = assert_refused(lambda: run_alignment("trainer.max_epochs=1", f"resume={path}", name="other"), pwned)
        assert str(path) in told, name
    assert not (tmp_path / "other.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "show", "evaluate", "pseudo_label"])
def test_a_command_of_its_own_process_refuses_unrun(honest, pwned, tmp_path, learnable_root, command):
    path = saved(put(honest, "data", {"augmentation": copying()}), tmp_path / "a.ckpt")
    recording = next(learnable_root.rglob("*.npy"))
    more = {
        "predict": [f"recordings={recording}"],
        "show": [f"recording={recording}"],
        "evaluate": [],
        "pseudo_label": ["out=p.json", f"data.root={learnable_root}", "experiment=fewshot_ncaltech"],
    }[command]
    typed = [sys.executable, "-m", f"eventclip.{command}", f"checkpoint={path}", *more]
    done = subprocess.run(typed, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("eventclip: ")
    assert not pwned.exists()
    shutil.rmtree("outputs", ignore_errors=True)


def test_a_data_set_that_is_made_is_made_where_this_run_says(tmp_path):
    register_checkpoint({"data": {"_target_": "eventclip.datasets.symbols.SymbolsDataModule", "root": "/anywhere"}})
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        cfg = compose("evaluate", ["checkpoint=a.ckpt", f"paths.cache={tmp_path}"])
    assert cfg.data.root == str(tmp_path)
