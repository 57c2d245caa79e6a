"""docs/recipes.md gives the reason of every assumption."""

from __future__ import annotations

from pathlib import Path

import pytest

from drpo.host_runs import load_recipe, recipe_names

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"


@pytest.mark.parametrize("name", recipe_names())
def test_every_assumption_of_a_recipe_is_on_the_page(name: str):
    page = PAGE.read_text(encoding="utf-8")
    for setting in load_recipe(name).assumed:
        assert setting.why in page
        assert f"{setting.name.rpartition('.')[2]}=" in page
