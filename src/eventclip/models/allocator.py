"""Keep the memory that tensors give back for the next ones, instead of asking the kernel for it in every batch."""

from __future__ import annotations

import ctypes
import os
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_NEVER = -1
_HANDED_BACK = 2**26
"""Blocks of this size and above [bytes] still go back at once: kept, hundreds of MB each and hardly two of one size,
they would leave more room between them than they fill."""

_USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_TOP_PAD_")


@cache
def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks below 64 MiB, for this process and those that it forks.

    glibc takes every block above 32 MiB from the kernel, and hands it back when it is freed; it also hands back what
    is free at the end of its heap. The activations of a batch are such blocks, so each forward pass has the kernel
    clear gigabytes of pages again, which can take a small tower on a CPU longer than its arithmetic. In return a
    process stays as large as it was at its largest. Nothing changes where the user has set one of glibc's variables of
    the environment for this, such as ``MALLOC_TRIM_THRESHOLD_=131072``, or where the C library is another. Once for
    each process, by :func:`.factory.load_clip`.

    Returns:
        Whether this was done.
    """
    if any(name in os.environ for name in _USERS_OWN) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        library = ctypes.CDLL(None)
        if not hasattr(library, "gnu_get_libc_version"):
            return False
        # Before glibc 2.35 this threshold cannot exceed 32 MiB, which is better than that it moves.
        kept = library.mallopt(_MMAP_THRESHOLD, _HANDED_BACK) or library.mallopt(_MMAP_THRESHOLD, _HANDED_BACK // 2)
        return bool(kept and library.mallopt(_TRIM_THRESHOLD, _NEVER))
    except (OSError, AttributeError, TypeError):  # no such library: CDLL(None) is a TypeError on Windows
        return False
