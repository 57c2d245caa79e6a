"""recipe:settings/…: each is a configuration that loads, and docs/settings.md is what they gave."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from drpo.model.source import EMBEDDED
from drpo.train.config import load_config

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "measure_settings.py"), run_name="script")


def test_the_page_is_what_was_measured() -> None:
    text = SCRIPT["PAGE"].read_text(encoding="utf-8")
    assert text.count(SCRIPT["START"]) == 1 and text.count(SCRIPT["END"]) == 1
    assert text == SCRIPT["page"](text), "run `python scripts/measure_settings.py --table`"


def test_every_setting_is_in_the_table() -> None:
    assert {file.stem for file in SCRIPT["RECIPES"].glob("*.yaml")} == set(SCRIPT["NAMES"])


@pytest.mark.parametrize("name", SCRIPT["NAMES"])
def test_every_setting_is_a_configuration_of_a_shipped_base(name: str) -> None:
    config, sources = load_config(SCRIPT["RECIPES"] / f"{name}.yaml")
    assert config.model.removeprefix("embedded:") in EMBEDDED
    assert sources["precision"] == sources["rollout_precision"] == str(SCRIPT["RECIPES"] / f"{name}.yaml")
    assert ("fp8" in name) == (config.rollout_precision == "fp8")
