"""The documentation site builds without a warning, loads nothing from a network, and every link leads somewhere."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from support.browser import BROWSER, WIDTHS, needs_browser

pytestmark = pytest.mark.slow

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


#: Drives the figure as a reader does, and writes down what it shows.
DRIVER = """<script>
addEventListener("load", () => setTimeout(() => {
  const find = id => document.getElementById(id);
  const type = (id, value) => {
    find(id).value = value;
    find(id).dispatchEvent(new Event("input", { bubbles: true }));
  };
  const weights = () => Object.fromEntries([...document.querySelectorAll("#gradient-weight tbody tr")].map(
    row => [row.querySelector("code").textContent, row.querySelector("td").textContent]));
  const found = { start: weights() };
  type("gw-mu-number", "0.5");
  type("gw-pi-number", "0.95");
  type("gw-delta", "0.3");
  found.positive = weights();
  document.querySelectorAll("input[name=gw-sign]")[1].click();
  found.negative = weights();
  document.querySelectorAll("input[name=gw-logOdds]")[1].click();
  find("gw-draw-surrogate").click();
  find("gw-draw-ppo").focus();
  find("gw-draw-ppo").click();
  find("gw-ppo-ratio_high").value = "-1";
  find("gw-ppo-ratio_high").dispatchEvent(new Event("input"));
  found.refused = find("gw-ppo-ratio_high").getAttribute("aria-invalid");
  found.curves = document.querySelectorAll(".gw-chart path").length;
  found.said = document.querySelector("#gw-description").textContent;
  found.named = [...document.querySelectorAll("#gradient-weight input")].filter(
    input => !input.labels.length && !input.getAttribute("aria-label")).length;
  found.width = innerWidth;
  found.overflow = document.documentElement.scrollWidth - innerWidth;
  parent.document.body.dataset.found = JSON.stringify(found);
}, 200));
</script>"""
#: A browser's own window is never as narrow as a phone's, a frame is.
FRAME = """<!DOCTYPE html><link rel=icon href="data:,">
<body><iframe src="docs/driven.html" style="border:0;width:%dpx;height:800px">"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A file that is missing shows on the browser's console."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of ``folder`` on a local port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_the_figure_of_weights_answers_its_controls(site: Path, tmp_path: Path, width: int):
    page, frame = site / "docs" / "driven.html", site / "frame.html"
    page.write_text((site / "docs" / "gradient-weight.html").read_text(encoding="utf-8") + DRIVER, encoding="utf-8")
    frame.write_text(FRAME % width, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}"]
    options += ["--disable-background-networking", "--virtual-time-budget=5000", "--dump-dom"]
    with served(site) as address:
        done = subprocess.run(
            [str(BROWSER), *options, f"{address}/frame.html"], capture_output=True, text=True, timeout=120, check=True
        )
    page.unlink()
    frame.unlink()
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    match = re.search(r'data-found="([^"]*)"', done.stdout)
    assert match is not None
    found = json.loads(html.unescape(match[1]))
    assert found["start"]["drpo"] == "0.333" and found["start"]["ppo"] == "0"
    assert found["positive"]["drpo"] == "−0.5" and found["positive"]["dppo_tv"] == "0"
    assert found["negative"]["drpo"] == "2.5" and found["negative"]["dppo_tv"] == "1"
    assert found["refused"] == "true"
    assert found["curves"] == 4 and "surrogate 1" in found["said"] and "ppo " not in found["said"]
    assert found["named"] == 0
    assert found["width"] == width and found["overflow"] <= 0
