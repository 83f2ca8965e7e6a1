"""The house: a room imports only from rooms above it, and heavy imports stay out of the commands' start."""

import ast
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "eventclip"
ORDER = (
    *("errors", "class_names", "cluster", "rng", "files", "tables", "progress", "parallel", "prediction_table"),
    *("config", "events", "io", "views", "simulation", "blocks", "datasets", "models", "adapters", "features", "plots"),
    *("training", "inference", "reports"),
)
"""Rooms, and files that are rooms of their own, as docs/develop/architecture.md lists them."""
WITHOUT_TORCH = ("events", "io", "views", "simulation", "config", "reports")
COMMANDS = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__", *ORDER}
MOST_IMPORTED_ONCE = 25


@cache
def imports(*, types: bool = True) -> dict[Path, set[str]]:
    """File -> modules of this package that it imports, below the package; ``types``: those for types only, too."""
    found: dict[Path, set[str]] = defaultdict(set)
    modules = {".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    for path in set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"}:  # the public face points everywhere
        tree = ast.parse(path.read_text())
        typing = [one for one in ast.walk(tree) if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING"]
        left_out = set() if types else {inner for one in typing for inner in ast.walk(one)}
        for node in set(ast.walk(tree)) - left_out:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                inside = name.removeprefix("eventclip.") if name.startswith("eventclip.") else ""
                module = inside if inside in modules else inside.rpartition(".")[0]
                found[path] |= {module} if module else set()
    return found


def room_of(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def test_every_room_has_its_place_in_the_order():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert rooms <= set(ORDER)
    assert all((PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file() for room in ORDER)


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_from_rooms_above_it(room):
    above = set(ORDER[: ORDER.index(room) + 1])
    for path, modules in imports().items():
        if room_of(path) == room:
            assert {module.split(".")[0] for module in modules} <= above, path


def test_no_room_imports_a_command():
    for path, modules in imports().items():
        if room_of(path) in ORDER:
            assert not {module.split(".")[0] for module in modules} & COMMANDS, path


def test_files_of_a_room_import_in_no_circle():
    files = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): modules
        for path, modules in imports(types=False).items()
    }
    left = {name: {module for module in modules if module in files} - {name} for name, modules in files.items()}
    while free := [name for name, modules in left.items() if not modules & set(left)]:
        for name in free:
            del left[name]
    assert not left


def test_few_files_are_imported_by_one_other_only():
    users: dict[str, set[Path]] = defaultdict(set)
    for path, modules in imports().items():
        for module in modules:
            users[module].add(path)
    once = sorted(module for module, paths in users.items() if len(paths) == 1 and module.count("."))
    assert len(once) <= MOST_IMPORTED_ONCE, once


def test_the_sensors_world_needs_no_torch():
    modules = [
        ".".join(("eventclip", *path.relative_to(PACKAGE).with_suffix("").parts))
        for room in WITHOUT_TORCH
        for path in sorted((PACKAGE / room).glob("*.py"))
        if path.stem != "__init__"
    ]
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_starts_without_its_heavy_imports(command):
    heavy = "('torch', 'lightning', 'numba', 'open_clip', 'matplotlib')"
    code = f"import sys, eventclip.{command}; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
