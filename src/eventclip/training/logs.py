"""Logs of a run that goes on: no step twice, whatever the killed attempt had logged after its last checkpoint."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog


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


def flush(loggers: Sequence[Logger]) -> None:
    """Bring to the disk what has been logged."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.flush()
        else:
            logger.save()


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
