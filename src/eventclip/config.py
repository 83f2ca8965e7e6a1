"""Where the YAML tree lies, what its root may hold, and how a user's mistake is told."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.config_store import ConfigStore
from hydra.errors import CompactHydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eventclip.cluster import slurm_job
from eventclip.errors import UserError

T = TypeVar("T")

_INSTALLED = Path(__file__).parent / "conf"
_CHECKOUT = Path(__file__).parents[2] / "conf"
CONFIG_DIR = str(_INSTALLED if _INSTALLED.is_dir() else _CHECKOUT)
"""Absolute folder of the configuration: inside an installed wheel, or beside ``src/`` in a checkout."""


@dataclass
class TrainConfig:
    """The root keys of ``conf/train.yaml``; any other key is refused when the configuration is composed."""

    name: str = MISSING
    seed: int = 0
    resume: str | None = "auto"
    trust: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    fewshot: dict[str, Any] = field(default_factory=dict)
    frames: dict[str, Any] = field(default_factory=dict)
    views: dict[str, Any] = field(default_factory=dict)
    clip: dict[str, Any] = field(default_factory=dict)
    tuning: dict[str, Any] = field(default_factory=dict)
    adapter: dict[str, Any] = field(default_factory=dict)
    classifier: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=dict)
    selection: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    paths: dict[str, Any] = field(default_factory=dict)


@dataclass
class EvaluateConfig(TrainConfig):
    """The root keys of ``conf/evaluate.yaml``."""

    checkpoint: str = MISSING
    split: str = "test"


@dataclass
class ImportConfig(TrainConfig):
    """The root keys of ``conf/import_checkpoint.yaml``."""

    reference: str = MISSING
    out: str = MISSING


@dataclass
class PseudoLabelConfig(TrainConfig):
    """The root keys of ``conf/pseudo_label.yaml``: a training configuration and what concerns the labels."""

    checkpoint: str | None = None
    out: str = MISSING
    links: str | None = None
    pseudo: dict[str, Any] = field(default_factory=dict)


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
    known = EvaluateConfig(name=config.get("name", "unknown"), seed=config.get("seed", 0))
    store.store(name="evaluate_schema", node=known)


def register_schema(root: type[TrainConfig] = TrainConfig) -> None:
    """Let Hydra check the root of every configuration composed from now on, and find what the package ships.

    Args:
        root: what the command's root may hold; ``conf/train.yaml`` names it "train_schema" whichever it is.
    """
    # Hydra copies the store, which never changes what it holds, for each group that it lists: half the time of --help.
    ConfigStore.__deepcopy__ = lambda store, _: store  # type: ignore[attr-defined]
    ConfigStore.instance().store(name="train_schema", node=root)
    ConfigStore.instance().store(name="import_schema", node=ImportConfig)
    OmegaConf.register_new_resolver("run_id", run_id, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("slurm_launcher", slurm_launcher, replace=True)
    OmegaConf.register_new_resolver("asset", lambda name: str(Path(__file__).parent / "assets" / name), replace=True)


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


def command(task: Callable[..., T]) -> Callable[..., T]:
    """Wrap a command's task so that a user's mistake ends in one sentence on stderr and exit status 1.

    Errors that are not the user's (anything but :class:`UserError` and OmegaConf's own) keep their traceback:
    they are ours to mend.
    """

    @functools.wraps(task)
    def told(*args: Any) -> T:
        try:
            return task(*args)
        except UserError as error:
            sentence = innermost_sentence(str(error))
        except OmegaConfBaseException as error:
            reason = (str(error.msg or error).splitlines() or [""])[0]
            sentence = f"the configuration is wrong at '{error.full_key}': {reason}"
        sys.stdout.flush()
        if "SUBMITIT_EXECUTOR" in os.environ:  # an exit would leave the process that waits for this job without a word
            raise CompactHydraException(f"eventclip: {sentence}")
        raise SystemExit(f"eventclip: {sentence}")

    return told


def innermost_sentence(message: str) -> str:
    """The sentence inside an error message that a data loader's worker may have wrapped in its traceback."""
    lines = [line for line in message.splitlines() if line.strip()]
    line = lines[-1] if lines else message
    kind, _, rest = line.partition(": ")
    return rest if "." in kind and kind.endswith("Error") else line
