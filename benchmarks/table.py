"""One row for each thing that is measured, and the table they make."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

HEAD = ("what", "ours", "comparator", "its", "ratio", "how measured")


class Row(NamedTuple):
    """One thing measured against one stated comparator.

    Attributes:
        what: was measured.
        ours: value.
        comparator: what else does it, or bounds it.
        theirs: its value.
        unit: of both values.
        how: how often, and what of it is extrapolated.
        more_is_better: a throughput, in place of a time or a size.
    """

    what: str
    ours: float
    comparator: str
    theirs: float
    unit: str
    how: str
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Above 1 where ours is better."""
        return self.ours / self.theirs if self.more_is_better else self.theirs / self.ours

    def cells(self) -> tuple[str, ...]:
        """The row's texts, in the order of :data:`HEAD`."""
        values = [f"{short(value)} {self.unit}" for value in (self.ours, self.theirs)]
        return self.what, values[0], self.comparator, values[1], f"{short(self.ratio)}×", self.how


def short(value: float) -> str:
    """Three digits that count, more where there are more before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}"


def line(row: Row) -> str:
    """The row for a terminal, on two lines."""
    what, ours, comparator, theirs, ratio, how = row.cells()
    return f"{what:<66}{ours:>16}{ratio:>9}\n    {comparator:<62}{theirs:>16}   {how}\n"


def document(rows: Mapping[str, Iterable[Row]], notes: Mapping[str, str], seconds: Mapping[str, float]) -> str:
    """The whole of RESULTS.md.

    Args:
        rows: of each module, by its name.
        notes: what each module says of its own measurements.
        seconds: that each module took.
    """
    body = ["|".join(("", *HEAD, "")), "|---|---:|---|---:|---:|---|"]
    body += ["|".join(("", *row.cells(), "")) for own in rows.values() for row in own]
    told = "\n".join(f"- **{name}** ({seconds[name]:.0f} s). {note}" for name, note in notes.items())
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return f"""# What `make bench` measured

{machine()}; {versions()}; {day}.

Each row is one of ours against the comparator named in it, both measured in the same run. A ratio above 1 says that
ours is better: quicker, smaller, or more of it in a second.

{chr(10).join(body)}

{told}
"""


def machine() -> str:
    """Processor, cores and memory of this machine, nothing that names it."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    models = [entry.partition(":")[2].strip() for entry in told.splitlines() if entry.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{models[0] if models else platform.machine()}, {cores} cores, {memory:.0f} GiB of memory, no GPU used"


def versions() -> str:
    """Versions of what decides speed."""
    names = ("torch", "numpy", "numba")
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)])
