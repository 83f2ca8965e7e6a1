"""Find the runs below some folders and read their ``results.json``; whether they may stand in one table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eventclip.errors import UserError

ACCURACY = "test/top1_probabilities"
"""The metric without which a run is in no table."""


@dataclass(frozen=True)
class Run:
    """What a finished run says of itself.

    Attributes:
        folder: as found below the folder that was asked for.
        name: of its experiment.
        seed: its random seed.
        settings: dotted key -> plain value, see `settings.flat_settings`.
        metrics: "test/..." -> number, accuracies in [0, 1].
        test_checksum: sha256 of the recordings it was tested on.
        class_names: in order of their labels.
        selection: the split its weights were chosen on; None: none.
        root: folder of its data set.
        clip_sha256: of CLIP's weights.
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
            found.setdefault(place.resolve(), place)
    places = sorted(found.values())
    if not places:
        asked = ", ".join(str(folder) for folder in folders)
        raise UserError(
            f"there is no run below {asked}: expected folders with a results.json, as eventclip.train leaves"
        )
    collection = Collection([], [], [])
    for place in places:
        path = place / "results.json"
        if not path.is_file():
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
        said = json.loads(path.read_text(encoding="utf-8"))
        metrics = {str(name): float(value) for name, value in said["metrics"].items()}
        metrics[ACCURACY]  # what every table shows
        run = Run(
            folder=path.parent,
            name=str(said["name"]),
            seed=int(said["seed"]),
            settings=dict(said["settings"]),
            metrics=metrics,
            test_checksum=str(said["data"]["checksums"]["test"]),
            class_names=tuple(said["class_names"]),
            selection=said["selection"]["split"],
            root=str(said["data"]["root"]),
            clip_sha256=str(said["clip"]["weights_sha256"]),
        )
    except (OSError, ValueError) as error:  # JSON's and Unicode's errors are ValueErrors
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())}): test that run again") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} lacks what a table needs ({type(error).__name__}: {error}): test that run again with this version"
        ) from error
    if not all(math.isfinite(value) for value in metrics.values()):
        raise UserError(f"{path} has a metric that is no finite number: look at that run's log")
    return run


def mixtures(runs: Sequence[Run]) -> list[str]:
    """Say in a sentence each why runs do not belong in one table; nothing where they do."""
    class_lists = list(dict.fromkeys(run.class_names for run in runs))
    position = _first_difference(class_lists)

    def classes(run: Run) -> str:
        name = run.class_names[position : position + 1]
        return f"{len(run.class_names)}{f' with {name[0]!r} at {position}' if name else ''}"

    kinds: dict[str, Callable[[Run], str]] = {
        "different test splits": lambda run: f"sha256 {run.test_checksum[:8]}",
        "different classes": classes,
        "weights chosen on the test split beside others": lambda run: (
            "chosen there" if run.selection == "test" else "not chosen there"
        ),
    }
    said = []
    for what, told in kinds.items():
        groups: dict[str, list[Run]] = {}
        for run in runs:
            groups.setdefault(told(run), []).append(run)
        if len(groups) > 1:
            parts = "; ".join(f"{value} in {_some(members)}" for value, members in groups.items())
            said.append(f"the runs have {what}: {parts}")
    return said


def _first_difference(lists: Sequence[Sequence[str]]) -> int:
    """The first position where not all lists hold the same."""
    return next((i for i, names in enumerate(zip(*lists, strict=False)) if len(set(names)) > 1), min(map(len, lists)))


def _some(runs: Sequence[Run], limit: int = 3) -> str:
    named = ", ".join(str(run.folder) for run in runs[:limit])
    return named if len(runs) <= limit else f"{named} and {len(runs) - limit} more"
