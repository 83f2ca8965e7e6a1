"""How this project compiles its kernels, decided in one place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def _writable_cache() -> None:
    """Give numba a cache folder where neither the package's folder nor the user's is writable.

    Containers with a read-only image and no home are common on clusters; there numba would refuse to compile
    a cached function at all.
    """
    package, home = Path(__file__).parent, Path.home()
    if "NUMBA_CACHE_DIR" in os.environ or os.access(package, os.W_OK) or os.access(home, os.W_OK):
        return
    os.environ["NUMBA_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"eventclip-numba-{os.getuid()}")


_writable_cache()

from numba import njit  # noqa: E402  (numba reads its cache folder when it is imported)


def kernel(function: F) -> F:
    """Compile to machine code: cached on disk, without the GIL, with IEEE arithmetic.

    Args:
        function: numba-compatible function. Errors inside it must be impossible: check input before the call.

    Returns:
        The compiled function, called like the original. ``fastmath`` stays off: a reordered sum or a fused
        multiply-add shifts single gray levels, and frames are promised to the last bit.
    """
    compiled: F = njit(cache=True, nogil=True, fastmath=False)(function)
    return compiled
