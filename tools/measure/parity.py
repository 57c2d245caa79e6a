"""Send the fixed batch through a host's loss path and through ours, and write down how far the gradients differ.

    python -m tools.measure.parity HOST     # in that host's environment

`make parity` does it for all of them, then `make docs` writes the table of docs/integrations/README.md.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import platform
import sys
from datetime import UTC, datetime

import torch

from drpo.integrations import hosts
from drpo.integrations.parity import TOLERANCE, compare
from tools import RESULTS

#: Host → the module with its loss path.
HOSTS = {
    **{host.key: host.parity for host in hosts.HOSTS.values()},
    "unirl-authors": "drpo.integrations.unirl.authors",
}


def measure(host: str) -> dict[str, object]:
    """Every objective that ``host`` can compute, under every aggregation that it can express."""
    path = importlib.import_module(HOSTS[host]).make_path()
    rows = [dataclasses.asdict(compare(path, {"name": name}, mode)) for mode in path.modes for name in path.objectives]
    return {
        "host": path.host,
        "version": path.version,
        "torch": torch.__version__.split("+")[0],
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "dtype": str(path.dtype).removeprefix("torch."),
        "rows": rows,
    }


def main() -> None:
    """Measure the host named on the command line; exits with 1 if a difference is beyond the tolerance."""
    if len(sys.argv) != 2 or sys.argv[1] not in HOSTS:
        sys.exit(f"usage: python -m tools.measure.parity {'|'.join(HOSTS)}")
    host = sys.argv[1]
    found = measure(host)
    out = RESULTS / "parity" / f"{host}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    rows = found["rows"]
    assert isinstance(rows, list)
    worst = max(max(row["gradient"], row["micro_batches"], row["padding"]) for row in rows)
    allowed = TOLERANCE[getattr(torch, str(found["dtype"]))]
    print(f"{host}: {len(rows)} comparisons, worst relative difference {worst:.1e}, allowed {allowed}")
    if not worst <= allowed:
        sys.exit(1)


if __name__ == "__main__":
    main()
