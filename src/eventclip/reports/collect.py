"""Find the runs below some folders and read their ``results.json``; whether they may stand in one table."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from eventclip.errors import UserError, printable
from eventclip.files import read_json

ACCURACY = "test/top1_probabilities"
"""The metric without which a run is in no table."""

SHOTS = "fewshot.shots"
"""The setting that the curve is drawn over."""

CLASSES = "fewshot.classes"
"""The setting that says which half of the classes is learned and tested; runs without it had all."""

WEIGHTS = "adapter.weights"
"""The setting that says how a fitted adapter's free numbers are set."""

_DEEPEST = 8  # of a setting's lists

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """What a finished run says of itself.

    Attributes:
        folder: as found below the folder that was asked for.
        name: of its experiment.
        seed: its random seed.
        settings: dotted key -> plain value, as a run writes them into its ``results.json``.
        metrics: "test/..." -> number, accuracies in [0, 1].
        test_checksum: sha256 of the recordings it was tested on.
        class_names: in order of their labels.
        selection: the split its weights were chosen on; None: none.
        root: folder of its data set.
        clip_sha256: of CLIP's weights.
        fitted: how its adapter's free numbers were really set, where that was fitted in one go; None: it was not.
    """

    folder: Path
    name: str
    seed: int
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    test_checksum: str
    class_names: tuple[str, ...]
    selection: str | None
    root: str
    clip_sha256: str
    fitted: str | None = None


@dataclass(frozen=True)
class Collection:
    """All runs below some folders.

    Attributes:
        runs: the finished ones, sorted by folder.
        unfinished: folders of runs that have no ``results.json``.
        damaged: one sentence for each ``results.json`` that cannot be read.
    """

    runs: list[Run]
    unfinished: list[Path]
    damaged: list[str]


def collect(folders: Sequence[Path]) -> Collection:
    """Search folders, and all below them, for runs; one that is found twice counts once.

    Raises:
        UserError: a folder does not exist, or there is no run at all.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}: give folders of runs, such as outputs or multirun")
        places = [path.parent for name in ("results.json", ".hydra") for path in folder.rglob(name)]
        for place in places:
            found.setdefault(Path(os.path.realpath(place)), place)
    places = sorted(found.values())
    if not places:
        asked = ", ".join(str(folder) for folder in folders)
        raise UserError(
            f"there is no run below {asked}: expected folders with a results.json, as eventclip.train leaves"
        )
    collection = Collection([], [], [])
    for place in places:
        path = place / "results.json"
        if not path.exists() and not path.is_symlink():
            collection.unfinished.append(place)
            continue
        try:
            collection.runs.append(read_run(path))
        except UserError as error:
            collection.damaged.append(str(error))
    return collection


def read_run(path: Path) -> Run:
    """Read a ``results.json``.

    Raises:
        UserError: it is no JSON, or lacks what a table needs.
    """
    try:
        content = read_json(path)
        metrics = {name: _number(value) for name, value in _kind(content["metrics"], dict).items()}
        metrics[ACCURACY]  # what every table shows
        run = Run(
            folder=path.parent,
            name=printable(_kind(content["name"], str)),
            seed=_kind(content["seed"], int),
            settings=_kind(content["settings"], dict),
            metrics=metrics,
            test_checksum=_kind(content["data"]["checksums"]["test"], str),
            class_names=tuple(printable(_kind(name, str)) for name in _kind(content["class_names"], list)),
            selection=_name_or_none(content["selection"]["split"]),
            root=printable(_kind(content["data"]["root"], str)),
            clip_sha256=_kind(content["clip"]["weights_sha256"], str),
            fitted=printable(_kind(content["adapter"]["weights"], str)) if "adapter" in content else None,
        )
        if run.settings.get(SHOTS) is not None and _kind(run.settings[SHOTS], int) < 1:
            raise ValueError(f"{SHOTS} is less than 1")
        for value in run.settings.values():
            _check_depth(value)
    except OSError as error:
        raise UserError(f"{path} is damaged ({error.strerror}): test that run again") from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} lacks what a table needs ({type(error).__name__}: {error!s:.200}): test that run again with this "
            f"version"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}): test that run again") from error
    if not all(math.isfinite(value) for value in metrics.values()):
        raise UserError(f"{path} has a metric that is no finite number: look at that run's log")
    if not all(0 <= value <= 1 for name, value in metrics.items() if name.startswith("test/top")):
        raise UserError(f"{path} has an accuracy outside 0 to 1: test that run again")
    return run


def _kind(value: Any, kind: type[T]) -> T:
    """The value, if it is of a kind; true is no number.

    Raises:
        TypeError: it is of another.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r:.60} where {kind.__name__} was expected")
    return value


def _name_or_none(value: Any) -> str | None:
    """A name, or None.

    Raises:
        TypeError: it is neither.
    """
    return None if value is None else _kind(value, str)


def _number(value: Any) -> float:
    """A metric as a number.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r:.60} is no number")
    return float(value)


def _check_depth(value: Any, left: int = _DEEPEST) -> None:
    """Refuse lists in lists in lists, at which a table would give up.

    Raises:
        ValueError: it is nested too deeply.
    """
    if not left:
        raise ValueError("a setting is nested too deeply")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(item, left - 1)


def mixtures(runs: Sequence[Run]) -> list[str]:
    """Say in a sentence each why runs do not belong in one table; nothing where they do.

    Halves of the classes have test splits and class lists of their own, and stand side by side.
    """
    halves: dict[str, list[Run]] = {}
    for run in runs:
        halves.setdefault(str(run.settings.get(CLASSES, "all")), []).append(run)
    reasons = [reason for half in halves.values() for reason in _unlike_tests(half)] or _unlike_halves(halves)
    chosen = "weights chosen on the test split beside others"
    return reasons + _unlike(runs, chosen, lambda run: ("" if run.selection == "test" else "not ") + "chosen there")


def _unlike_tests(runs: Sequence[Run]) -> list[str]:
    position = _first_difference(list(dict.fromkeys(run.class_names for run in runs)))

    def classes(run: Run) -> str:
        name = run.class_names[position : position + 1]
        return f"{len(run.class_names)}{f' with {name[0]!r} at {position}' if name else ''}"

    splits = _unlike(runs, "different test splits", lambda run: f"sha256 {run.test_checksum[:8]}")
    return splits + _unlike(runs, "different classes", classes)


def _unlike_halves(halves: Mapping[str, Sequence[Run]]) -> list[str]:
    """Halves that cannot be of one class list, by their sizes and, where runs had all classes, by their names."""
    base, new, everything = (halves[half][0].class_names if half in halves else () for half in ("base", "new", "all"))
    fit = not (base and new) or len(base) - len(new) in (0, 1)
    if everything:
        middle = (len(everything) + 1) // 2
        fit = base in ((), everything[:middle]) and new in ((), everything[middle:])
    if fit:
        return []
    parts = "; ".join(f"{len(runs[0].class_names)} {half} in {some_of(runs)}" for half, runs in halves.items())
    return [f"the runs have halves of different classes: {parts}"]


def _unlike(runs: Sequence[Run], what: str, describe: Callable[[Run], str]) -> list[str]:
    """A sentence where runs are described in several ways."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(describe(run), []).append(run)
    if len(groups) < 2:
        return []
    parts = "; ".join(f"{value} in {some_of(members)}" for value, members in groups.items())
    return [f"the runs have {what}: {parts}"]


def _first_difference(lists: Sequence[Sequence[str]]) -> int:
    """The first position where not all lists hold the same."""
    return next((i for i, names in enumerate(zip(*lists, strict=False)) if len(set(names)) > 1), min(map(len, lists)))


def some_of(runs: Sequence[Run], limit: int = 3) -> str:
    """Folders of the first runs, and how many more there are."""
    named = ", ".join(str(run.folder) for run in runs[:limit])
    return named if len(runs) <= limit else f"{named} and {len(runs) - limit} more"
