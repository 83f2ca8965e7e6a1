"""Every experiment composes and names things that exist; a typo is told, not swallowed."""

import importlib
import inspect
import itertools
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from eventclip.config.composition import (
    CONFIG_DIR,
    PseudoLabelConfig,
    TrainConfig,
    command,
    innermost_sentence,
    register_schema,
)
from eventclip.datasets.datamodule import grouped
from eventclip.errors import RecordingError, UserError

FEATURES = sorted(path.stem for path in Path(CONFIG_DIR, "features").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in Path(CONFIG_DIR, "experiment").glob("*.yaml"))


@pytest.fixture
def composed():
    def compose_with(*overrides: str, command: str = "train", hydra: bool = False) -> DictConfig:
        register_schema(PseudoLabelConfig if command == "pseudo_label" else TrainConfig)
        with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
            return compose(command, list(overrides), return_hydra_config=hydra)

    return compose_with


def targets(node: object) -> list[tuple[str, dict[str, object]]]:
    if isinstance(node, dict):
        own = (
            [(node["_target_"], {k: v for k, v in node.items() if not k.startswith("_")})] if "_target_" in node else []
        )
        return own + [found for value in node.values() for found in targets(value)]
    return []


def check_targets(cfg: DictConfig) -> None:
    found = targets(OmegaConf.to_container(cfg))
    assert found
    for target, options in found:
        module, _, name = target.rpartition(".")
        accepted = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        handed_over = grouped(options) if name.endswith("DataModule") else options
        if name == "sample_few_shot":
            handed_over = {key: value for key, value in options.items() if key != "classes"}  # the data module's
        assert set(handed_over) <= set(accepted), target


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_its_targets_take_its_keys(composed, experiment):
    text = Path(CONFIG_DIR, "experiment", f"{experiment}.yaml").read_text()
    first = re.search(r"eventclip (\w+) experiment=", text)  # the header's first command is the one it is for
    cfg = composed(f"experiment={experiment}", command=first[1] if first else "train")
    check_targets(cfg)
    assert cfg.name == experiment


@pytest.mark.parametrize(
    "choice",
    [
        f"{group.name}={option.stem}"
        for group in sorted(Path(CONFIG_DIR).iterdir())
        if group.is_dir() and group.name not in ("experiment", "hydra")
        for option in sorted(group.glob("*.yaml"))
        if option.stem != "openai"
    ],
)
def test_every_option_of_every_group_composes(composed, choice):
    check_targets(composed(choice))


OF_THE_DEMO = re.compile(r"demo|symbols|tiny_clip|sketch image|MULTIRUN|identity,text")
DATA, CLIPS = ("folder", "ncaltech101", "ncars", "nimagenet", "nimagenet_mini"), ("vit_b_32", "rn50")


@pytest.fixture
def alone(composed):
    """A configuration with one choice, each composed once."""
    made = {}

    def with_choice(*choice):
        if choice not in made:
            made[choice] = composed(*choice)
        return made[choice]

    return with_choice


def test_groups_compose_to_what_they_say_and_no_demo(composed, alone):
    kinds = itertools.cycle(itertools.product(("identity", "joint", "visual"), ("rgb", "gray"), FEATURES))
    for (data, clip), (adapter, frames, features) in zip(itertools.product(DATA, CLIPS), kinds, strict=False):
        choices = {"data": data, "clip": clip, "adapter": adapter, "frames": frames, "features": features}
        cfg = composed(*(f"{group}={option}" for group, option in choices.items()), hydra=True)
        assert {group: cfg.hydra.runtime.choices[group] for group in choices} == choices
        assert (cfg.hydra.runtime.choices.experiment, cfg.hydra.mode, cfg.hydra.sweeper.params) == (None, None, None)
        text = OmegaConf.to_yaml(cfg)
        if data == "nimagenet_mini":  # its own prompt is that of a sketch, too
            text = text.replace("a sketch image of a {}", "")
        assert not OF_THE_DEMO.findall(text)
        assert cfg.data == alone(f"data={data}").data
        assert cfg.classifier == alone(f"data={data}").classifier
        assert cfg.clip == alone(f"clip={clip}").clip
        assert OmegaConf.to_container(cfg.adapter) == OmegaConf.to_container(alone(f"adapter={adapter}").adapter)
        assert cfg.optim == alone().optim
        assert cfg.frames == {**alone(f"data={data}").frames, "color": frames}


@pytest.mark.parametrize("command", ["train", "pseudo_label", "import_checkpoint"])
def test_nothing_is_chosen_where_nothing_is_said(composed, command):
    cfg = composed(command=command, hydra=True)
    assert cfg.hydra.runtime.choices.experiment is None
    assert not OF_THE_DEMO.findall(OmegaConf.to_yaml(cfg))


def test_the_demo_is_a_sweep_over_three_adapters_and_two_towers(composed):
    cfg = composed("experiment=demo", hydra=True)
    assert cfg.hydra.mode.name == "MULTIRUN"
    assert cfg.hydra.sweeper.params == {"adapter": "identity,text,joint", "clip": "tiny,tiny_aligned"}
    assert (cfg.hydra.runtime.choices.data, cfg.hydra.runtime.choices.clip) == ("symbols", "tiny")


def test_an_unknown_root_key_in_an_experiment_file_is_named(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\ntrianer: {max_epochs: 1}\n")
    register_schema()
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"), pytest.raises(HydraException, match="trianer"):
        compose("train", ["experiment=mine", f"hydra.searchpath=[file://{tmp_path}]"])


def test_an_unknown_key_on_the_command_line_is_named(composed):
    with pytest.raises(HydraException, match="shotz"):
        composed("fewshot.shotz=1")


def test_an_experiment_overrules_the_labelling_keys(composed):
    cfg = composed("experiment=demo_pseudo", "out=x.json", command="pseudo_label")
    assert cfg.pseudo.threshold == 0.7
    assert cfg.pseudo.topk == 30
    with pytest.raises(HydraException, match="linkz"):
        composed("linkz=there", command="pseudo_label")
    with pytest.raises(HydraException, match="pseudo"):
        composed("pseudo.topk=3")


def test_a_users_mistake_ends_in_one_sentence():
    @command
    def task() -> None:
        raise UserError("the folder /x is missing: give data.root")

    with pytest.raises(SystemExit, match=r"^eventclip: the folder /x is missing: give data\.root$"):
        task()


def test_a_mistake_in_our_code_keeps_its_traceback():
    @command
    def task() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        task()


def test_the_sentence_is_found_inside_a_workers_traceback():
    error = RecordingError("/d/x.npy is empty: expected events")
    wrapped = 'Caught RecordingError in DataLoader worker process 0.\nOriginal Traceback:\n  File "x"\n'
    wrapped += f"eventclip.errors.RecordingError: {error}\n"
    assert innermost_sentence(wrapped) == str(error)
    assert innermost_sentence(str(error)) == str(error)


def test_the_table_of_heads_has_every_adapter_that_learns():
    heads = OmegaConf.load(Path(CONFIG_DIR, "experiment", "heads.yaml"))
    there = {path.stem for path in Path(CONFIG_DIR, "adapter").glob("*.yaml")}
    assert set(heads.hydra.sweeper.params.adapter.split(",")) == there - {"identity", "visual"}
