"""What a cluster tells a process: the name of its job, and signals that ask it to end.

The signals are noted at once and acted on where training can be interrupted (`training.requeue`). Light on imports:
they may come while the run still imports torch, and Python's answer to an unknown signal is to die.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from types import FrameType

WATCHED = (signal.SIGUSR1, signal.SIGTERM)
"""Slurm's warning (``--signal=USR1@120``), and what precedes a kill."""

_received: set[signal.Signals] = set()


def watch() -> None:
    """Note the watched signals from now on, in place of dying of them."""
    for number in WATCHED:
        signal.signal(number, _note)
        signal.siginterrupt(number, False)  # system calls of other libraries go on by themselves


def watching() -> bool:
    """Whether this process notes the watched signals."""
    return all(signal.getsignal(number) is _note for number in WATCHED)


def received() -> frozenset[signal.Signals]:
    """The watched signals that came since the process began."""
    return frozenset(_received)


def slurm_job(environment: Mapping[str, str] = os.environ) -> str | None:
    """What ``scontrol`` calls this process's job: its number, or ARRAY_TASK for one element of an array.

    None outside Slurm, and in an interactive session, whose job is not the run's own.
    """
    if environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    array = environment.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}" if array else environment.get("SLURM_JOB_ID")


def _note(number: int, _: FrameType | None) -> None:
    received_before = number in _received
    _received.add(signal.Signals(number))
    if received_before and slurm_job() is None:  # somebody who insists; Slurm repeats itself and has SIGKILL
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
