"""The pages about the objectives: made from the docstrings, and backed by tests that exist."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path

import pytest

from drpo.objectives import MODIFIERS, OBJECTIVES
from drpo.objectives.documentation import documentation

ROOT = Path(__file__).resolve().parents[2]
GEOMETRY = (ROOT / "docs" / "geometry.md").read_text(encoding="utf-8")


def test_the_table_is_the_docstrings() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "write_objective_table.py"), run_name="script")
    written = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    assert written == script["page"](), "run `python scripts/write_objective_table.py`"
    for name in (*OBJECTIVES, *MODIFIERS):
        assert f"| `{name}(" in written
    rows = [line for line in written.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


def functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_claim_of_the_geometry_names_tests_that_exist() -> None:
    claims = re.split(r"\*\*Claim \d+", GEOMETRY)[1:]
    assert len(claims) >= 10
    for number, claim in enumerate(claims, start=1):
        assert "*Proof.*" in claim and "∎" in claim, number
        # Claim 8 shares its tests with the limit that follows it.
        assert re.search(r"`test_\w+`", claim) or number == 8, number
    default = functions(ROOT / "tests" / "core" / "test_geometry.py")
    named = re.findall(r"`(test_\w+)`(?: in\s+`([\w/.]+)`)?", GEOMETRY)
    assert len(named) > 15
    for test, file in named:
        known = functions(ROOT / file) if file else default
        assert test in known, f"docs/geometry.md names {test}, which {file or 'test_geometry.py'} lacks"


@pytest.mark.parametrize("name", [*OBJECTIVES, *MODIFIERS])
def test_docstrings_can_be_taken_apart(name: str) -> None:
    about = documentation(name)
    assert about.signature.startswith(f"{name}(") and about.summary.endswith((".", "clip."))
    assert "\n" not in about.summary
    assert {"Equation", "Source", "Deviations"} <= set(about.sections)
    assert all(text and "\n" not in text for text in about.sections.values())
