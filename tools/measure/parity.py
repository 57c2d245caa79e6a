"""Send the fixed batch through a host's loss path and through ours, and write down how far the gradients differ.

    python -m tools.measure.parity HOST     # in that host's environment

`make parity` does it for all of them, then `make docs` writes the table of docs/integrations/README.md. The record of
a host is HOST.json; that of a release other than the pinned one is HOST-VERSION.json beside it.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import platform
import re
import sys
import typing
from datetime import UTC, datetime

import torch
import typing_extensions

from drpo.integrations import hosts
from drpo.integrations.parity import TOLERANCE, compare
from tools import RESULTS, ROOT

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


def record_name(key: str, version: str) -> str:
    """The file for what was measured in ``version`` of a host."""
    host = next((host for host in hosts.HOSTS.values() if host.key == key), None)
    if host is None or host.constraints is None:
        return f"{key}.json"
    pins = (ROOT / host.constraints).read_text(encoding="utf-8")
    pin = re.search(rf"^{re.escape(host.distribution)}==(\S+)", pins, re.MULTILINE)
    return f"{key}.json" if pin is None or pin[1] == version else f"{key}-{version}.json"


def main() -> None:
    """Measure the host named on the command line; exits with 1 if a difference is beyond the tolerance."""
    if len(sys.argv) != 2 or sys.argv[1] not in HOSTS:
        sys.exit(f"usage: python -m tools.measure.parity {'|'.join(HOSTS)}")
    host = sys.argv[1]
    if host == "skyrl" and sys.version_info < (3, 12):  # pydantic refuses a model of SkyRL 0.3.0 (tests/hosts/skyrl)
        typing.TypedDict = typing_extensions.TypedDict
    found = measure(host)
    out = RESULTS / "parity" / record_name(host, str(found["version"]))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    rows = found["rows"]
    assert isinstance(rows, list)
    worst = max(max(row["gradient"], row["micro_batches"], row["padding"]) for row in rows)
    allowed = TOLERANCE[getattr(torch, str(found["dtype"]))]
    print(f"{out.stem}: {len(rows)} comparisons, worst relative difference {worst:.1e}, allowed {allowed}")
    if not worst <= allowed:
        sys.exit(1)


if __name__ == "__main__":
    main()
