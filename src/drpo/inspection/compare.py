"""Two inspections side by side: two objectives, two engines, before and after a fix."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from drpo.inspection.result import Inspection


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure of both logs; None where one has none."""

    name: str
    here: float | None
    there: float | None

    @property
    def difference(self) -> float | None:
        """``here`` − ``there``."""
        return None if self.here is None or self.there is None else self.here - self.there


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between a log and the one that it is held ``against``.

    Args:
        against: the other log's first file.
        answer: the other log's.
        figures: of ``drpo.diagnose``, in their order.
        changed: by objective, the share of the gradient that it changes.
        findings_here, findings_there: titles of the findings that one log alone has.
    """

    against: str
    answer: str
    figures: list[Compared] = field(default_factory=list)
    changed: list[Compared] = field(default_factory=list)
    findings_here: list[str] = field(default_factory=list)
    findings_there: list[str] = field(default_factory=list)


def compare(here: Inspection, there: Inspection) -> Comparison:
    """``here`` against ``there``; objectives that only one could evaluate are left out."""
    other = {verdict.objective: verdict.changed for verdict in there.verdicts}
    titles = [{finding.name: finding.title for finding in found.findings} for found in (here, there)]
    return Comparison(
        against=there.files[0],
        answer=there.answer.sentence,
        figures=[Compared(name, _known(value), _known(there.figures[name])) for name, value in here.figures.items()],
        changed=[
            Compared(verdict.objective, verdict.changed, other[verdict.objective])
            for verdict in here.verdicts
            if verdict.objective in other
        ],
        findings_here=[title for name, title in titles[0].items() if name not in titles[1]],
        findings_there=[title for name, title in titles[1].items() if name not in titles[0]],
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
