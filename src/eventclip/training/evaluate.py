"""Checkpoints under test: ours, and those of the paper's published implementation made ours."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from eventclip.config.checking import convert
from eventclip.datasets.recordings import SPLITS
from eventclip.errors import UserError
from eventclip.files import whole_file
from eventclip.models.checkpoint import check_metadata, load_learned, load_reference_checkpoint, read_checkpoint
from eventclip.training.experiment import Parts, assemble, make_trainer, quieten, write_results

log = logging.getLogger(__name__)


def config_of_checkpoint(overrides: list[str]) -> dict[str, Any]:
    """Read the configuration in the metadata of the checkpoint that the overrides name.

    Args:
        overrides: of the command line, with one ``checkpoint=PATH`` among them, and perhaps ``trust=true``.

    Raises:
        UserError: it cannot be read, several are named, or it asks for foreign code and is not trusted.
    """
    wanted = [override for override in overrides if override.startswith("checkpoint=")][-1]
    parsed = OverridesParser.create().parse_override(wanted)
    if parsed.is_sweep_override():
        raise UserError(
            f"{wanted} names several checkpoints, and each brings its own configuration: evaluate one after the other"
        )
    trusted = [override for override in overrides if override.lstrip("+").startswith("trust=")][-1:]
    trust = any(convert(OverridesParser.create().parse_override(one).value(), bool, "trust") for one in trusted)
    checkpoint = read_checkpoint(Path(str(parsed.value())).expanduser(), trust=trust)
    config: dict[str, Any] = checkpoint["eventclip"]["config"]
    return config


def evaluate(cfg: DictConfig) -> None:
    """Test a checkpoint; write ``results.json`` and ``predictions.csv`` into the run's folder.

    Raises:
        UserError: no checkpoint, an unknown split, or another CLIP, adapter or classes than it learned with.
    """
    started = time.monotonic()
    if not cfg.get("checkpoint"):
        raise UserError("checkpoint= is missing: give the path of a .ckpt file that eventclip.train wrote")
    if cfg.split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, got {cfg.split!r}")
    quieten()
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)
    path = Path(cfg.checkpoint).expanduser()
    parts, checkpoint = load(cfg, path)
    if parts.datamodule.half == "new":
        parts = parts.on_tested_classes(cfg)
    trainer = make_trainer(cfg, parts.datamodule.tested_names)
    trainer.test(parts.lit, datamodule=parts.datamodule, verbose=False)
    selected = checkpoint["eventclip"]["config"]["selection"]["split"]
    further = {
        "checkpoint": str(path),
        "split": cfg.split,
        "selection": {"split": selected, "tested": path.stem},
        "seconds": round(time.monotonic() - started, 1),
    }
    write_results(cfg, parts, trainer, further)


def load(cfg: DictConfig, path: Path) -> tuple[Parts, dict[str, Any]]:
    """Build what a configuration describes, for ``cfg.split`` alone, with what a checkpoint learned in it."""
    checkpoint = read_checkpoint(path, trust=cfg.trust)
    parts = assemble(cfg, evaluated=cfg.split)
    check_metadata(path, checkpoint, parts.metadata)
    load_learned(path, checkpoint, parts.classifier)
    return parts, checkpoint


def import_reference(cfg: DictConfig) -> None:
    """Write ``cfg.out``, a checkpoint of ours, from ``cfg.reference``, one of the published implementation.

    Raises:
        UserError: a path is missing, the file is no such checkpoint, or it does not fit the configuration.
    """
    for key, meaning in (("reference", "the .pth file to read"), ("out", "the .ckpt file to write")):
        if not cfg.get(key):
            raise UserError(f"{key}= is missing: give {meaning}")
    reference, out = Path(cfg.reference).expanduser(), Path(cfg.out).expanduser()
    if out.suffix != ".ckpt":
        raise UserError(f"out={out} must end in .ckpt, as the checkpoints of eventclip.train do")
    quieten()
    learned = load_reference_checkpoint(reference)
    parts = assemble(cfg, evaluated="test")
    parts.classifier.load_learned_state_dict(learned)
    checkpoint = {"state_dict": parts.classifier.learned_state_dict(), "eventclip": parts.metadata}
    with whole_file(out) as part, part.open("wb") as file:  # else torch would not tell what the system says
        torch.save(checkpoint, file)
    log.info("%s holds %d learned tensors: eventclip evaluate checkpoint=%s", out, len(learned), out)
