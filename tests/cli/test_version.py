"""The version is written once, and every place that shows it agrees."""

from __future__ import annotations

import tomllib
from pathlib import Path

from typer.testing import CliRunner

import drpo
from drpo.cli.app import app

ROOT = Path(__file__).parents[2]


def test_the_command_prints_the_version() -> None:
    found = CliRunner().invoke(app, ["--version"])
    assert found.exit_code == 0 and found.output == f"drpo {drpo.__version__}\n"


def test_the_metadata_takes_the_version_from_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["dynamic"] == ["version"] and "version" not in settings["project"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "drpo.__version__"}


def test_the_citation_names_the_version() -> None:
    assert f"version: {drpo.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"*drpo*, version {drpo.__version__}," in (ROOT / "README.md").read_text(encoding="utf-8")
