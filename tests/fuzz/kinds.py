"""Every kind of file that the package reads: sound samples of it, how they are damaged, and what reads them."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

Read = Callable[[Path], object]


@dataclass(frozen=True)
class Prepared:
    """A kind made ready in a folder.

    Attributes:
        path: where a mutant is put to be read.
        samples: sound contents.
        mutate: makes a mutant of them.
        read: what a command does with it; raises UserError for what it refuses.
        named: what a refusal must name; the path where it is empty.
        always_read: whether nothing may be refused, since the file is only a cache.
        may_ask_for_memory: whether it says how large a model is, so that running out of memory is no mistake.
        of: what to say of a mutant before what went wrong with it.
    """

    path: Path
    samples: Sequence[bytes]
    mutate: Callable[[Random, Sequence[bytes]], bytes]
    read: Read
    named: str = ""
    always_read: bool = False
    may_ask_for_memory: bool = False
    of: Callable[[bytes], str] = lambda _: ""


def prepare(name: str, folder: Path) -> Prepared:
    """Make the kind of that name ready in an empty folder; what needs torch is imported only for what needs it."""
    folder.mkdir(parents=True, exist_ok=True)
    for module in ("recordings", "others", "weights", "settings"):
        known = importlib.import_module(module).PREPARE
        if name in known:
            return known[name](folder)
    raise KeyError(name)
