"""What makes one run another experiment than the next: its configuration without what only the machine needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A section stands for all keys below it.
_NOT_SETTINGS = (
    "name",
    "seed",
    "resume",
    "trust",
    "paths",
    "logger",
    "callbacks",
    "data.root",
    "data.packed",
    "data.num_workers",
    "data.evaluation_batch_size",
    "clip.cache_dir",
    "trainer._target_",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.default_root_dir",
    "trainer.log_every_n_steps",
    "trainer.num_sanity_val_steps",
    "trainer.enable_model_summary",
    "trainer.use_distributed_sampler",
    "trainer.check_val_every_n_epoch",
)


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a resolved configuration to dotted keys and keep what can change a result.

    Args:
        config: plain nested containers, interpolations resolved.

    Returns:
        Dotted key -> plain value, in the configuration's order, for ``results.json``. Left out are the name and the
        seed (they have their own place), where files lie, what is logged, and how many processes do the work. Of a
        file's absolute path only its name stays, so that two machines' runs compare.
    """
    return {key: _without_folder(value) for key, value in _leaves(config, "") if not _is_left_out(key)}


def _leaves(node: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in node.items():
        if isinstance(value, Mapping):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def _is_left_out(key: str) -> bool:
    return key.endswith("._partial_") or any(key == name or key.startswith(f"{name}.") for name in _NOT_SETTINGS)


def _without_folder(value: Any) -> Any:
    return value.rpartition("/")[2] if isinstance(value, str) and value.startswith("/") else value
