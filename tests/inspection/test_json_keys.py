"""docs/schema.md describes what `drpo inspect --json` prints: every key, and none that does not come."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from drpo.inspection.compare import Comparison
from drpo.inspection.gate import Check
from drpo.inspection.inspect import FIGURES
from drpo.inspection.json_keys import AROUND, KEYS
from drpo.inspection.json_keys import FIGURES as DESCRIBED
from drpo.inspection.result import Inspection
from drpo.schema import SCHEMAS
from support import command
from support.synthetic_log import make_run, write_jsonl
from tools import ROOT

pytestmark = pytest.mark.slow


def check(value: Any, hint: Any, where: str) -> None:
    """Fail unless ``value`` is what ``hint`` says, with the keys that are described."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        assert value in inner, where
    elif origin in (types.UnionType, typing.Union):
        if value is not None:
            (hint,) = (kind for kind in inner if kind is not type(None))
            check(value, hint, where)
        else:
            assert type(None) in inner, where
    elif origin is list:
        assert type(value) is list, where
        for i, item in enumerate(value):
            check(item, inner[0], f"{where}[{i}]")
    elif origin is dict:
        assert type(value) is dict, where
        for key, item in value.items():
            check(item, inner[1], f"{where}.{key}")
    elif dataclasses.is_dataclass(hint):
        assert list(value) == list(KEYS[typing.cast(type, hint)]), where
        hints = typing.get_type_hints(hint)
        for key, item in value.items():
            check(item, hints[key], f"{where}.{key}")
    else:
        assert type(value) in ((int, float) if hint is float else (hint,)), f"{where}: {value!r}"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("logs")
    run = make_run(steps=2, updates=2)
    return [write_jsonl(folder / f"{name}.jsonl", run) for name in ("a", "b")]


@pytest.mark.parametrize(
    ("options", "further"),
    [
        ([], []),
        (["--against"], ["comparison"]),
        (["--fail-on", "warning", "--max", "shift=0"], ["checks"]),
        (["--fail-on", "fault", "--against"], ["comparison", "checks"]),
    ],
)
def test_the_output_has_the_described_keys_and_types(logs: list[Path], options: list[str], further: list[str]) -> None:
    against = [str(logs[1])] if "--against" in options else []
    printed = command.run(["inspect", logs[0], "--json", *options, *against])
    found = json.loads(printed.stdout)
    assert found.pop("schema") == SCHEMAS["inspection"]
    assert list(found) == [*KEYS[Inspection], *further] and {"schema", *further} <= AROUND.keys()
    around = {key: found.pop(key) for key in further}
    check(found, Inspection, "")
    assert found["verdicts"] and found["steps"] and found["updates"] and found["affected"] and found["temperature"]
    check(around.get("checks", []), list[Check], "checks")
    if "comparison" in around:
        check(around["comparison"], Comparison, "comparison")
    assert list(found["figures"]) == list(FIGURES) == list(DESCRIBED)


def test_the_page_has_every_key() -> None:
    page = (ROOT / "docs" / "schema.md").read_text(encoding="utf-8")
    for keys in (AROUND, DESCRIBED, *KEYS.values()):
        for key, meaning in keys.items():
            assert meaning and f"| `{key}` |" in page, key
