"""Where random numbers come from: one generator per decision, the same wherever and whenever it is made."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from operator import index as whole

import numpy as np


def generator(seed: int, purpose: str, *, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """Make the generator of one random decision.

    Because it depends on nothing but its arguments, a sample is the same whichever worker or rank makes it, in
    whatever order, and after a run was interrupted.

    Args:
        seed: the run's seed, any whole number.
        purpose: what is decided, such as "augment"; decisions that must not move together need different ones. A
            folder's name in it need not be UTF-8.
        epoch: training epoch.
        index: place of the sample in its data set.

    Returns:
        A new generator; any difference in any argument gives an unrelated stream.
    """
    # Not hash(), which differs from process to process. The purpose comes last: it may hold the separator.
    key = f"{whole(seed)}/{whole(epoch)}/{whole(index)}/{purpose}".encode("utf-8", "surrogateescape")
    entropy = int.from_bytes(blake2b(key, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.PCG64(entropy))


def random_keys(seed: int, purpose: str, *, epoch: int, indices: Iterable[int]) -> list[int]:
    """Draw a key for each recording, of 62 bits: a generator's first number (arguments as for :func:`generator`)."""
    return [int(generator(seed, purpose, epoch=epoch, index=index).integers(2**62)) for index in indices]
