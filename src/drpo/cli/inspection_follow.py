"""`drpo inspect --follow`: looks at a log again and again, until its run is over or the user stops it."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.live import Live
from rich.text import Text

from drpo.cli.inspection_tables import show
from drpo.cli.printing import PlainConsole
from drpo.errors import WriteError
from drpo.inspection.follow import Following
from drpo.inspection.result import Inspection

#: Seconds until the next look, if there was no news; if there was, at least and at most.
IDLE, SHORTEST, LONGEST = 2.0, 5.0, 10.0
#: Share of one CPU that looks and showing what was found may take; within the bounds above.
SHARE = 0.01
#: Seconds after which the page of a log that is followed is written again, and loaded again by a browser.
REFRESH = 10
#: Seconds in which a signal is noticed.
_NAP = 0.1


class View(Protocol):
    """Where the state of a log that is followed is shown."""

    def note(self, text: str) -> None:
        """Say something that happened."""
        ...

    def show(self, found: Inspection) -> None:
        """Show what was found so far."""
        ...


def watch(
    following: Following, everything: bool, chosen: bool, write_page: Callable[[Inspection], object]
) -> Inspection:
    """Show and write what is found, each time that something new was logged, until the log's run is over or a signal
    comes; returns what was found in the end.

    Args:
        following: the log.
        everything: all findings, objectives and tables are shown.
        chosen: the user chose the objectives, so that all of them are shown.
        write_page: writes the page of what was found so far. A disk that refuses is said, and asked again next time.

    Raises:
        DataError: the log is malformed, or nothing was counted.
    """
    with _view(everything, chosen) as view, _stop_on_signal() as wait:
        said, page = "", _Page(write_page, view)
        while True:
            over, began = following.is_over(), time.process_time()
            news = following.look()
            _say_notes(following, view)
            if over and not following.is_behind:
                break
            if waits := following.waits_for():
                if waits != said:
                    view.note(f"waiting for {waits}")
                said = waits
            elif news:
                began = time.process_time()
                found = following.result()
                view.show(found)
                page.show(found)
            page.write()
            pause = max(SHORTEST if news else IDLE, (time.process_time() - began) / SHARE)
            if wait(0.0 if following.is_behind else min(pause, LONGEST)):
                break
        following.finish()
        _say_notes(following, view)
    return following.result()


class _Page:
    """Writes the page of what was found last, at once and then every :data:`REFRESH` seconds, if there is news."""

    def __init__(self, write_page: Callable[[Inspection], object], view: View):
        self._write_page, self._view = write_page, view
        self._found: Inspection | None = None
        self._due = 0.0
        self._refusal = ""

    def show(self, found: Inspection) -> None:
        self._found = found

    def write(self) -> None:
        """Write what is due; what the disk says against it is told once."""
        if self._found is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + REFRESH
        try:
            self._write_page(self._found)
        except WriteError as error:
            if str(error) != self._refusal:
                self._view.note(f"{error} It is tried again.")
            self._refusal = str(error)
        else:
            self._found, self._refusal = None, ""


def _say_notes(following: Following, view: View) -> None:
    for note in following.notes:
        view.note(note)
    following.notes.clear()


@contextmanager
def _view(everything: bool, chosen: bool) -> Iterator[View]:
    """A display that changes in place on a terminal; a line each time in a file or pipe."""
    console = PlainConsole()
    if not console.is_terminal:
        yield _Lines(console)
        console.say("")
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield _Display(live, everything, chosen)


class _Lines:
    """A line each time."""

    def __init__(self, console: PlainConsole):
        self._console = console

    def note(self, text: str) -> None:
        self._console.say(text)

    def show(self, found: Inspection) -> None:
        step = f"step {found.steps[-1].step}: " if found.steps else ""
        self._console.say(f"{step}{found.tokens:,} tokens of {found.sequences:,} responses. {found.answer.sentence}")


class _Display:
    """What `drpo inspect` prints, as much of it as the terminal has room for."""

    def __init__(self, live: Live, everything: bool, chosen: bool):
        self._live, self._everything, self._chosen = live, everything, chosen

    def note(self, text: str) -> None:
        self._live.console.print(text)

    def show(self, found: Inspection) -> None:
        console = self._live.console
        page = PlainConsole(
            file=io.StringIO(),
            width=console.width,
            force_terminal=True,
            color_system="truecolor" if console.color_system else None,
        )
        page.say("following; Ctrl-C ends with what was found so far\n", style="dim")
        show(found, page, everything=self._everything, chosen=self._chosen)
        assert isinstance(page.file, io.StringIO)
        self._live.update(Text.from_ansi(page.file.getvalue()), refresh=True)


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[float], bool]]:
    """Yield a function that waits for so many seconds, or until the first Ctrl-C (or SIGTERM), and returns whether that
    came. A second one stops at once."""
    asked = False

    def handle(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def wait(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _NAP))
        return asked

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
