"""The house: a room imports only from rooms below it, and heavy imports stay out of the commands' start."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "eventclip"
ROOMS = {  # what each room may import from, besides itself
    "errors": set(),
    "files": {"errors"},
    "cluster": set(),
    "class_names": {"errors"},
    "settings": {"errors"},
    "events": {"errors"},
    "io": {"errors", "events"},
    "data": {"errors", "files", "events", "io", "class_names"},
    "models": {"errors", "class_names"},
    "reporting": {"errors", "files", "settings"},
    "training": {"errors", "files", "cluster", "events", "io", "data", "models", "reporting"},
    "building": {"errors", "models"},
    "inference": {"errors", "class_names", "files", "events", "io", "data", "models", "building", "training"},
    "config": {"cluster", "settings"},
}
SINGLE = {"errors", "files", "cluster", "class_names", "config", "building"}  # rooms of one file
TOP_LEVEL = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} - SINGLE


def rooms_imported_by(path: Path) -> set[str]:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
        imported |= {name.split(".")[1] for name in names if name.startswith("eventclip.")}
    return imported


@pytest.mark.parametrize("room", sorted(set(ROOMS) - SINGLE))
def test_a_room_imports_only_from_rooms_below_it(room):
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for path in files:
        assert rooms_imported_by(path) <= ROOMS[room] | {room}, path


def test_no_room_imports_a_command():
    for path in PACKAGE.rglob("*.py"):
        if path.parent != PACKAGE:
            assert not rooms_imported_by(path) & TOP_LEVEL, path


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
