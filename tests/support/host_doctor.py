"""`drpo doctor HOST`, as a user of that environment would ask it."""

from __future__ import annotations

import json
import subprocess
import sys


def ask(host: str, *settings: str, code: int) -> dict[str, dict[str, str]]:
    """What it found, by what it looked at; ``code`` is the expected exit code."""
    command = [sys.executable, "-m", "drpo", "doctor", host, *settings, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return {check["what"]: check for check in json.loads(done.stdout)[host]}
