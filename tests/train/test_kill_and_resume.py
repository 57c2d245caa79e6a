"""A smaller `make kill-test`: real processes, real SIGKILLs, the shipped base, default sizes and two threads."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kill_and_resume.py"


def test_killed_runs_resume_to_the_same_bits() -> None:
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--runs", "2", "--seed", "1"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("identical") == 2
    (inside,) = re.findall(r"(\d+) inside a checkpoint write", result.stdout)
    assert int(inside) >= 1
