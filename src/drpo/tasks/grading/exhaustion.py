"""Noticing that code ran out of memory or stack although it caught the exception and went on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ERRORS = (MemoryError, RecursionError)
_TOOL = "drpo exhaustion"


@contextmanager
def watch_exhaustion() -> Iterator[set[str]]:
    """The names of the errors among MemoryError and RecursionError that were raised inside, caught or not.

    Python 3.12 reports every raise at next to no cost. Before it this traces every call: what runs inside takes about
    1.6 times as long.
    """
    raised: set[str] = set()
    yield from _monitored(raised) if sys.version_info >= (3, 12) else _traced(raised)


def _monitored(raised: set[str]) -> Iterator[set[str]]:
    monitoring: Any = getattr(sys, "monitoring")  # noqa: B009 - unknown to type checkers of Python 3.11
    tool = next(number for number in range(5, -1, -1) if monitoring.get_tool(number) is None)

    def note(code: Any, offset: int, error: BaseException) -> None:
        if isinstance(error, _ERRORS):
            raised.add(type(error).__name__)

    monitoring.use_tool_id(tool, _TOOL)
    try:
        monitoring.register_callback(tool, monitoring.events.RAISE, note)
        monitoring.set_events(tool, monitoring.events.RAISE)
        yield raised
    finally:
        monitoring.set_events(tool, 0)
        monitoring.register_callback(tool, monitoring.events.RAISE, None)
        monitoring.free_tool_id(tool)


def _traced(raised: set[str]) -> Iterator[set[str]]:
    def note(frame: Any, event: str, argument: Any) -> Any:
        frame.f_trace_lines = False
        if event == "exception" and issubclass(argument[0], _ERRORS):
            raised.add(argument[0].__name__)
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        yield raised
    finally:
        if sys.gettrace() is None:  # there was no stack left to call it, and Python took it out
            raised.add(RecursionError.__name__)
        sys.settrace(before)
