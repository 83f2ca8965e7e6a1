"""The schema and the YAML tree name the same settings, and no odd value passes as something else."""

import copy
from collections import Counter, defaultdict
from pathlib import Path
from typing import get_args

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, flag_override

from eventclip.config import schema
from eventclip.config.checking import check_config, kinds_of, section_of, settings_of
from eventclip.config.composition import (
    CONFIG_DIR,
    PseudoLabelConfig,
    TrainConfig,
    register_checkpoint,
    register_schema,
)
from eventclip.config.schema import COMMANDS, TARGETS, Built, Collected
from eventclip.errors import UserError

NEEDED = {
    "train": ["experiment=demo", "resume=r.ckpt", "selection=validation", "features=cached", "trainer=ddp"],
    "evaluate": [
        *("checkpoint=c.ckpt", "data=folder", "clip=tiny", "tuning=lora", "frames=gray", "views=paper"),
        *("fewshot=shots", "adapter=joint", "classifier=paper", "optim=adam", "data.root=x", "name=x"),
    ],
    "import_checkpoint": ["reference=r.pth", "out=o.ckpt", "data=ncaltech101"],
    "pseudo_label": ["out=o.json", "checkpoint=c.ckpt", "data=nimagenet_mini"],
    "pack": ["out=o.h5", "data=ncars"],
    "data_check": ["data=symbols"],
    "predict": ["recordings=r.raw", "clip=tiny", "classes=[star,gear]"],
    "show": ["recording=r.raw", "clip=vit_b_32"],
    "export": ["out=exported", "clip=tiny"],
    "simulate": ["images=images", "out=out"],
    "pairs": ["recordings=r", "out=o.csv"],
    "align": ["images=i", "out=o.safetensors", "trainer=ddp"],
}
"""Overrides with which each command has as many settings as it may."""
GROUPS = {
    path.name: sorted(one.stem for one in path.glob("*.yaml")) for path in Path(CONFIG_DIR).iterdir() if path.is_dir()
}
GROUPS = {name: options for name, options in GROUPS.items() if name not in ("experiment", "hydra")}


def composed(command, *overrides):
    if command == "evaluate":
        register_checkpoint({})
    else:
        register_schema(PseudoLabelConfig if command == "pseudo_label" else TrainConfig)
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose(command, list(overrides))


def note(node, described, seen):
    """Note the keys of a section and of those in it, by what the schema calls them."""
    if isinstance(described, Collected):
        for part in node.values():
            if part is not None:
                note(part, Built(()), seen)
        return
    if isinstance(described, Built):
        described = TARGETS.get(node.get("_target_"))
        if described is None:
            return
    seen[described] |= {str(key) for key in node} - {"_target_", "_partial_"}
    for key, kind in kinds_of(described).items():
        inner, _ = section_of(kind)
        if inner is not None and isinstance(node.get(key), DictConfig):
            note(node[key], inner, seen)


def test_schema_and_yaml_tree_name_the_same_settings():
    seen = defaultdict(set)
    for command, overrides in NEEDED.items():
        note(composed(command, *overrides), COMMANDS[command], seen)
    for group, options in GROUPS.items():
        for option in options:
            note(composed("train", f"{group}={option}"), COMMANDS["train"], seen)
    for command in ("pack", "data_check"):  # data sets set prompts and the like at the root, which others look at
        seen[COMMANDS[command]].discard("classifier")
    bases = {schema.DataSet, schema.RecordedDataSet, schema.Trainer, schema.ClassifyConfig}
    for described, keys in seen.items():
        assert keys == set(kinds_of(described)), described.__name__
    assert set(seen) | bases >= {*COMMANDS.values(), *TARGETS.values()} - {schema.Nothing, schema.TextAdapter}


def test_every_choice_in_the_schema_is_one_that_the_code_knows():
    from eventclip.datasets.recordings import SPLITS
    from eventclip.datasets.sampling import SAMPLINGS
    from eventclip.events.frames import COLORS
    from eventclip.features.encode import DTYPES
    from eventclip.io.formats import TIME_UNITS
    from eventclip.models.architecture import PRECISIONS
    from eventclip.models.pooling import POOLINGS
    from eventclip.models.tuning import LORA_TARGETS as LORA
    from eventclip.models.tuning import PARTS
    from eventclip.training.module import LOSSES
    from eventclip.views.resize import RESIZE_MODES
    from eventclip.views.transform import TTA

    def choices(described, key):
        return set(get_args(kinds_of(described)[key]))

    assert set(get_args(schema.ResizeMode)) == set(RESIZE_MODES)
    assert set(get_args(schema.Color)) == set(COLORS)
    assert set(get_args(schema.TimeUnit)) == set(TIME_UNITS)
    assert set(get_args(schema.Split)) == set(SPLITS)
    assert set(get_args(schema.Parts)) == set(PARTS)
    assert choices(schema.FewShot, "sampling") == set(SAMPLINGS)
    assert choices(schema.Clip, "precision") == set(PRECISIONS)
    assert choices(schema.Tuning, "lora_targets") == set(LORA)
    assert choices(schema.Classifier, "pooling") == set(POOLINGS)
    assert choices(schema.Classifier, "loss") == set(LOSSES)
    assert choices(schema.FeatureCache, "dtype") == set(DTYPES)
    assert {get_args(one) for one in get_args(kinds_of(schema.Pseudo)["tta"])} == {tuple(TTA)}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_what_ships_passes_as_it_is(command):
    cfg = composed(command, *NEEDED[command])
    before = OmegaConf.to_container(cfg)
    check_config(cfg, command)
    assert OmegaConf.to_container(cfg) == before


ODD = ["abc", "", None, 0, [1], {"a": 1}, True, 1.5, -1, 10**21, float("nan"), "no", "1e5", [[None]], "../up", "a\0b"]


def places(node, prefix=""):
    """Every key of a configuration: the section it is in, itself, and its full name."""
    for key in list(node):
        yield node, key, f"{prefix}{key}"
        inner = node._get_node(key)
        if isinstance(inner, DictConfig) and not (inner._is_none() or inner._is_interpolation()):
            yield from places(inner, f"{prefix}{key}.")


def spelled(value):
    return (
        str(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)
        .replace("'", "")
        .replace("1.0}", "1}")
        .lower()
    )


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_an_odd_value_is_taken_or_refused_in_one_sentence(command):
    cfg = composed(command, *NEEDED[command])
    outcomes = Counter()
    for section, key, name in places(cfg):
        right = copy.deepcopy(section._get_node(key))
        for odd in ODD:
            with flag_override(section, ["struct", "readonly"], False):
                section[key] = odd
            try:
                check_config(cfg, command)
            except UserError as error:
                outcomes["refused"] += 1
                told = str(error)
                assert "\n" not in told, name
                assert "\0" not in told, name
                assert name in told or name.rpartition(".")[0] in told, told
            else:
                outcomes["taken"] += 1
                found = spelled(section[key])
                assert found == spelled(odd) or (odd, found) in SPELLINGS or float(found) == float(odd), name
            section._content[key] = copy.deepcopy(right)
    assert outcomes["refused"] > outcomes["taken"]


SPELLINGS = [("no", "false"), ("1e5", "100000"), ("1e5", "100000.0")]


@pytest.mark.parametrize(
    ("command", "override", "told"),
    [
        ("predict", "sensor_hw=180", "sensor_hw must be height and width"),
        ("predict", "sensor_hw={h:180,w:240}", "sensor_hw must be height and width"),
        ("show", "sensor_hw=[null,null]", "sensor_hw"),
        ("predict", "sensor_hw=[180.5,240]", r"sensor_hw\[0\] must be a whole number from 1 to 32768, got 180.5"),
        ("predict", "sensor_hw=[100000,100000]", r"sensor_hw\[0\] must be a whole number from 1 to 32768"),
        ("predict", "top=two", "top must be a whole number"),
        ("predict", "window_us=100ms", "window_us must be a whole number"),
        ("predict", "frames.events_per_frame=20k", "frames.events_per_frame must be a whole number"),
        ("predict", "frames.hot_pixel_std=abc", "frames.hot_pixel_std must be a number"),
        ("predict", "views.max_views=1.5", "views.max_views must be a whole number"),
        (
            "predict",
            "frames.white_background=maybe",
            "frames.white_background must be true or false, or null, got 'maybe'",
        ),
        ("show", "image_size=224.5", "image_size must be a whole number"),
        ("show", "gif_ms=abc", "gif_ms must be a whole number"),
        ("train", "trainer.max_epochs=1.5", "trainer.max_epochs must be a whole number"),
        ("train", "trainer.max_epochs=nan", "trainer.max_epochs must be a whole number"),
        ("train", "trainer.limit_train_batches=1.5", "trainer.limit_train_batches must be a number from 0.0 to 1.0"),
        ("train", "seed=-1", "seed must be a whole number from 0 to 4294967295, got -1"),
        ("train", "seed=1.5", "seed must be a whole number"),
        ("train", "name=null", "name must be a plain name"),
        ("train", "name=../up", "name must be a plain name"),
        ("train", "callbacks.last=0", "callbacks.last must be a section of settings, or null, got 0"),
        ("train", "callbacks.pictures._partial_=abc", "callbacks.pictures._partial_ must be true or false"),
        ("train", "data.class_names=abc", r"data.class_names must be a list \[...\] of class names"),
        ("train", "data.class_names=[yes,true,null]", r"data.class_names\[1\] must be a class name, got true"),
        ("train", "data.augmentation=1.5", "data.augmentation must be a section"),
        ("train", "classifier.prompts=[1.5]", r"classifier.prompts\[0\] must be a prompt"),
        ("train", "features=cached features.precision=-1", "features.precision must be one of"),
        ("train", "+tuning.rank=3", "tuning.rank is no setting of tuning, did you mean tuning.lora_rank"),
        ("pseudo_label", "pseudo.shard_size=abc", "pseudo.shard_size must be a whole number"),
        ("pseudo_label", "pseudo.threshold={few_shot: high}", "pseudo.threshold.few_shot must be a number from 0 to 1"),
        ("simulate", "leave_out=5", "leave_out must be a list"),
        ("simulate", "saccade_us=1000000000000", "saccade_us must be a whole number from 1000 to"),
        ("data_check", "splits=1.5", "splits must be a list"),
        ("pack", "workers=0", "workers must be a whole number"),
    ],
)
def test_a_value_of_another_kind_names_its_key(command, override, told):
    cfg = (
        composed(command, *override.split(" ", maxsplit=1))
        if override.startswith("features")
        else composed(command, override)
    )
    with pytest.raises(UserError, match=told):
        check_config(cfg, command)


def test_a_value_is_converted_in_the_configuration_itself():
    cfg = composed(
        "train",
        *("data.augmentation.mirror=no", "trainer.max_epochs=1e2", "data.root=20240131", "optim.lr=1", "name=5"),
        *("frames.events_per_frame='2e3'", "fewshot.repeat=Off", "data.sensor_hw=['180',240]"),
    )
    check_config(cfg, "train")
    assert cfg.data.augmentation.mirror is False
    assert cfg.fewshot.repeat is False
    assert (cfg.trainer.max_epochs, type(cfg.trainer.max_epochs)) == (100, int)
    assert (cfg.data.root, cfg.name) == ("20240131", "5")
    assert type(cfg.optim.lr) is float
    assert cfg.frames.events_per_frame == 2000
    assert cfg.data.sensor_hw == [180, 240]
    assert OmegaConf.is_struct(cfg)


def test_an_interpolation_is_checked_once_it_can_be_resolved():
    cfg = composed("train", "fewshot.seed=${data.root}", "data.root=abc", "paths.output=x")
    check_config(cfg, "train")
    with pytest.raises(
        UserError, match=r"fewshot\.seed must be a whole number from 0 to 9223372036854775807, got 'abc'"
    ):
        check_config(cfg, "train", resolve=True)


def test_settings_of_a_target_of_ones_own_pass():
    cfg = composed("train", "adapter._target_=mine.Adapter", "adapter.width=wide", "adapter=joint")
    check_config(cfg, "train")
    assert cfg.adapter.width == "wide"


def test_every_command_knows_its_paths():
    assert {"recordings", "clip.pretrained", "checkpoint", "frames.color"} <= set(settings_of("predict"))
    assert {"data.root", "callbacks.table.file", "callbacks.last.folder"} <= set(settings_of("evaluate"))
