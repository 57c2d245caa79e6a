"""Every line that says how to install this package works today: no package index carries it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from drpo.installation import install

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "Makefile",
    *(ROOT / "docs").rglob("*.md"),
    *(
        file
        for folder in ("src", "tests", "tools", "examples", "benchmarks")
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".yaml", ".md") and file != Path(__file__)
    ),
]
#: `pip install drpo`, `pip install 'drpo[lab]'`: the name alone, where a path to a clone is due.
FROM_AN_INDEX = re.compile(r"pip install (?:[^\n`#]* )?['\"]?drpo(?![\w.-])")
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])


def joined(text: str) -> str:
    """``text`` with the pieces of Python strings put together."""
    return re.sub(r'"\s*\n\s*f?"', "", text)


def test_nothing_is_installed_from_an_index():
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in FILES
        for match in FROM_AN_INDEX.finditer(joined(file.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize("line", ["pip install drpo", "pip install 'drpo[lab]'", 'uv pip install -U "drpo[train,lab]"'])
def test_the_check_sees_such_a_line(line: str):
    assert FROM_AN_INDEX.search(line)
    assert not FROM_AN_INDEX.search(line.replace("drpo", "./drpo"))


def test_every_extra_that_is_named_exists():
    named: dict[str, str] = {}
    for file in FILES:
        text = joined(file.read_text(encoding="utf-8"))
        groups = re.findall(r"""(?<=['"/ ])(?:\.|\./drpo)\[([\w,]+)\]""", text)
        groups += [re.sub(r"[\"' ]", "", found) for found in re.findall(r"\binstall\(([\"'\w, ]+)\)", text)]
        named |= {extra: str(file) for group in groups for extra in group.split(",")}
    assert {"train", "lab", "math", "vllm", "inspect", "bench"} <= set(named)
    assert {extra: file for extra, file in named.items() if extra not in EXTRAS} == {}


def test_the_command_is_one_line():
    assert install("train", "lab") == "pip install -e '.[train,lab]' in a clone of drpo"
