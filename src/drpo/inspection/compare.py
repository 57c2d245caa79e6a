"""Two inspections side by side: two objectives, two engines, before and after a fix."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from drpo.inspection.answer import shown_first
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
        objective_here, objective_there: that each answer is about.
        delta_here, delta_there: the bounds on |π − μ| that tokens are counted against.
        only_here, only_there: objectives that one log alone could evaluate.
    """

    against: str
    answer: str
    figures: list[Compared] = field(default_factory=list)
    changed: list[Compared] = field(default_factory=list)
    findings_here: list[str] = field(default_factory=list)
    findings_there: list[str] = field(default_factory=list)
    objective_here: str = ""
    objective_there: str = ""
    delta_here: float = math.nan
    delta_there: float = math.nan
    only_here: list[str] = field(default_factory=list)
    only_there: list[str] = field(default_factory=list)

    def changed_first(self) -> list[Compared]:
        """Of ``changed``, the rows of both logs' own objectives and of four of the most used ones."""
        rows = {row.name: row for row in self.changed}
        names = dict.fromkeys(shown_first([*rows], self.objective_here))
        names.update(dict.fromkeys(name for name in (self.objective_there,) if name in rows))
        return [rows[name] for name in names] or self.changed

    def caveats(self) -> list[str]:
        """Where the two are not of the same kind, in sentences; empty if they are."""
        said = []
        if self.objective_here != self.objective_there:
            said.append(
                f"The answers are about two objectives: {self.objective_here} here, {self.objective_there} there."
            )
        if self.delta_here != self.delta_there:
            said.append(
                f"The bounds differ: δ = {self.delta_here:g} here, {self.delta_there:g} there. Each log's share beyond "
                "δ, and what objectives with a δ change, are at its own; --delta gives both the same."
            )
        for names, where in ((self.only_here, "this log"), (self.only_there, "the other log")):
            if names:
                said.append(f"Evaluated on {where} alone: {', '.join(names)}.")
        return said


def compare(here: Inspection, there: Inspection) -> Comparison:
    """``here`` against ``there``; of objectives that only one could evaluate there is the name alone."""
    mine, other = ({verdict.objective: verdict.changed for verdict in found.verdicts} for found in (here, there))
    titles = [{finding.name: finding.title for finding in found.findings} for found in (here, there)]
    return Comparison(
        against=there.files[0],
        answer=there.answer.sentence,
        figures=[Compared(name, _known(value), _known(there.figures[name])) for name, value in here.figures.items()],
        changed=[Compared(name, changed, other[name]) for name, changed in mine.items() if name in other],
        findings_here=[title for name, title in titles[0].items() if name not in titles[1]],
        findings_there=[title for name, title in titles[1].items() if name not in titles[0]],
        objective_here=here.objective,
        objective_there=there.objective,
        delta_here=here.delta,
        delta_there=there.delta,
        only_here=[name for name in mine if name not in other],
        only_there=[name for name in other if name not in mine],
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
