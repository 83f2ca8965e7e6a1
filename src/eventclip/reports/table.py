"""Runs -> rows: what differs between them names a row, what differs only in the seed is averaged in it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from eventclip.config import CONFIG_DIR
from eventclip.reports.collect import ACCURACY, CLASSES, SHOTS, WEIGHTS, Run, some_of
from eventclip.tables import aligned

METRICS = {
    "test/top1_probabilities": "top-1",
    "test/top1_logits": "top-1 (logits)",
    "test/top5_probabilities": "top-5",
    "test/top5_logits": "top-5 (logits)",
    "test/calibration_error": "calibration error",
}
"""Metric in ``results.json`` -> heading. Plain top-1 and top-5 are of the probabilities and so is the error."""
_ALWAYS = (
    "clip.arch",
    "data.variant",
    "tuning.parts",
    CLASSES,
    SHOTS,
)  # shown wherever they differ, as is every _target_
_TARGET = "._target_"

_NORMAL = 1.959963985
_STUDENT = (
    *(12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139),
    *(2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963),
    *(2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272),
)
"""Two-sided 95 % points of Student's distribution with 1 to 30 degrees of freedom."""


class Estimate(NamedTuple):
    """A mean and the half width of its 95 % interval, which a single value does not have (None)."""

    mean: float
    half_width: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent values with Student's 95 % interval: mean ± t s / √n, s with n − 1 degrees of freedom.

    Raises:
        ValueError: no values.
    """
    count = len(values)
    if not count:
        raise ValueError("a mean needs at least one value")
    mean = math.fsum(values) / count
    if count == 1:
        return Estimate(mean, None)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    return Estimate(mean, t_quantile(count - 1) * spread / math.sqrt(count))


def t_quantile(degrees: int) -> float:
    """The t that a Student variable of so many degrees of freedom exceeds in absolute value with probability 0.05.

    Beyond the table the normal distribution's with the first corrections of Abramowitz and Stegun, 26.7.5.
    """
    if degrees <= len(_STUDENT):
        return _STUDENT[degrees - 1]
    z = _NORMAL
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


@dataclass(frozen=True)
class Missing:
    """Stands for a setting that a run does not have."""


MISSING = Missing()


@dataclass(frozen=True)
class Row:
    """Runs that differ in their seed alone.

    Attributes:
        settings: column -> plain value or MISSING.
        shots: recordings per class; None: all of them.
        seeds: the different ones.
        estimates: metric -> mean and interval over the seeds, of what all its runs have.
        by_seed: seed -> top-1.
        difference: of top-1 to the row that the table compares with, paired by seed; None: no seed in common.
    """

    settings: dict[str, Any]
    shots: int | None
    seeds: tuple[int, ...]
    estimates: dict[str, Estimate]
    by_seed: Mapping[int, float] = field(default_factory=dict)
    difference: Estimate | None = None


@dataclass(frozen=True)
class Table:
    """What can be printed or drawn.

    Attributes:
        columns: the settings that tell the rows apart; ``<section>._target_`` and dotted keys.
        metrics: keys of METRICS that some row has.
        rows: sorted by their settings.
        notes: sentences that belong below the table.
        against: what the rows are compared with, in words; empty: nothing.
    """

    columns: list[str]
    metrics: list[str]
    rows: list[Row]
    notes: list[str]
    against: str = ""


def make_table(runs: Sequence[Run], *, mixed: bool = False) -> Table:
    """Group runs by what differs between them and average each group over its seeds.

    Where rows differ in learned (base) and new classes alone, a third one has the harmonic mean of both, by seed.
    A setting that follows from those already shown (the width of an adapter from the adapter) has no column. How the
    free numbers of fitted adapters were set always has one, and a note says where that is not as it was asked for.
    Runs of one group with the same seed are no independent runs: their mean counts as one value, and a note says so.

    Args:
        runs: at least one.
        mixed: they may have different test splits or classes; different data sets are not averaged even then.
    """
    described = [_described(run, mixed=mixed) for run in runs]
    for key in {key for settings in described for key in settings if key.endswith(".seed")}:
        if all(settings.get(key, run.seed) == run.seed for run, settings in zip(runs, described, strict=True)):
            for settings in described:  # it follows the seed, as the few-shot draw does
                settings.pop(key, None)
    by_steps = [settings for run, settings in zip(runs, described, strict=True) if run.fitted is None]
    columns, notes = _columns(described, by_steps)
    notes += _otherwise(runs)
    groups: dict[tuple[str, ...], list[int]] = {}
    for index, settings in enumerate(described):
        groups.setdefault(_values(settings, columns), []).append(index)
    rows = []
    for members in groups.values():
        settings = {column: described[members[0]].get(column, MISSING) for column in columns}
        row, remarks = _row(settings, [runs[index] for index in members])
        rows.append(row)
        notes += remarks
    rows.sort(key=lambda row: [_order(row.settings[column]) for column in columns])
    rows = [one for row in rows for one in (row, *_harmonic(row, rows))]
    metrics = [metric for metric in METRICS if any(metric in row.estimates for row in rows)]
    return Table(columns, metrics, rows, notes)


def heading(column: str) -> str:
    """A column's name: the dotted key one types, and for a ``_target_`` its section."""
    return column.removesuffix(_TARGET)


def shown(column: str, value: Any) -> str:
    """A setting as people write it: an adapter as it is typed, another ``_target_`` as its class."""
    if isinstance(value, Missing):
        return "–"
    if value is None:
        return "all" if column == SHOTS else "null"
    if isinstance(value, list):
        return f"[{', '.join(shown(column, item) for item in value)}]"
    if column.endswith(_TARGET):
        section = heading(column).rpartition(".")[2]
        return _adapters().get(str(value)) or _short(str(value).rpartition(".")[2], section)
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _adapters() -> dict[str, str]:
    """Class -> what is typed for it. Elsewhere a choice is more than its class."""
    files = sorted(Path(CONFIG_DIR, "adapter").glob("*.yaml"))
    targets = {path.stem: re.search(r"^_target_: (\S+)$", path.read_text("utf-8"), re.MULTILINE) for path in files}
    return {target[1]: name for name, target in targets.items() if target}


def _short(name: str, section: str) -> str:
    """``JointAdapter`` of the section adapter -> joint; NCarsDataModule -> NCars."""
    own = name.removesuffix(section.capitalize())
    return own.lower() if own not in ("", name) else name.removesuffix("DataModule")


def _described(run: Run, *, mixed: bool) -> dict[str, Any]:
    """All that may tell a run from another but its seed."""
    settings = {CLASSES: "all", **run.settings, "clip.weights": run.clip_sha256[:12], "name": run.name}
    if run.fitted is not None:
        settings[WEIGHTS] = run.fitted
    if mixed:
        settings |= {"data.root": run.root, "classes": len(run.class_names)}
    return settings


def _columns(described: list[dict[str, Any]], by_steps: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The keys that tell runs apart, and a note of those that differ but follow from them.

    Args:
        described: settings of all runs.
        by_steps: those of them whose adapter was not fitted: what they alone have, such as a learning rate, differs
            where it does so among them.
    """
    keys = list(dict.fromkeys(key for settings in described for key in settings))
    for settings in described:  # a section set to null differs from a built one in what is built
        for key in [key for key in settings if settings[key] is None and f"{key}{_TARGET}" in keys]:
            settings[f"{key}{_TARGET}"] = settings.pop(key)
    having = {key: [settings for settings in described if key in settings] for key in keys}
    among = {key: by_steps if having[key] == by_steps else described for key in keys}
    differing = [key for key in keys if len({_values(settings, [key]) for settings in among[key]}) > 1]
    targets = [key for key in differing if key.endswith(_TARGET)]
    columns = targets + [key for key in _ALWAYS if key in differing] + [WEIGHTS] * (WEIGHTS in keys)
    following = []
    for key in (key for key in differing if key not in columns):
        apart = {_values(settings, columns) for settings in described}
        if len({_values(settings, [*columns, key]) for settings in described}) > len(apart):
            columns.append(key)
        elif not any(key.startswith(f"{heading(target)}.") for target in targets) and key != "clip.weights":
            found = sorted({shown(key, settings.get(key, MISSING)) for settings in described})
            following.append(f"{key} ({', '.join(found)})")
    if SHOTS in columns:
        columns.append(columns.pop(columns.index(SHOTS)))
    return columns, [f"Differs as well, along with the columns: {', '.join(following)}."] if following else []


def _otherwise(runs: Sequence[Run]) -> list[str]:
    """A note of each way in which free numbers were set that is not the one asked for."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        asked = run.settings.get(WEIGHTS, run.fitted)
        if run.fitted is not None and asked != run.fitted:
            groups.setdefault((str(asked), run.fitted), []).append(run)
    return [
        f"Set as {WEIGHTS}={used} where {asked} was asked for: {some_of(members)}."
        for (asked, used), members in groups.items()
    ]


def _values(settings: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    """Settings as texts; one that is null is as if it were not there, as in runs of a version that did not know it."""
    found = [settings.get(key) for key in columns]
    return tuple("" if value is None else json.dumps(value, sort_keys=True) for value in found)


def _row(settings: dict[str, Any], runs: list[Run]) -> tuple[Row, list[str]]:
    by_seed: dict[int, list[Run]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run)
    remarks = []
    for seed, same in sorted(by_seed.items()):
        if len(same) > 1:
            equal = all(run.metrics == same[0].metrics for run in same)
            numbers = "the same numbers" if equal else "DIFFERENT numbers"
            where = ", ".join(str(run.folder) for run in same)
            remarks.append(f"Seed {seed} was run {len(same)} times with {numbers}, counted once by its mean: {where}.")
    means = {
        metric: {seed: estimate([run.metrics[metric] for run in by_seed[seed]]).mean for seed in sorted(by_seed)}
        for metric in METRICS
        if all(metric in run.metrics for run in runs)
    }
    estimates = {metric: estimate(list(of_seed.values())) for metric, of_seed in means.items()}
    return Row(settings, runs[0].settings.get(SHOTS), tuple(sorted(by_seed)), estimates, means[ACCURACY]), remarks


def _harmonic(new: Row, rows: Sequence[Row]) -> list[Row]:
    """Below a row of new classes: the harmonic mean of its accuracy and that of base classes, seed by seed."""
    wanted = {**new.settings, CLASSES: "base"}
    base = next((row for row in rows if row.settings == wanted), None) if new.settings.get(CLASSES) == "new" else None
    pairs = (
        {}
        if base is None
        else {seed: (base.by_seed[seed], new.by_seed[seed]) for seed in new.seeds if seed in base.by_seed}
    )
    means = {seed: 2 * b * n / (b + n) if b + n else 0.0 for seed, (b, n) in pairs.items()}
    if not means:
        return []
    settings = {**new.settings, CLASSES: "harmonic mean"}
    return [Row(settings, new.shots, tuple(means), {ACCURACY: estimate(list(means.values()))}, means)]


def _order(value: Any) -> tuple[int, float, str]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (2 if isinstance(value, Missing) or value is None else 1, 0.0, str(value))


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "±": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def to_markdown(table: Table, *, title: str = "") -> str:
    """Write the table aligned, so that it reads in a terminal too, with its notes below: accuracies in percent."""
    text = [*([title, ""] if title else []), *_markdown([_head(table), *_cells(table)], left=len(table.columns))]
    notes = [line for note in table.notes for line in ("", note)]
    return "\n".join([*text, *notes]) + "\n"


def shots_to_markdown(series: Mapping[str, Mapping[int | None, Estimate]], *, title: str, sign: str = "") -> str:
    """Write a line for each series and a column for each number of shots, in percent.

    Args:
        series: name -> shots -> estimate.
        title: above it.
        sign: "+" for differences.
    """
    shots = sorted({number for points in series.values() for number in points}, key=_order)
    lines = [[title, *("all" if number is None else f"{number} shot{'s' * (number > 1)}" for number in shots)]]
    lines += [[name, *(percent(points.get(number), sign=sign) for number in shots)] for name, points in series.items()]
    return "\n".join(_markdown(lines, left=1)) + "\n"


def _markdown(lines: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """A head and its lines, aligned, the first so many columns to the left."""
    safe = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    padded = aligned(safe, left=left, narrowest=3)
    rule = [f"{'-' * (len(cell) - 1)}:" if i >= left else "-" * len(cell) for i, cell in enumerate(padded[0])]
    return [f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:])]


def to_latex(table: Table) -> str:
    """Write the head and the rows of a tabular, each ended by two backslashes: accuracies in percent."""
    lines = [[escape_latex(cell) for cell in line] for line in (_head(table), *_cells(table))]
    written = [f"{' & '.join(line)} \\\\" for line in lines]
    return "\n".join([written[0], "\\midrule", *written[1:]]) + "\n"


def escape_latex(text: str) -> str:
    r"""Escape what LaTeX takes for a command; "±" becomes ``$\pm$``."""
    return re.sub(r"[\\~^–±&%$#_{}]", lambda sign: _LATEX[sign[0]], text)


def to_csv(table: Table) -> str:
    """Write all digits: a column of each setting, the seeds, and of each metric its mean and half interval in [0, 1].

    An empty field is a half interval of one seed, or a metric that the row does not have.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    metrics = [name for metric in table.metrics for name in (metric, f"{metric} half_width")]
    compared = [f"{ACCURACY} against {table.against}", "its half_width"] if table.against else []
    writer.writerow([*map(heading, table.columns), "n", "seeds", *metrics, *compared])
    for row in table.rows:
        values = [value for metric in table.metrics for value in row.estimates.get(metric, (None, None))]
        values += (row.difference or (None, None)) if table.against else ()
        seeds = " ".join(str(seed) for seed in row.seeds)
        writer.writerow([*_settings(table, row), len(row.seeds), seeds, *values])
    return stream.getvalue()


def _cells(table: Table) -> list[list[str]]:
    return [
        [
            *_settings(table, row),
            str(len(row.seeds)),
            *(percent(row.estimates.get(metric)) for metric in table.metrics),
            *([percent(row.difference, sign="+")] if table.against else []),
        ]
        for row in table.rows
    ]


def _head(table: Table) -> list[str]:
    compared = [f"against {table.against}"] if table.against else []
    return [*map(heading, table.columns), "seeds", *(METRICS[metric] for metric in table.metrics), *compared]


def _settings(table: Table, row: Row) -> list[str]:
    return [shown(column, row.settings[column]) for column in table.columns]


def percent(value: Estimate | None, *, sign: str = "") -> str:
    """An estimate in percent; ``sign="+"`` for differences."""
    if value is None:
        return "–"
    if value.half_width is None:
        return f"{100 * value.mean:{sign}.2f}"
    return f"{100 * value.mean:{sign}.2f} ± {100 * value.half_width:.2f}"
