"""Where the YAML tree lies, what its root may hold, and what its interpolations may call."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import field
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from eventclip.cluster import slurm_job
from eventclip.config.checking import sections_of
from eventclip.config.run_folders import sweep_folder
from eventclip.config.schema import EvaluateConfig, ImportConfig, PseudoLabelConfig, TrainConfig
from eventclip.config.sentences import command, innermost_sentence

__all__ = [
    "CONFIG_DIR",
    "LEARNED_ON",
    "PseudoLabelConfig",
    "TrainConfig",
    "command",
    "innermost_sentence",
    "register_checkpoint",
    "register_schema",
    "run_id",
    "slurm_launcher",
]

_INSTALLED = Path(__file__).parents[1] / "conf"
_CHECKOUT = Path(__file__).parents[3] / "conf"
CONFIG_DIR = str(_INSTALLED if _INSTALLED.is_dir() else _CHECKOUT)
"""Absolute folder of the configuration: inside an installed wheel, or beside ``src/`` in a checkout."""

LEARNED_ON = ("clip", "tuning", "frames", "views", "data", "fewshot", "adapter", "classifier", "optim")
"""The groups that say what a checkpoint learned and on what; the others say how and where a run is done."""


def register_checkpoint(config: Mapping[str, Any]) -> None:
    """Offer a checkpoint's own configuration as the option "checkpoint" of each group that it decides.

    So `conf/evaluate.yaml` composes like any other: ``data.root=...`` changes one value of the checkpoint's, and
    ``data=nimagenet`` takes another option in its place.

    Args:
        config: the resolved configuration in the checkpoint's card; empty where no checkpoint was named.
    """
    register_schema()
    store = ConfigStore.instance()
    for group in LEARNED_ON:
        node = dict(config.get(group, {}))
        if str(node.get("_target_")).endswith(".SymbolsDataModule"):
            node["root"] = "${paths.cache}"  # it is filmed there, which is for this run to say
        store.store(group=group, name="checkpoint", node=node)
    known = _root_of(EvaluateConfig)(name=config.get("name", "unknown"), seed=config.get("seed", 0))
    store.store(name="evaluate_schema", node=known)


def register_schema(root: type[TrainConfig] = TrainConfig) -> None:
    """Let Hydra check the root of every configuration composed from now on, and find what the package ships.

    Args:
        root: what the command's root may hold; ``conf/train.yaml`` names it "train_schema" whichever it is.
    """
    # Hydra copies the store, which never changes what it holds, for each group that it lists: half the time of --help.
    ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]
    ConfigStore.instance().store(name="train_schema", node=_root_of(cast("Any", root)))
    ConfigStore.instance().store(name="import_schema", node=_root_of(ImportConfig))
    OmegaConf.register_new_resolver("run_id", run_id, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
    OmegaConf.register_new_resolver("slurm_launcher", slurm_launcher, replace=True)
    OmegaConf.register_new_resolver(
        "asset", lambda name: str(Path(__file__).parents[1] / "assets" / name), replace=True
    )


@functools.cache
def _root_of(schema: Any) -> Any:
    """A root that refuses keys which the schema does not have; what their values may be, `checking` says."""
    base: Any = schema.__mro__[1]
    bases: tuple[Any, ...] = () if base is object else (_root_of(base),)  # Hydra lays one over the other
    empty = sections_of(schema)
    fields: list[Any] = [
        (one.name, Any, field(default_factory=dict) if one.name in empty else field(default=one.default))
        for one in dataclasses.fields(schema)
    ]
    return dataclasses.make_dataclass(schema.__name__, fields, bases=bases)


def run_id(now: str, overrides: Sequence[str]) -> str:
    """Name the folder of a run: the same for every rank and after every requeue of a Slurm job.

    Args:
        now: the name outside Slurm, and in an interactive session.
        overrides: what was typed; two commands in one job script get two folders.
    """
    job = slurm_job()
    if job is None:
        return now
    return f"slurm-{job}-{blake2b(repr(list(overrides)).encode(), digest_size=4).hexdigest()}"


def slurm_launcher() -> str:
    """Class of the launcher of sweeps on Slurm; where it is not installed, the command ends in a sentence."""
    if find_spec("submitit") is None:
        raise SystemExit("eventclip: hydra/launcher=slurm needs a launcher: pip install 'eventclip[slurm]'")
    return "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
