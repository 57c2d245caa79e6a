"""A smaller `make kill-test`: real processes, real SIGKILLs, the shipped base, default sizes and two threads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_killed_runs_resume_to_the_same_bits() -> None:
    command = [sys.executable, "-m", "tools.kill_and_resume", "--runs", "2", "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("identical") == 2
    (inside,) = re.findall(r"(\d+) inside a checkpoint write", result.stdout)
    assert int(inside) >= 1
