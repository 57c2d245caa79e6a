"""What a tracker is told, and what it must do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

#: Columns of the table of sampled responses, and its name.
RESPONSE_COLUMNS = ("prompt", "answer", "response", "reward", "stop reason")
RESPONSES = "evaluation/responses"
#: A row of it, in this order.
Response = tuple[str, str, str, float | None, str]


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """The run that a tracker shows.

    Attributes:
        directory: the run's directory; a tracker may keep its files in ``directory/NAME``.
        id: the same whenever the run is resumed, and no other run's.
        project: what hosted trackers file the run under.
        config: the resolved configuration, plain values.
        resumed: whether the run goes on, in the tracker too.
        first: the smallest step that will be logged from now on; a resumed run may have logged beyond it before.
    """

    directory: Path
    id: str
    project: str
    config: dict[str, Any]
    resumed: bool = False
    first: int = 0

    @property
    def name(self) -> str:
        """Readable and, through the id, unlike that of a run of the same directory name elsewhere."""
        return f"{self.directory.name}-{self.id}"


class Tracker(Protocol):
    """Any call may raise whatever the tracker's package raises."""

    def start(self, run: TrackedRun) -> str:
        """Open or reopen the run; says where a person finds it."""
        ...

    def log(self, step: int, scalars: dict[str, float], responses: Sequence[Response] = ()) -> None:
        """Show ``scalars`` (name → finite value), and the table of ``responses`` if there are some, at ``step``, which
        never falls between calls and may repeat."""
        ...

    def alert(self, step: int, title: str, text: str) -> None:
        """Tell the user at once what is wrong with the run."""
        ...

    def keep(self, report: Path) -> None:
        """Keep ``report``, a file of the run's directory, with the run; called before :meth:`finish`."""
        ...

    def finish(self, status: str) -> None:
        """Close the run as ``finished``, ``interrupted`` or ``failed``, once everything logged is on its way."""
        ...
