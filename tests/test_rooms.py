"""The house: a room imports only from rooms below it, and heavy imports stay out of the commands' start."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "eventclip"
ORDER = (
    *("errors", "class_names", "cluster", "rng", "files", "parallel", "progress", "tables", "blocks"),
    *("prediction_table", "config"),
    *("events", "io", "views", "simulation", "datasets", "models", "adapters", "features", "plots"),
    *("training", "inference", "reports"),
)
"""Rooms, and files that are a room of their own: each imports only from those before it."""
NEVER = {
    "events": {"torch", "lightning"},
    "io": {"torch", "lightning"},
    "views": {"torch", "lightning"},
    "models": {"lightning", "eventclip.datasets"},
    "adapters": {"lightning", "eventclip.datasets"},
}
"""What a room has no use for, whatever the order allows."""
COMMANDS = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", *ORDER}


def files_of(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]


def modules_imported_by(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            modules.add(node.module or "")
    return modules


def rooms_imported_by(path: Path) -> set[str]:
    return {name.split(".")[1] for name in modules_imported_by(path) if name.startswith("eventclip.")}


@pytest.mark.parametrize("room", ORDER)
def test_a_room_imports_only_from_rooms_before_it(room):
    allowed = {room, *ORDER[: ORDER.index(room)]}
    for path in files_of(room):
        assert path.is_file()
        assert rooms_imported_by(path) <= allowed, path


def test_every_room_and_file_has_its_place_in_the_order():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders <= set(ORDER)
    assert COMMANDS - {"__main__"} == set(eventclip_commands())


def eventclip_commands() -> list[str]:
    from eventclip.__main__ import COMMANDS as names

    return list(names)


@pytest.mark.parametrize("room", NEVER)
def test_a_room_needs_nothing_that_is_not_its_own(room):
    for path in files_of(room):
        for module in modules_imported_by(path):
            assert not any(module == name or module.startswith(f"{name}.") for name in NEVER[room]), path


def test_no_room_imports_a_command():
    for path in PACKAGE.rglob("*.py"):
        if path.parent != PACKAGE:
            assert not rooms_imported_by(path) & COMMANDS, path


def test_the_sensors_world_needs_no_torch():
    code = "import sys, eventclip.events.frames, eventclip.io.formats; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_report_needs_no_torch():
    code = "import sys, eventclip.reports.report, eventclip.plots.curve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("command", ["train", "evaluate", "import_checkpoint", "report", "pack", "data_check"])
def test_a_command_starts_without_its_heavy_imports(command):
    heavy = "('torch', 'lightning', 'numba', 'open_clip', 'matplotlib')"
    code = f"import sys, eventclip.{command}; sys.exit(any(m in sys.modules for m in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
