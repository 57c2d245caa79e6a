"""`python -m drpo.bench.child COMMAND…` runs the command and prints its seconds and peak memory as JSON.

A process's peak begins with that of the one that started it, so that it is started from here, where little is loaded.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

#: ru_maxrss counts kilobytes on Linux, bytes on macOS.
UNIT = 1 if sys.platform == "darwin" else 1024


def run_alone(command: Sequence[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of ``command``, which must succeed."""
    launcher = [sys.executable, "-m", __name__, *command]
    done = subprocess.run(launcher, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    return found["seconds"], found["peak_bytes"]


def main() -> None:
    """Run the command line's command."""
    started = time.perf_counter()
    subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * UNIT
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
