"""The pages hang together: links, pictures and headings exist, every page is in the site, none is too long."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and the site make them."""
    plain = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).strip().replace(" ", "-") for title in titles}


def test_every_relative_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page if not path else page.parent / path
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in headings(target), f"{page.name}: {link}"


def test_every_page_has_its_place_in_the_site():
    def listed(entry):
        if isinstance(entry, str):
            return [entry]
        children = entry if isinstance(entry, list) else list(entry.values())
        return [page for child in children for page in listed(child)]

    nav = listed(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(nav) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_every_picture_is_shown_somewhere():
    shown = {Path(link).name for page in DOCS.rglob("*.md") for link in LINK.findall(page.read_text(encoding="utf-8"))}
    assert {picture.name for picture in DOCS.rglob("*.png")} <= shown


@pytest.mark.parametrize(("name", "lines"), [("README.md", 120), ("CONTRIBUTING.md", 50)])
def test_what_is_read_first_is_short(name, lines):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= lines


@pytest.mark.parametrize("what", ["file format", "adapter", "data set", "figure", "command"])
def test_architecture_says_in_two_lines_where_it_goes(what):
    text = (DOCS / "develop" / "architecture.md").read_text(encoding="utf-8")
    answer = re.search(rf"^\*\*a new {what}\?\*\*(.+?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert answer
    assert len(answer[0].strip().splitlines()) == 2


def test_each_thing_has_the_word_of_the_glossary(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    prose = text.split("## Old names", maxsplit=1)[0]  # the one place that tells what things were called
    old = r"\b(banks?|films?|filmed|filming|stills|holdout|guess(?:es|ed)?|percentile_events|passes|online)\b"
    assert not re.findall(old, prose, re.IGNORECASE)


def test_the_versions_agree():
    project = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## ([\d.]+)( \(unreleased\))?", changes, re.MULTILINE)
    assert cited == newest[1]
    assert project == newest[1] or newest[2]


class Links(HTMLParser):
    """Local links and anchors of a built page."""

    def __init__(self):
        super().__init__()
        self.links, self.anchors = [], set()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.add(values.get("id"))
        self.links += [values[key] for key in ("href", "src") if values.get(key)]


def test_the_built_site_has_no_dead_link(tmp_path):
    builder = shutil.which("zensical") or shutil.which("zensical", path=str(ROOT / ".venv" / "bin"))
    if builder is None:
        pytest.skip("the site is built where zensical is installed: make docs")
    for name in ("docs", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run([builder, "build", "--strict"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {}
    for path in (tmp_path / "site").rglob("*.html"):
        pages[path.resolve()] = parsed = Links()
        parsed.feed(path.read_text(encoding="utf-8"))
    assert len(pages) > len(list(DOCS.rglob("*.md")))  # and 404.html
    for path, parsed in pages.items():
        if path.name == "404.html":  # served from anywhere, so its links are absolute
            continue
        for link in parsed.links:
            target, _, anchor = unquote(link).partition("#")
            if re.match(r"([a-z]+:|//)", target):
                continue
            found = path if not target else (path.parent / target).resolve()
            found = found / "index.html" if found.is_dir() else found
            assert found.is_file(), f"{path.name}: {link}"
            assert not anchor or found not in pages or anchor in pages[found].anchors, f"{path.name}: {link}"
