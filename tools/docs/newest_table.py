"""The canary's table in docs/integrations/README.md, from results/newest/ (`make test-newest`)."""

from __future__ import annotations

from typing import Any

from drpo.files import read_json
from drpo.integrations.hosts import HOSTS
from tools import RESULTS


def table() -> str:
    """One line a host that was tried with the newest releases."""
    lines = [
        "| host | tested range | newest releases | Python | tests | works? | what broke | date |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    files = [RESULTS / "newest" / f"{host.key}.json" for host in HOSTS.values()]
    lines += [line(read_json(file)) for file in files if file.is_file()]
    return "\n".join(lines)


def line(found: dict[str, Any]) -> str:
    """The row of one host."""
    tested = ", ".join(f"{name} {spec}" for name, spec in found["tested"].items())
    versions = ", ".join(f"{name} {version.split('+')[0]}" for name, version in found["versions"].items() if version)
    counts = f"{found['passed']} passed, {found['skipped']} skipped, {found['failed']} failed"
    broken = [text for text in (found["pip"] and f"pip: {found['pip']}", found["error"], *found["failures"]) if text]
    works = "no" if found["failed"] or found["error"] else "yes"
    text = "; ".join(broken).replace("|", "\\|") or "nothing"
    cells = [found["host"], tested, versions, found["python"], counts, works, text, found["date"]]
    return f"| {' | '.join(cells)} |"
