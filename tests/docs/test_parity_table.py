"""docs/integrations: what was measured agrees, the table names it, and every page exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from drpo.integrations.hosts import HOSTS
from drpo.integrations.parity import TOLERANCE
from drpo.objectives import OBJECTIVES
from tools.docs.parity_table import load

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "integrations"
MEASURED = load()


def test_the_table_names_the_versions_that_were_measured() -> None:
    written = (FOLDER / "README.md").read_text(encoding="utf-8")
    for host in MEASURED:
        assert f"| {host['host']} {host['version']} |" in written


@pytest.mark.parametrize("host", MEASURED, ids=lambda host: f"{host['host']} {host['version']}")
def test_every_host_agrees(host: dict) -> None:
    allowed = TOLERANCE[getattr(torch, host["dtype"])]
    assert len(host["rows"]) >= 15
    for row in host["rows"]:
        assert max(row["gradient"], row["micro_batches"], row["padding"]) <= allowed, row
    names = [row["objective"] for row in host["rows"]]
    assert "drpo" in names and set(names) <= set(OBJECTIVES)


def test_every_plugin_has_its_page_and_every_link_its_file() -> None:
    for host in HOSTS:
        assert (FOLDER / f"{host}.md").is_file(), host
    for page in FOLDER.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (FOLDER / target).exists(), f"{page.name} links {target}"
