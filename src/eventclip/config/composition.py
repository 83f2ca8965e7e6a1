"""Hydra's composition with what this package adds: checked roots, resolvers, checkpoints as options, the schema."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eventclip.cluster import slurm_job
from eventclip.config import CONFIG_DIR
from eventclip.config.checking import check_config, sections_of
from eventclip.config.command_line import value_of
from eventclip.config.inputs import check_checkpoint
from eventclip.config.run_folders import sweep_folder
from eventclip.config.schema import AlignConfig, EvaluateConfig, ImportConfig, PseudoLabelConfig, TrainConfig
from eventclip.config.sentences import check_choices, command, innermost_sentence
from eventclip.errors import UserError

__all__ = [
    "CONFIG_DIR",
    "LEARNED_ON",
    "PseudoLabelConfig",
    "TrainConfig",
    "command",
    "innermost_sentence",
    "offer_checkpoint",
    "register_checkpoint",
    "register_schema",
    "run_id",
    "slurm_launcher",
]

LEARNED_ON = ("clip", "tuning", "frames", "views", "data", "fewshot", "adapter", "classifier", "optim")
"""The groups that say what a checkpoint learned and on what; the others say how and where a run is done."""


def offer_checkpoint(arguments: list[str], read: Callable[[list[str]], Mapping[str, Any]]) -> None:
    """Offer the configuration of the checkpoint that is named on the command line; none where none is named.

    Args:
        arguments: of the command line, quoted.
        read: gives that configuration from them.

    Raises:
        UserError: there is no such checkpoint, several are named, or it cannot be read.
    """
    path = value_of(arguments, "checkpoint", "checkpoints, and each brings its own configuration")
    if path is not None:
        check_checkpoint(path)
    register_checkpoint({} if path is None else read(arguments))


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
            node["root"] = "${paths.cache}"  # it is simulated there, which is for this run to say
        store.store(group=group, name="checkpoint", node=node)
    known = _root_of(EvaluateConfig)(name=config.get("name", "unknown"), seed=config.get("seed", 0))
    store.store(name="evaluate_schema", node=known)


def register_schema(root: type[TrainConfig] = TrainConfig) -> None:
    """Let Hydra check the root of every configuration composed from now on, and find what the package ships.

    Args:
        root: what the command's root may hold; ``conf/train.yaml`` names it "train_schema" whichever it is.
    """
    ConfigStore.instance().store(name="train_schema", node=_root_of(cast("Any", root)))
    ConfigStore.instance().store(name="import_schema", node=_root_of(ImportConfig))
    ConfigStore.instance().store(name="align_schema", node=_root_of(AlignConfig))
    OmegaConf.register_new_resolver("run_id", run_id, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
    OmegaConf.register_new_resolver("slurm_launcher", slurm_launcher, replace=True)
    OmegaConf.register_new_resolver(
        "asset", lambda name: str(Path(__file__).parents[1] / "assets" / name), replace=True
    )
    OmegaConf.register_new_resolver("expanded", lambda path: str(Path(str(path)).expanduser()), replace=True)


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


class CheckingLoader(ConfigLoaderImpl):
    """Composes a command's configuration and checks it, in this process and in a sweep's jobs elsewhere.

    Args:
        config_search_path: Hydra's.
        command: one of :data:`eventclip.config.schema.COMMANDS`.
    """

    def __init__(self, config_search_path: ConfigSearchPath, command: str) -> None:
        super().__init__(config_search_path=config_search_path)
        self.command = command

    def load_configuration(
        self, config_name: str | None, overrides: list[str], *args: Any, **kwargs: Any
    ) -> DictConfig:
        """Compose, check and convert; the further arguments are Hydra's.

        Raises:
            UserError: a choice that is none, or a value of another kind than its setting's.
        """
        parsed = OverridesParser.create(config_loader=self).parse_overrides(overrides)
        options = {
            one.key_or_group: self.get_group_options(one.key_or_group, ObjectType.CONFIG)
            for one in parsed
            if self.repository.group_exists(one.key_or_group)
        }
        check_choices(parsed, options)
        cfg = super().load_configuration(config_name, overrides, *args, **kwargs)
        check_config(cfg, self.command)
        if kwargs.get("validate_sweep_overrides", True):  # else Hydra asks for the mode, and lets no error pass
            _refuse_folder_of_a_sweep(cfg, overrides)
        return cfg


def _refuse_folder_of_a_sweep(cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse a run's folder where several runs are asked for, which would not be used."""
    given = next((one for one in overrides if one.startswith("hydra.run.dir=")), None)
    if given is not None and OmegaConf.select(cfg, "hydra.mode") == RunMode.MULTIRUN:
        raise UserError(
            f"{given} is the folder of one run, and this is a sweep: add hydra.mode=RUN for one run, or give "
            f"hydra.sweep.dir= in its place"
        )
