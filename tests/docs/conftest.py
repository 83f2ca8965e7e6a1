"""The pages taken apart: fenced blocks, what a comment before each says of it, and the commands in them.

A comment right before a fenced block is a mark: ``run``, ``compiles only: why`` or ``needs why``; see
`docs/develop/contributing.md`.
"""

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from eventclip.config import CONFIG_DIR

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TO_COME = "" if Path(CONFIG_DIR, "features", "cached.yaml").is_file() else "features=cached is still to come in conf/"
"""Why nothing that the pages say can be tried yet; empty once the keys that they tell of are there."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (.*?) -->\n\Z")
_INLINE = re.compile(r"`(eventclip \w+ [^`…]*=[^`…<]*)`")


@dataclass(frozen=True)
class Fence:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def name(self) -> str:
        """Where it stands, for the name of a test."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def fences(page: Path) -> list[Fence]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        mark = _MARK.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Fence(page, line, match[1], match[2], mark[1] if mark else ""))
    return found


def commands(fence: Fence) -> list[list[str]]:
    """The words of each command line in a block, comments left out and continued lines joined."""
    lines = fence.text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def all_commands() -> dict[str, list[str]]:
    """Every command line of every page, those in tables too, by page and line; each once."""
    found = {}
    for page in PAGES:
        for fence in fences(page):
            if fence.language == "bash" and not fence.mark.startswith("needs"):
                found |= {f"{fence.name}.{place}": words for place, words in enumerate(commands(fence))}
        inline = _INLINE.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
        found |= {f"{page.name}#{place}": shlex.split(command) for place, command in enumerate(inline)}
    once = {tuple(words): name for name, words in reversed(found.items())}
    return {name: list(words) for words, name in once.items()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test the blocks, commands or pages that its arguments ask for."""
    blocks = [fence for page in PAGES for fence in fences(page)]
    runnable = [f for f in blocks if f.language == "bash" and f.mark == "run"]
    snippets = [f for f in blocks if f.language == "python"]
    offered = {
        "page": {str(page.relative_to(ROOT)): page for page in PAGES},
        "typed": all_commands(),
        "script": {fence.name: fence for fence in runnable},
        "snippet": {fence.name: fence for fence in snippets},
    }
    for argument in offered.keys() & set(metafunc.fixturenames):
        metafunc.parametrize(argument, offered[argument].values(), ids=offered[argument].keys())


@pytest.fixture
def as_told() -> None:
    """Skip while what the pages tell of is still to come; goes by itself once the new keys are there."""
    if TO_COME:
        pytest.skip(TO_COME)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with star.npy, the recording that the pages speak of: a ring of events, 300 ms."""
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 30_000), rng.normal(40, 2, 30_000)
    x, y = (np.rint(64 + radius * wave(angle)) for wave in (np.cos, np.sin))
    t = np.sort(rng.uniform(0, 0.3, len(x)))
    np.save(tmp_path / "star.npy", np.stack([x, y, t, rng.choice([-1.0, 1.0], len(x))], axis=1).astype(np.float32))
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def command_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds ``eventclip`` as the console script is, of the package under test."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "eventclip"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m eventclip "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def configuration_page() -> str:
    """The page that lists all keys."""
    return (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
