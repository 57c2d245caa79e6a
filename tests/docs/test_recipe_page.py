"""docs/recipes.md says what the recipe files say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from drpo.host_runs import load_recipe, recipe_names

ROOT = Path(__file__).parents[2]


def write_recipe_table():
    spec = importlib.util.spec_from_file_location("write_recipe_table", ROOT / "scripts" / "write_recipe_table.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_files():
    script = write_recipe_table()
    page = script.PAGE.read_text(encoding="utf-8")
    assert page == script.written(page), "run: python scripts/write_recipe_table.py"


@pytest.mark.parametrize("name", recipe_names())
def test_every_assumption_of_a_recipe_is_on_the_page(name: str):
    page = write_recipe_table().PAGE.read_text(encoding="utf-8")
    for setting in load_recipe(name).assumed:
        assert setting.why in page
        assert f"{setting.name.rpartition('.')[2]}=" in page
