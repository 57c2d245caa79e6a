"""The page in a real browser: nothing overflows on phone or desk, nothing is loaded, nothing complains."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from synthetic_run import config, make_run, manifest, sampled

from drpo.report import build_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")

WIDTHS = (390, 1200)
#: Shows the report at each width and writes down how wide its content turned out to be.
HARNESS = """<!DOCTYPE html><link rel=icon href="data:,"><body><script>
const found = {};
for (const width of %s) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:800px;border:0`;
  frame.src = "/report.html?" + width;
  frame.onload = () => {
    const page = frame.contentDocument;
    const boxes = selector => [...page.querySelectorAll(selector)].map(e => e.getBoundingClientRect());
    found[width] = {wide: page.documentElement.scrollWidth, body: page.body.scrollWidth,
      drawings: boxes("figure svg").filter(box => box.height > 100).length,
      outside: boxes("svg text").filter(box => box.right > width).length};
    document.body.dataset.found = JSON.stringify(found);
  };
  document.body.append(frame);
}
</script>"""


class _Server(ThreadingHTTPServer):
    pages: dict[str, str]
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        page = self.server.pages.get(self.path.partition("?")[0])
        self.send_response(404 if page is None else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write((page or "").encode("utf-8"))

    def log_message(self, format: str, *args: object) -> None:
        """Requests are kept in ``asked`` instead."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_Server]:
    run = make_run(tmp_path / "run", steps=12)
    long = {"model": "m" * 300, "k" * 150: "v" * 300, "objective": {"name": "o" * 90, "delta": 0.1}}
    run.create(
        {**config(12, 2), **long},
        manifest(command=["x" * 900], failure="f" * 900, device="s" * 90, status="failed"),
    )
    hostile = "<script>console.error('ran')</script><img src='/stolen.png' onerror='console.error(1)'>"
    run.write_rollouts(
        "evaluation", 12, [sampled("long " * 50 + "x" * 3000, hostile + "y" * 2000, reward=1.0)]
    )
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.pages = {"/report.html": build_report(run), "/harness.html": HARNESS % json.dumps(WIDTHS)}
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_in_a_browser(server: _Server, tmp_path: Path) -> None:
    assert BROWSER is not None
    address = f"http://127.0.0.1:{server.server_address[1]}/harness.html"
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--virtual-time-budget=5000",
         "--window-size=1300,900", "--dump-dom", address],
        capture_output=True, text=True, timeout=90, check=True,
    )  # fmt: skip
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert said == []
    assert sorted(server.asked) == [
        "/harness.html",
        *(f"/report.html?{width}" for width in sorted(WIDTHS, key=str)),
    ]
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found is not None, done.stdout[:500]
    sizes = json.loads(found[1].replace("&quot;", '"'))
    for width in WIDTHS:
        size = sizes[str(width)]
        assert size["wide"] <= width and size["body"] <= width, size
        assert size["outside"] == 0, size
        assert size["drawings"] >= 16, size
