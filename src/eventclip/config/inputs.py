"""Files and folders that a command needs, looked for before anything heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from eventclip.config.schema import TARGETS
from eventclip.errors import UserError

_SIMULATED = "eventclip.datasets.symbols.SymbolsDataModule"
"""The data set that is simulated on first use: its folder need not be there."""

_WEIGHTS = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")


def check_given(cfg: DictConfig, key: str, meaning: str) -> None:
    """Refuse a configuration without a value that its command cannot do without.

    Args:
        cfg: the configuration.
        key: at its root.
        meaning: what to give, for the message.

    Raises:
        UserError: it is "???" or null.
    """
    if OmegaConf.is_missing(cfg, key) or cfg[key] is None:
        raise UserError(f"{key}= is missing{meaning}")


def check_training(cfg: DictConfig) -> None:
    """Look for what a run reads: data set, CLIP's files, split file and the checkpoint to go on from.

    Raises:
        UserError: names the first that is not there.
    """
    check_data(cfg)
    check_clip(cfg)
    split_file = _value(cfg, "fewshot", "split_file")
    if split_file is not None and not _path(split_file).is_file():
        raise UserError(f"there is no file {split_file}: fewshot.split_file is what eventclip pseudo_label wrote")
    _check_resume(cfg)


def _check_resume(cfg: DictConfig) -> None:
    resume = cfg.get("resume")
    requeued = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"  # takes its own newest, whatever was asked for
    if resume not in (None, "auto") and not requeued:
        check_checkpoint(resume)


def check_alignment(cfg: DictConfig) -> None:
    """Look for what an alignment reads: images, pairs, CLIP's files and the checkpoint to go on from.

    Raises:
        UserError: names the first that is missing or not there, or a CLIP that is aligned already.
    """
    typed = "eventclip align images=DIR clip=... out=aligned.safetensors"
    check_given(cfg, "images", f", the folder of images: {typed}")
    check_given(cfg, "out", f", the file to write: {typed}")
    if not _path(cfg.images).is_dir():
        raise UserError(f"there is no folder {_path(cfg.images)}: images= is a folder with images, of any depth")
    pairs = _value(cfg, "pairs", "map")
    if pairs is not None and not _is_file(pairs):
        raise UserError(f"there is no file {_path(pairs)}: pairs.map is what eventclip pairs wrote")
    aligned = _value(cfg, "clip", "aligned")
    if aligned is not None:
        raise UserError(
            f"clip.aligned={aligned} is an alignment already, and each begins at CLIP itself: give clip.aligned=null"
        )
    check_clip(cfg)
    _check_resume(cfg)


def check_data(cfg: DictConfig) -> None:
    """Look for the data set's folder, or the packs in its place.

    Raises:
        UserError: names what is not there.
    """
    target, root, packed = (_value(cfg, "data", name) for name in ("_target_", "root", "packed"))
    if packed is not None:
        several = packed if isinstance(packed, list | ListConfig) else [packed]
        missing = [one for one in several if not _path(one).is_dir()]
        if missing:
            raise UserError(
                f"there is no pack {missing[0]}: data.packed is a folder that eventclip pack made, and a pack of "
                f"version 0.1, which is a file, must be packed again"
            )
        return
    if target not in TARGETS or target == _SIMULATED:
        return
    if root is None:
        raise UserError("data.root is missing: give the data set's folder, or a pack of it by data.packed")
    if not _path(root).is_dir():
        raise UserError(f"there is no folder {_path(root)}: set data.root to the data set's folder")


def check_clip(cfg: DictConfig) -> None:
    """Look for CLIP's own files, where it is described by any.

    Raises:
        UserError: names the one that is not there.
    """
    config, weights, aligned = (_value(cfg, "clip", key) for key in ("config", "pretrained", "aligned"))
    if config is not None and not _is_file(config):
        raise UserError(f"clip.config={config} does not exist: expected a JSON file of an architecture")
    names_a_file = weights is not None and (_path(weights).suffix in _WEIGHTS or len(_path(weights).parts) > 1)
    if names_a_file and not _is_file(weights):
        raise UserError(f"clip.pretrained={weights} does not exist: expected a file with CLIP's weights")
    if aligned is not None and not _is_file(aligned):
        raise UserError(f"clip.aligned={aligned} does not exist: give the file that eventclip align wrote")


def check_checkpoint(path: Any) -> None:
    """Look for a checkpoint.

    Raises:
        UserError: it is not there.
    """
    if not _is_file(path):
        raise UserError(
            f"there is no checkpoint {_path(path)}: give the path of a .ckpt file that eventclip train wrote"
        )


def check_reference(path: Any) -> None:
    """Look for a checkpoint of the published implementation.

    Raises:
        UserError: it is not there.
    """
    if not _is_file(path):
        raise UserError(f"{path} cannot be read (no such file): expected a .pth of the published implementation")


def _value(cfg: DictConfig, section: str, name: str) -> Any:
    node = cfg.get(section)
    return node.get(name) if isinstance(node, DictConfig) else None


def _path(value: Any) -> Path:
    return Path(str(value)).expanduser()


def _is_file(value: Any) -> bool:
    return _path(value).is_file()
