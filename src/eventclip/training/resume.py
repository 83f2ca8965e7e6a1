"""Which checkpoint a run goes on from, and how often it has been started."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from eventclip.errors import UserError
from eventclip.files import write_json
from eventclip.training.cards import check_card, read_checkpoint
from eventclip.training.logs import go_on_at

log = logging.getLogger(__name__)

PREFERRED = ("last.ckpt", "next.ckpt", "previous.ckpt")
"""Which to take among checkpoints of one step; others follow."""


def begin(
    trainer: Trainer, resume: str | None, output: Path, card: dict[str, Any], *, trust: bool = False
) -> tuple[Path | None, int]:
    """Choose where a run begins, and make its folder fit for that: no later checkpoints, no later steps in the logs.

    Args:
        trainer: with its loggers, not yet used.
        resume: "auto" for the run's own newest good checkpoint; a path; None for a fresh start. A job that Slurm has
            requeued takes its own newest whatever was asked for at first.
        output: the run's folder.
        card: what the checkpoint must fit.
        trust: let the checkpoint's own card name code outside eventclip that this run does not name.

    Returns:
        The checkpoint, known to fit, or None; and how often the run has been started before.

    Raises:
        UserError: the path leads to no checkpoint, it does not fit, or all of the run's own are damaged.
    """
    folder = output / "checkpoints"
    if os.environ.get("SLURM_RESTART_COUNT", "0") != "0" and any(folder.glob("*.ckpt")):
        resume = "auto"
    chosen = _newest(folder) if resume == "auto" else None if resume is None else Path(resume).expanduser()
    step = 0
    if chosen is not None:
        checkpoint = read_checkpoint(chosen, trust=trust, own=card["config"])
        check_card(chosen, checkpoint, card)
        if "global_step" not in checkpoint:
            raise UserError(f"{chosen} was imported and holds no state of a training to go on from: only evaluate it")
        step = int(checkpoint["global_step"])
        log.info("going on from %s, step %d", chosen, step)
    restarts = 0
    if trainer.is_global_zero:
        output.mkdir(parents=True, exist_ok=True)
        restarts = _count_start(output / "starts.json", afresh=resume is None)
        _set_aside(folder, after=step if chosen is not None and chosen.parent == folder else -1)
        go_on_at(trainer.loggers, step)
    return chosen, restarts


def by_step(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, of the latest step first; unreadable ones come before all others, to be told."""

    def key(path: Path) -> tuple[float, int]:
        rank = PREFERRED.index(path.name) if path.name in PREFERRED else len(PREFERRED)
        return -_step(path), rank

    return sorted(folder.glob("*.ckpt"), key=key)


def _newest(folder: Path) -> Path | None:
    """The good checkpoint of the latest step."""
    paths = by_step(folder)
    for path in paths:
        if (damage := _damage(path)) is None:
            return path
        log.warning("%s; looking for the one before", damage)
    if paths:
        raise UserError(
            f"all {len(paths)} checkpoints in {folder} are damaged: give resume=PATH of a good one, or resume=null to "
            f"start afresh"
        )
    return None


def _set_aside(folder: Path, *, after: float) -> None:
    """Rename checkpoints of steps later than ``after`` and unreadable ones, so that no later start takes them."""
    for path in by_step(folder):
        if _step(path) > after:
            path.replace(path.with_suffix(".ckpt.old"))


def _count_start(file: Path, *, afresh: bool) -> int:
    """Count the starts of a run in ``file``.

    Args:
        file: JSON, made and rewritten here; absent or unreadable means no start so far.
        afresh: begin to count anew.

    Returns:
        How often the run had been started before.
    """
    try:
        before = 0 if afresh else int(json.loads(file.read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, KeyError):
        before = 0
    write_json(file, {"starts": before + 1})
    return before


def _step(path: Path) -> float:
    """The optimizer step of a checkpoint, without reading its tensors."""
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])
    except Exception:  # noqa: BLE001  (torch raises many kinds; whoever reads the file tells)
        return float("inf")


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint; None if nothing. Whether it is to be trusted is asked once it is chosen."""
    try:
        read_checkpoint(path, trust=True)
    except UserError as error:
        return str(error)
    return None
