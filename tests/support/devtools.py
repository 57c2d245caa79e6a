"""A page in headless Chromium, driven over a pipe: keys, pointer, colors, sizes, console, requests and pictures."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.browser import BROWSER

#: Seconds that one answer of the browser may take.
PATIENCE = 60
#: Key → the number and the text that the browser wants with it.
KEYS = {
    "Tab": (9, None),
    "Enter": (13, "\r"),
    " ": (32, " "),
    "Escape": (27, None),
    "End": (35, None),
    "Home": (36, None),
    "ArrowLeft": (37, None),
    "ArrowUp": (38, None),
    "ArrowRight": (39, None),
    "ArrowDown": (40, None),
    "n": (78, "n"),
    "p": (80, "p"),
}

#: Words that stand on more than one line, apart from those too long for any line and from code and data.
BROKEN_WORDS = """(() => {
  const found = [], range = document.createRange();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const parent = node.parentElement;
    if (parent.closest("script, style, code, pre, .said, .tokens, svg") || !parent.checkVisibility()) continue;
    for (const run of node.data.matchAll(/\\S+/g)) {
      if (run[0].length > 22) continue;
      for (const word of run[0].matchAll(/[\\p{L}\\p{N}_]+/gu)) {
        range.setStart(node, run.index + word.index);
        range.setEnd(node, run.index + word.index + word[0].length);
        const tops = new Set([...range.getClientRects()].filter(box => box.width > 1).map(box => Math.round(box.top)));
        if (tops.size > 1) found.push(word[0]);
      }
    }
  }
  return found;
})()"""


class Browser:
    """One tab; made by :func:`browser`."""

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int):
        self._process, self._write, self._read = process, write, read
        self._count, self._buffer, self._session = 0, b"", None
        #: What the page said on the console or threw, and what it asked for, since it was opened.
        self.console: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, file: Path, width: int = 1200, height: int = 900, dark: bool = False, script: bool = True) -> None:
        """Show the page ``file`` and wait until it has loaded."""
        self.resize(width, height)
        scheme = "dark" if dark else "light"
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._call("Emulation.setScriptExecutionDisabled", value=not script)
        self.console.clear()
        self.requests.clear()
        self._loaded = False
        self._call("Page.navigate", url=file.resolve().as_uri())
        self._wait(lambda: self._loaded)

    def resize(self, width: int, height: int = 900) -> None:
        """Give the page another size, in CSS pixels."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        done = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression is true, looking again at every frame."""
        look = f"const look = () => ({condition}) ? done() : requestAnimationFrame(look);"
        self.evaluate(f"new Promise(done => {{ {look} look(); }})")

    def press(self, *keys: str) -> None:
        """Press and release keys, one after the other, as a person would."""
        for key in keys:
            code, text = KEYS[key]
            pressed = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
            self._call("Input.dispatchKeyEvent", type="keyDown", **pressed, **({"text": text} if text else {}))
            self._call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def point(self, x: float, y: float, click: bool = False) -> None:
        """Move the pointer to a place in the window, and click there if wanted."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def center(self, selector: str) -> tuple[float, float]:
        """Where the middle of the first such element is, scrolled into view."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect(); "
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return box[0], box[1]

    def picture(self, file: Path, whole: bool = True) -> Path:
        """Write what is seen as PNG, the whole page or the window."""
        shot = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))
        return file

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return self.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def broken_words(self) -> list[str]:
        """Ordinary words that are broken over two lines."""
        return self.evaluate(BROKEN_WORDS)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer: list[dict[str, Any]] = []
        self._wait(lambda: bool(answer), lambda found: answer.append(found) if found.get("id") == number else None)
        assert "error" not in answer[0], (method, answer[0])
        return answer[0]["result"]

    def _wait(self, done: Any, see: Any = lambda found: None) -> None:
        """Read messages until ``done``."""
        end = time.monotonic() + PATIENCE
        while not done():
            while b"\0" not in self._buffer:
                ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
                part = os.read(self._read, 1 << 20) if ready else b""
                assert part, f"the browser did not answer (exit status {self._process.poll()})"
                self._buffer += part
            text, _, self._buffer = self._buffer.partition(b"\0")
            found = json.loads(text)
            self._note(found.get("method"), found.get("params", {}))
            see(found)

    def _note(self, method: str | None, parameters: dict[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.consoleAPICalled":
            self.console.append(str([argument.get("value") for argument in parameters["args"]]))
        elif method == "Runtime.exceptionThrown":
            self.console.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.console.append(parameters["entry"]["text"])


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty ``profile``, closed at the end."""
    (theirs, write), (read, ours) = os.pipe(), os.pipe()
    # The browser reads from its file 3 and writes to its file 4: these must not be in the way.
    to_browser, from_browser = (fcntl.fcntl(file, fcntl.F_DUPFD, 10) for file in (theirs, ours))
    os.close(theirs)
    os.close(ours)
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    line = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
    process = subprocess.Popen(
        ["bash", "-c", line, "bash", *command],
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Browser(process, write, read)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE)
        os.close(write)
        os.close(read)
