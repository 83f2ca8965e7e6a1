"""Keep the memory that tensors give back for the next ones, instead of asking the kernel for it in every batch."""

from __future__ import annotations

import ctypes
import os
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4  # of mallopt(3)
_NEVER = -1
_HANDED_BACK = 2**30
"""Blocks of this size and above [bytes] still go back at once: no activation of a batch is as large."""

_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks below 1 GiB, for this process and those that it forks.

    glibc takes every block above 32 MiB from the kernel and hands it back when it is freed. The activations of a batch
    are such blocks, so each forward pass has the kernel clear gigabytes of pages again, which takes a small tower on a
    CPU longer than its arithmetic. In return a process stays as large as it was at its largest. Nothing changes where
    the user has set one of glibc's variables of the environment for this, such as ``MALLOC_TRIM_THRESHOLD_=131072``,
    or where the C library is another. Once for each process, by :func:`.factory.load_clip`.

    Returns:
        Whether this was done.
    """
    if any(name in os.environ for name in _USERS_OWN) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        library = ctypes.CDLL(None)
        if not hasattr(library, "gnu_get_libc_version"):
            return False
        # Before glibc 2.35 this threshold cannot exceed 32 MiB: there, no block goes back.
        kept = library.mallopt(_MMAP_THRESHOLD, _HANDED_BACK) or library.mallopt(_MMAP_MAX, 0)
        return bool(kept and library.mallopt(_TRIM_THRESHOLD, _NEVER))
    except (OSError, AttributeError, TypeError):  # no such library: CDLL(None) is a TypeError on Windows
        return False
