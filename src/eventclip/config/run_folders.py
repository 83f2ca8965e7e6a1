"""Folders of a sweep's runs: short plain names, and what was typed for each."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

_WHERE = ("data.root", "trainer", "hydra/launcher")
"""Settings that say where a run is done and change nothing in it; so do all of paths."""


def sweep_folder(sweep: str, number: int, overrides: Sequence[str]) -> str:
    """Name the folder of one run of a sweep, short and plain whatever is typed: its number and a hash, "3-1f0c9a2b".

    The hash is of what was typed for it, in any order, without what says only where it is done; of an absolute path it
    takes the last name. A folder that the same run has left is found by it, though the sweep may number it otherwise.

    Args:
        sweep: the sweep's folder.
        number: of the run in the sweep, from 0 on.
        overrides: what was typed for the run, Hydra's own settings left out.
    """
    typed = sorted(one for one in overrides if not _says_where(one))
    named = [_without_folder(one) for one in typed]
    digest = blake2b("\n".join(named).encode(errors="surrogateescape"), digest_size=4).hexdigest()
    for left in sorted(Path(sweep).glob(f"*-{digest}")):
        if typed == sorted(one for one in overrides_of(left) if not _says_where(one)):
            return left.name
    return f"{number}-{digest}"


def overrides_of(folder: Path) -> list[str]:
    """What was typed for the run in a folder; nothing where it does not say."""
    try:
        saved = OmegaConf.to_container(OmegaConf.load(folder / ".hydra" / "overrides.yaml"))
    except Exception:  # noqa: BLE001  (YAML's errors and the system's, of whoever wrote into the folder)
        return []
    return [one for one in saved if isinstance(one, str)] if isinstance(saved, list) else []


def differences(folders: Sequence[Path]) -> dict[Path, str]:
    """What was typed for each of several runs and not for all of them, in the order it was typed."""
    typed = {folder: overrides_of(folder) for folder in folders}
    shared = set.intersection(*map(set, typed.values())) if len(typed) > 1 else set()
    return {folder: " ".join(one for one in overrides if one not in shared) for folder, overrides in typed.items()}


def remove_unused_folder() -> None:
    """Remove the folder of the run that ends with a mistake, where it holds nothing but what Hydra writes first."""
    hydra = HydraConfig.get()
    if hydra.output_subdir is None:
        return
    folder = Path(hydra.runtime.output_dir)
    written = [path for path in folder.glob("*") if path.suffix != ".log" or path.stat().st_size]
    if folder != Path.cwd() and [path.name for path in written] == [hydra.output_subdir]:
        shutil.rmtree(folder, ignore_errors=True)


def _says_where(override: str) -> bool:
    key = override.lstrip("+").partition("=")[0]
    return key in _WHERE or key.startswith("paths.")


def _without_folder(override: str) -> str:
    key, _, value = override.partition("=")
    value = value.strip("'\"")
    return f"{key}={value.rpartition('/')[2]}" if value.startswith("/") else override
