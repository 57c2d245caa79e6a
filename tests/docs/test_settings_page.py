"""recipe:settings/…: each is a configuration that loads, and was measured for docs/settings.md."""

from __future__ import annotations

import pytest

from drpo import recipe_files
from drpo.model.source import EMBEDDED
from drpo.train.config_layers import load_config
from tools.measure.settings import NAMES

RECIPES = recipe_files.ROOT / "settings"


def test_every_setting_is_in_the_table() -> None:
    assert {file.stem for file in RECIPES.glob("*.yaml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_a_configuration_of_a_shipped_base(name: str) -> None:
    config, sources = load_config(RECIPES / f"{name}.yaml")
    assert config.model.removeprefix("embedded:") in EMBEDDED
    assert sources["precision"] == sources["rollout_precision"] == str(RECIPES / f"{name}.yaml")
    assert ("fp8" in name) == (config.rollout_precision == "fp8")
