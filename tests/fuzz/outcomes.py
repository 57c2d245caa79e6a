"""What may come of an input: a result, or one clear error."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from drpo.cli import main
from drpo.errors import LONGEST_LINE, DrpoError

#: Lines of one message: a configuration tells all of its problems at once.
MOST_LINES = 60


def outcome(call: Callable[[], Any]) -> tuple[Any, DrpoError | None, str | None]:
    """``(result, None, None)``, ``(None, a clear error, None)``, or ``(None, None, what went wrong)``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return call(), None, None
    except DrpoError as error:
        unclear = unclear_message(str(error))
        return (None, error, None) if unclear is None else (None, None, unclear)
    except (Exception, RecursionError) as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f" at {place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else ""
        return None, None, f"{type(error).__name__}: {str(error)[:300]}{where}"


def unclear_message(message: str) -> str | None:
    """What is wrong with the text of an error, if anything."""
    lines = message.split("\n")
    if not message.strip():
        return "an empty message"
    if len(lines) > MOST_LINES:
        return f"a message of {len(lines)} lines: {message[:300]!r}"
    if (longest := max(map(len, lines))) > LONGEST_LINE + 50:
        return f"a line of {longest} characters: {message[:300]!r}"
    if "This is a defect" in message or "Traceback (most recent" in message:
        return f"a defect: {message[:300]!r}"
    return None


def run_command(arguments: Sequence[str]) -> tuple[int, str, str | None]:
    """`drpo ARGUMENTS` in this process: its exit status, its error output, and what is wrong with both, if anything."""
    errors = io.StringIO()
    status = 0
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(errors),
        warnings.catch_warnings(),
        mock.patch.object(sys, "argv", ["drpo", *arguments]),
    ):
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    said = errors.getvalue()
    if status not in (0, 2):
        return status, said, f"exit status {status}: {said[:300]!r}"
    return status, said, unclear_message(said) if status == 2 else None
