"""A page in a real browser, at the width of a phone and of a desk."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on the PATH")

WIDTHS = (390, 1200)
#: Shows the page at each width and writes down what it turned out to be.
HARNESS = """<!DOCTYPE html><link rel=icon href="data:,"><body><script>
const found = {};
for (const width of %s) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:800px;border:0`;
  frame.src = "/page.html?" + width;
  frame.onload = () => {
    const page = frame.contentDocument;
    const boxes = selector => [...page.querySelectorAll(selector)].map(e => e.getBoundingClientRect());
    found[width] = {
      overflow: Math.max(page.documentElement.scrollWidth, page.body.scrollWidth) - width,
      holes: [...page.querySelectorAll(".charts")].filter(grid => {
        const [room, last] = [grid, grid.lastElementChild].map(e => e.getBoundingClientRect());
        return room.width && last.right < room.right - 2;
      }).map(grid => grid.lastElementChild.textContent.slice(0, 60)),
      drawings: boxes("figure svg").filter(box => box.height > 0).length,
      outside: [...page.querySelectorAll("svg text")].filter(text => {
        const box = text.getBoundingClientRect();
        return box.left < 0 || box.right > page.documentElement.clientWidth;
      }).map(text => text.textContent),
    };
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


def looks(page: str, profile: Path) -> list[dict[str, Any]]:
    """What ``page`` is at each of :data:`WIDTHS`: its ``overflow`` in pixels, how many charts it draws, which of their
    labels lie ``outside``, and which grids of charts end with ``holes``. Fails where it asks for anything but itself,
    or says anything on the console."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.pages = {"/page.html": page, "/harness.html": HARNESS % json.dumps(WIDTHS)}
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            done = subprocess.run(
                [
                    str(BROWSER),
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-background-networking",
                    f"--user-data-dir={profile}",
                    "--enable-logging=stderr",
                    "--virtual-time-budget=5000",
                    "--window-size=1300,900",
                    "--dump-dom",
                    f"http://127.0.0.1:{server.server_address[1]}/harness.html",
                ],
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
        finally:
            server.shutdown()
            thread.join()
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    assert sorted(server.asked) == sorted(["/harness.html", *(f"/page.html?{width}" for width in WIDTHS)])
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found is not None, done.stdout[:500]
    sizes = json.loads(html.unescape(found[1]))
    return [sizes[str(width)] for width in WIDTHS]
