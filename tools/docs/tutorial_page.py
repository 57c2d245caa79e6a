"""The blocks of docs/tutorial-inspect.md: what `drpo inspect` prints about the logs of examples/token_logs/."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from drpo.cli.app import app
from drpo.errors import DataError
from examples.token_logs import FOLDER
from tools import ROOT

#: What the terminal shows below this is in every log; the page has it in the first block alone.
FIGURES = "\nFigures  over"
WIDTH = 112


def block(name: str, whole: bool = False) -> Callable[[], str]:
    """What makes the block of a log.

    Args:
        name: of the log, a folder.
        whole: with the figures and the table; else the answer, the findings and the suggested δ.
    """

    def make() -> str:
        command, said = printed(name)
        if not whole:
            said = said.partition(FIGURES)[0].rstrip() + "\n…"
        return f"```\n$ {command}\n{said}\n```"

    return make


def printed(name: str) -> tuple[str, str]:
    """The command and its output, without the place of the page.

    Raises:
        DataError: the command fails.
    """
    log = (FOLDER / name).relative_to(ROOT)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(ROOT):
        page = ["--html", str(Path(folder) / "page.html")]
        found = CliRunner().invoke(app, ["inspect", str(log), *page], env={"COLUMNS": str(WIDTH)})
    if found.exit_code:
        raise DataError(f"drpo inspect {log} ended with status {found.exit_code}: {found.output}")
    lines = [line.rstrip() for line in found.stdout.partition("\npage  ")[0].rstrip().splitlines()]
    return f"drpo inspect {log}", "\n".join(lines)
