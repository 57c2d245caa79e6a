"""The pages about the objectives: made from the docstrings, and backed by tests that exist."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from drpo.errors import ConfigError
from drpo.objectives import MODIFIERS, OBJECTIVES, Modifier, Objective
from drpo.objectives.documentation import document, documentation

KINDS = [pytest.param(kind, id=f"{kind.name}-{kind.__name__}") for kind in (*OBJECTIVES.values(), *MODIFIERS.values())]
ROOT = Path(__file__).resolve().parents[2]
GEOMETRY = (ROOT / "docs" / "geometry.md").read_text(encoding="utf-8")


def test_the_table_has_a_whole_row_for_everything() -> None:
    written = (ROOT / "docs" / "objectives.md").read_text(encoding="utf-8")
    for name in (*OBJECTIVES, *MODIFIERS):
        assert f"| `{name}(" in written
    rows = [line for line in written.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {6}


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


@pytest.mark.parametrize("kind", KINDS)
def test_docstrings_can_be_taken_apart(kind: type[Objective] | type[Modifier]) -> None:
    about = document(kind)
    assert about.signature.startswith(f"{kind.name}(") and about.summary.endswith((".", "clip."))
    assert "\n" not in about.summary
    assert {"Equation", "Source", "Status", "Deviations"} <= set(about.sections)
    assert all(text and "\n" not in text for text in about.sections.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_verified_formula_names_where_it_can_be_looked_up(kind: type[Objective] | type[Modifier]) -> None:
    about = document(kind)
    text = about.sections["Status"]
    if about.status == "verified":
        equation = re.search(r"(Sections?|Eq\.|Algorithm) \d", text)
        file = re.search(r"[\w.-]+/[\w.-]+@[0-9a-f]{7}, [\w./-]+\.py", text)
        assert equation or file, text
    else:
        assert len(text.removeprefix("secondary, from ").split()) >= 3, text
    told = " ".join(about.sections.values())
    assert "at hand" not in told and "could not be read" not in told, "say it in Status"


def test_a_name_may_be_an_objective_and_a_modifier() -> None:
    objective, modifier = documentation("icepop")
    assert objective == document(OBJECTIVES["icepop"]) and modifier == document(MODIFIERS["icepop"])
    assert "π/μ" in objective.text and "k = π_old/μ" in modifier.sections["Equation"]
    assert documentation("tis") == [document(MODIFIERS["tis"])]


def test_a_status_of_another_form_is_refused() -> None:
    about = dataclasses.replace(document(OBJECTIVES["drpo"]), sections={"Status": "checked"})
    with pytest.raises(ConfigError, match="drpo"):
        _ = about.status
