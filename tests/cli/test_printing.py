"""Whatever a name, a title or an error holds is printed as text: no markup, no escape codes, no reordering."""

from __future__ import annotations

import ast
import io
import json
import sys
from pathlib import Path

import pytest
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

import drpo.cli
from drpo.cli import main
from drpo.cli.printing import PlainConsole, write_json

HOSTILE = "p[bold]q[/x] :smile: \x1b[31mred\x1b]0;title\x07 \x9b2J \u202edcba\u2066 \r over"
SHOWN = "p[bold]q[/x] :smile: \\u001b[31mred\\u001b]0;title\\u0007 \\u009b2J \\u202edcba\\u2066 \\u000d over"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("how", ["print", "say", "text", "cell", "header", "padding"])
def test_text_is_never_markup_nor_control(how: str, terminal: bool) -> None:
    stream = io.StringIO()
    console = PlainConsole(file=stream, force_terminal=terminal, color_system=None, width=200)
    table = Table(HOSTILE if how == "header" else "name", box=None)
    table.add_row(HOSTILE if how == "cell" else "row")
    if how == "say":
        console.say(HOSTILE, style="bold")
    else:
        console.print({"print": HOSTILE, "text": Text(HOSTILE), "padding": Padding(Text(HOSTILE), 1)}.get(how, table))
    # rich itself leaves bell and carriage return out of a Text
    assert (SHOWN if how not in ("text", "padding") else SHOWN[:41]) in stream.getvalue()
    assert not set("\x07\x9b\u202e\u2066\r") & set(stream.getvalue())


def test_json_keeps_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    write_json({"text": HOSTILE, "figure": float("nan"), "μ": 1})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {"text": HOSTILE, "figure": None, "μ": 1}
    assert "μ" in printed and not set("\x1b\x07\x9b\u202e") & set(printed)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--resume", f"dir{HOSTILE}"],
        ["train", f"seed{HOSTILE}=1"],
        ["train", f"model={HOSTILE}", "task=copy"],
        ["eval", f"absent{HOSTILE}"],
        ["report", f"absent{HOSTILE}"],
        ["inspect", f"absent{HOSTILE}.jsonl"],
        [f"command{HOSTILE}"],
        ["train", f"--option{HOSTILE}"],
    ],
)
def test_messages_of_refusals_are_cleaned(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["drpo", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    errors = capsys.readouterr().err
    assert stop.value.code == 2, errors
    assert "p[bold]q[/x]" in errors and not set("\x1b\x07\x9b\u202e\u2066\r") & set(errors)


def test_nothing_else_in_the_command_line_makes_a_console() -> None:
    for file in Path(drpo.cli.__file__).parent.glob("*.py"):
        if file.name == "printing.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich"):
                assert not {"Console", "print"} & {alias.name for alias in node.names}, file
