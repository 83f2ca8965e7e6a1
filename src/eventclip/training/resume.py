"""Which checkpoint a run goes on from, how often it has been started, and logs in which no step is twice."""

from __future__ import annotations

import csv
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

from eventclip.errors import UserError
from eventclip.files import fingerprint, read_json, write_json
from eventclip.models.checkpoint import CLASSIFIER, check_metadata, read_checkpoint
from eventclip.models.torch_files import load_tensors

log = logging.getLogger(__name__)

DECIDE_THE_COURSE = (
    "seed",
    "optim",
    "tuning",
    "adapter",
    "classifier",
    "frames",
    "views",
    "data.augmentation",
    "data.batch_size",
    "simulation",
    "loss",
    "crops",
    "heldout",
    "keep_share",
    "statistics",
    "features.copies",
    "batch_size",
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip_val",
    "trainer.gradient_clip_algorithm",
    "trainer.limit_train_batches",
)
"""Settings, or sections of them, that decide what every step of a training does, the learning rate's course included.

Which recordings are trained on is checked where they are dealt out. Where files lie, and on how many devices of which
kind and in which precision the work is done, may change from turn to turn.
"""

_NOT_SETTINGS = (
    "name",
    "seed",
    "resume",
    "trust",
    "paths",
    "logger",
    "callbacks",
    "images",
    "out",
    "num_workers",
    "data.root",
    "data.packed",
    "data.num_workers",
    "features.num_workers",
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
"""Settings, or sections of them, that only the machine needs, or that have a place of their own in the results."""

PREFERRED = ("last.ckpt", "next.ckpt", "previous.ckpt")
"""Which to take among checkpoints of one step; others follow."""


def begin(
    trainer: Trainer,
    resume: str | None,
    output: Path,
    metadata: dict[str, Any],
    *,
    trust: bool = False,
    without: Sequence[str] = (),
) -> tuple[Path | None, int]:
    """Choose where a run begins, and make its folder fit for that: no later checkpoints, no later steps in the logs.

    Args:
        trainer: with its loggers, not yet used.
        resume: "auto" for the run's own newest good checkpoint; a path; None for a fresh start. A job that Slurm has
            requeued takes its own newest whatever was asked for at first.
        output: the run's folder.
        metadata: what the checkpoint must fit.
        trust: let the checkpoint's own metadata name code outside eventclip that this run does not name.
        without: settings, or sections of them, that decide nothing in this run.

    Returns:
        The checkpoint, known to fit, or None; and how often the run has been started before.

    Raises:
        UserError: the path leads to no checkpoint, it does not fit, it learned with other settings, all of the run's
            own are damaged, or the folder cannot be written to.
    """
    folder = output / "checkpoints"
    if os.environ.get("SLURM_RESTART_COUNT", "0") != "0" and any(folder.glob("*.ckpt")):
        resume = "auto"
    kind = metadata.get("kind", CLASSIFIER)
    chosen = _newest(folder, kind) if resume == "auto" else None if resume is None else Path(resume).expanduser()
    step = 0
    if chosen is not None:
        checkpoint = read_checkpoint(chosen, trust=trust, own=metadata["config"], kind=kind)
        check_metadata(chosen, checkpoint, metadata)
        step = _check_state(chosen, checkpoint)
        _check_course(chosen, checkpoint["eventclip"]["config"], metadata["config"], without)
        log.info("going on from %s, step %d", chosen, step)
    restarts = 0
    if trainer.is_global_zero:
        try:
            output.mkdir(parents=True, exist_ok=True)
            restarts = _count_start(output / "starts.json", afresh=resume is None)
            _set_aside(folder, after=step if chosen is not None and chosen.parent == folder else -1)
        except OSError as error:
            raise UserError(
                f"the run's folder {output} cannot be written to ({error.strerror}): give another hydra.run.dir=, or "
                f"make room and allow writing there"
            ) from error
        go_on_at(trainer.loggers, step)
    return chosen, restarts


_SENTENCES = "classifier.prompts_file"


def _check_state(path: Path, checkpoint: dict[str, Any]) -> int:
    """The optimizer step of a checkpoint that holds the state of a training."""
    if "global_step" not in checkpoint:
        raise UserError(f"{path} was imported and holds no state of a training to go on from: only evaluate it")
    kinds = {"global_step": int, "epoch": int, "loops": dict, "optimizer_states": list, "lr_schedulers": list}
    for name, kind in kinds.items():
        value = checkpoint.get(name)
        if not isinstance(value, kind) or (isinstance(value, int) and value < 0):
            raise UserError(f"{path} is damaged: its {name} is none to go on from; give an earlier checkpoint")
    return int(checkpoint["global_step"])


def _check_course(path: Path, theirs: dict[str, Any], ours: dict[str, Any], without: Sequence[str]) -> None:
    """Refuse to go on with other settings than a training began with: it would be neither that run nor a new one."""
    there, here = dict(_leaves(theirs)), dict(_leaves(ours))
    for key in sorted(there.keys() | here.keys()):
        decides = _is_among(key, DECIDE_THE_COURSE) and not _is_among(key, without)
        # What only one of them has may be new to a later version; of the trainer's, which are Lightning's, null is so.
        comparable = key.startswith("trainer.") or (key in there and key in here)
        if decides and comparable and there.get(key) != here.get(key):
            if key == _SENTENCES:
                raise UserError(
                    f"{path} was trained with other sentences in {key} than this run has, which would change the "
                    f"course of the training: give that file as it was, or resume=null for a fresh start"
                )
            began, now = _typed(there.get(key)), _typed(here.get(key))
            plus = "" if key in here else "+"
            raise UserError(
                f"{path} was trained with {key}={began} and this run has {now}, which would change the course of the "
                f"training: give {plus}{key}={began} to go on, or resume=null for a fresh start"
            )


def _leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and plain values of a nested configuration."""
    for key, value in node.items():
        if f"{prefix}{key}" == _SENTENCES and isinstance(value, Mapping):
            yield _SENTENCES, fingerprint(value)  # thousands of sentences are one setting
        elif isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def _typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def by_step(folder: Path) -> list[Path]:
    """The checkpoints in ``folder``, of the latest step first; unreadable ones come before all others, to be told."""

    def key(path: Path) -> tuple[float, int]:
        rank = PREFERRED.index(path.name) if path.name in PREFERRED else len(PREFERRED)
        return -_step(path), rank

    return sorted(folder.glob("*.ckpt"), key=key)


def _newest(folder: Path, kind: str) -> Path | None:
    """The good checkpoint of the latest step."""
    paths = by_step(folder)
    for path in paths:
        if (damage := _damage(path, kind)) is None:
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
    before = 0
    if not afresh and file.is_file():
        try:
            content = read_json(file)
        except (OSError, ValueError):
            content = None
        starts = content.get("starts") if isinstance(content, dict) else None
        before = starts if type(starts) is int and 0 <= starts < 10**9 else 0
    write_json(file, {"starts": before + 1})
    return before


def _step(path: Path) -> float:
    """The optimizer step of a checkpoint, without reading its tensors."""
    try:
        return int(load_tensors(path, "a checkpoint", mapped=True)["global_step"])
    except (UserError, TypeError, KeyError, ValueError, OverflowError):  # whoever reads the file tells
        return float("inf")


def _damage(path: Path, kind: str) -> str | None:
    """What is wrong with a checkpoint; None if nothing. Whether it is to be trusted is asked once it is chosen."""
    try:
        read_checkpoint(path, trust=True, kind=kind)
    except UserError as error:
        return str(error)
    return None


def flat_settings(config: Mapping[str, Any], *, without: Sequence[str] = ()) -> dict[str, Any]:
    """Flatten a resolved configuration to dotted keys and keep what can change a result.

    Args:
        config: plain nested containers, interpolations resolved.
        without: settings, or sections of them, that decide nothing in this run.

    Returns:
        Dotted key -> plain value, in the configuration's order, for ``results.json``. Left out are the name and the
        seed (they have their own place), where files lie, what is logged, and how many processes do the work. Of a
        file's absolute path only its name stays, so that two machines' runs compare.
    """
    left_out = (*_NOT_SETTINGS, *without)
    leaves = ((key, value) for key, value in _leaves(config) if not key.endswith("._partial_"))
    return {key: _without_folder(value) for key, value in leaves if not _is_among(key, left_out)}


def _is_among(key: str, names: Sequence[str]) -> bool:
    """Whether a dotted key is one of these settings, or in one of these sections."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _without_folder(value: Any) -> Any:
    return value.rpartition("/")[2] if isinstance(value, str) and value.startswith("/") else value


def go_on_at(loggers: Sequence[Logger], step: int) -> None:
    """Take ``step`` and later ones out of the logs; to be called in the main process before anything is logged.

    TensorBoard's files stay as they are and get a mark after which readers forget those steps; the CSV is rewritten.

    Args:
        loggers: of the Trainer; kinds other than TensorBoard's and CSV are left alone.
        step: optimizer steps done at the checkpoint that the run goes on from; 0 for a fresh start.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            start = Event(step=step, session_log=SessionLog(status=SessionLog.START))
            logger.experiment.file_writer.add_event(start)
        elif isinstance(logger, CSVLogger):
            _cut_csv(logger, step)


def _cut_csv(logger: CSVLogger, step: int) -> None:
    """Log the older rows again: the logger deletes the file that it finds."""
    metrics = Path(logger.log_dir) / "metrics.csv"
    kept = Path(logger.root_dir) / "kept.csv"  # left over where a run was killed between these lines
    if metrics.is_file() and not kept.exists():
        metrics.replace(kept)
    if not kept.is_file():
        return
    with kept.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["step"]) < step]
    for row in rows:
        at = int(row.pop("step"))
        logger.log_metrics({name: _number(text) for name, text in row.items() if text}, step=at)
    logger.save()
    kept.unlink()


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)
