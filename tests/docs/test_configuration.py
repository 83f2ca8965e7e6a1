"""The page of keys names every key that there is, and none that there is not."""

import re
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from eventclip.config import CONFIG_DIR

CONF = Path(CONFIG_DIR)
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("experiment", "hydra"))
ROOTS = sorted(path.stem for path in CONF.glob("*.yaml"))
LIGHTNING = ("callbacks.best.", "callbacks.progress.", "logger.tensorboard.", "logger.csv.")
"""Parts whose keys are Lightning's to explain."""
ROOT_KEYS = {"experiment", "name", "seed", "resume", "clip", "data.columns", "data.sort", "data.stream"}
OPTIONAL = {"data.drop_outside", "trainer.strategy", "data.augmentation", "pseudo.threshold", "split"}


def keys(node, prefix=""):
    """Dotted keys of a node, those of inner nodes too; nothing that is Hydra's own."""
    for key in node:
        if str(key).startswith("_") or key in ("defaults", "hydra"):
            continue
        value = node._get_node(key)
        yield f"{prefix}{key}"
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_interpolation():
            yield from keys(value, f"{prefix}{key}.")


def keys_of_group(group):
    found = set()
    for path in (CONF / group).glob("*.yaml"):
        at_root = "@package _global_" in path.read_text(encoding="utf-8")
        found |= set(keys(OmegaConf.load(path), "" if at_root else f"{group}."))
    return {key for key in found if "." in key and not key.startswith(LIGHTNING)}


def named(page):
    """Keys in the first columns of the page's tables."""
    rows = re.findall(r"^\| (`[^|]+) \|", page.split("## Old names", maxsplit=1)[0], re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`([a-z0-9_.]+)`", row)}


@pytest.mark.parametrize("group", GROUPS)
def test_the_page_names_every_key_of_a_group(as_told, configuration_page, group):
    assert keys_of_group(group) <= named(configuration_page)


@pytest.mark.parametrize("root", ROOTS)
def test_the_page_names_every_key_of_a_command(as_told, configuration_page, root):
    found = {key for key in keys(OmegaConf.load(CONF / f"{root}.yaml")) if not key.startswith(LIGHTNING)}
    parts = {key.split(".")[0] for key in found if "." in key}
    groups = parts & (set(GROUPS) | {"pseudo", "camera", "heldout", "loss", "simulation", "pairs"})
    assert found - groups <= named(configuration_page)


def test_the_page_names_no_key_that_is_not_there(as_told, configuration_page):
    found = set().union(*(keys_of_group(group) for group in GROUPS))
    found |= {key for root in ROOTS for key in keys(OmegaConf.load(CONF / f"{root}.yaml"))}
    experiments = (OmegaConf.load(path) for path in (CONF / "experiment").glob("*.yaml"))
    found |= {key for experiment in experiments for key in keys(experiment)}
    assert named(configuration_page) - found - ROOT_KEYS - OPTIONAL == set()


@pytest.mark.parametrize("group", GROUPS)
def test_the_page_names_every_option_of_a_group(as_told, configuration_page, group):
    options = {path.stem for path in (CONF / group).glob("*.yaml")} - {"default", "openai", "tensorboard_csv"}
    assert options <= set(re.findall(r"`(?:\w+=)?(\w+)`", configuration_page))


def test_the_old_names_are_gone(as_told, configuration_page):
    old = configuration_page.split("## Old names", maxsplit=1)[1]
    found = set().union(*(keys_of_group(group) for group in GROUPS))
    assert not found & set(re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \|", old, re.MULTILINE))
