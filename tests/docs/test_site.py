"""The documentation site builds without a warning, loads nothing from a network, and every link leads somewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Attributes that a browser follows by itself when it shows a page; a link waits for its reader.
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}


@dataclass
class Page(HTMLParser):
    """The anchors of a page, the addresses it links to, and those it loads."""

    file: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif value and (tag, name) in LOADED:
                self.loads.append(value)
            elif value and (tag, name) == ("a", "href"):
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning fails the build."""
    for module in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(module, reason="the site needs pip install -e '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    options = ["-q", "-W", "--keep-going", "-c", "tools/site", "-d", str(out / "doctrees")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ".", str(out / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not done.stderr.strip()
    return out / "html"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in sorted(site.rglob("*.html"))}


def test_every_internal_link_and_anchor_resolves(site: Path, pages: dict[Path, Page]):
    broken = []
    followed = 0
    for page in pages.values():
        for address in {*page.links, *page.loads}:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            followed += 1
            target = (page.file.parent / unquote(parts.path)).resolve() if parts.path else page.file
            anchors = pages[target].anchors if target in pages else set()
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in anchors):
                broken.append((page.file.relative_to(site).as_posix(), address))
    assert not broken
    assert followed > 2000


def test_a_page_loads_nothing_from_elsewhere(pages: dict[Path, Page]):
    elsewhere = [address for page in pages.values() for address in page.loads if urlsplit(address).netloc]
    assert not elsewhere


def test_every_page_of_the_repository_and_every_study_is_there(site: Path, pages: dict[Path, Page]):
    names = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    names += [file.relative_to(ROOT).as_posix() for file in (ROOT / "docs").rglob("*.md")]
    wanted = {Path(name).with_suffix(".html") for name in names}
    wanted |= {Path("studies") / f"{file.parent.name}.html" for file in (ROOT / "results").glob("*/study.yaml")}
    assert wanted <= {file.relative_to(site) for file in pages}
    assert "README.html" in pages[site / "index.html"].links
    # In the navigation of the first page, and so of every page.
    linked = {urlsplit(address).path for address in pages[site / "README.html"].links}
    assert {page.as_posix() for page in wanted if page.parts[0] != "studies"} <= linked | {"README.html"}
