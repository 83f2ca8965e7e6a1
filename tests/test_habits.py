"""What holds for all tests and all code, whatever room it is in."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "eventclip"
LONGEST_NAME = 60


def functions(folder):
    """(file, name) of every test below a folder."""
    for path in sorted(folder.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                yield path.relative_to(ROOT), node.name


def test_names_of_tests_are_short_sentences():
    names = list(functions(ROOT / "tests"))
    assert len(names) > 500
    long = [f"{path}: {name}" for path, name in names if len(name) > LONGEST_NAME]
    assert not long, "\n".join(long)


def test_no_file_has_two_tests_of_one_name():
    names = list(functions(ROOT / "tests"))
    assert len(names) == len(set(names))


def test_a_command_parses_calls_and_does_nothing_else():
    commands = [path for path in PACKAGE.glob("*.py") if "from eventclip.config.entry import entry" in path.read_text()]
    commands.append(PACKAGE / "report.py")
    assert len(commands) == 13
    assert {path.name: len(path.read_text().splitlines()) for path in commands if len(lines(path)) > 40} == {}


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def test_bars_are_those_that_say_lines_in_a_log():
    foreign = re.compile(r"^\s*(from|import) tqdm", re.MULTILINE)
    named = {path.name for path in PACKAGE.rglob("*.py") if foreign.search(path.read_text(encoding="utf-8"))}
    assert named == {"progress.py"}


def test_fast_tests_are_of_folders_that_exist():
    fast = re.search(r"^FAST := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert {folder.partition("/")[2] for folder in fast} >= {"events", "io", "views", "adapters", "models", "reports"}
    assert all((ROOT / folder).is_dir() for folder in fast)
