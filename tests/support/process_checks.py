"""Looking at processes from outside."""

from __future__ import annotations

import os
import time
from pathlib import Path


def ends(pid: int) -> bool:
    """Whether this process ends within a few seconds; a zombie has ended."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
            stat = Path(f"/proc/{pid}/stat")
            if stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False
