"""Which objectives treat the tokens alike: in a sentence, and as a square of colored cells."""

from __future__ import annotations

from collections.abc import Sequence

from drpo.inspection.result import Inspection
from drpo.report.html.escape import visible
from drpo.report.html.frame import Section
from drpo.report.html.heat import heat_map, whole_percent

#: Objectives of one group treat this share of the tokens alike, each with each.
ALIKE = 0.99


def agreement(found: Inspection) -> Section | None:
    """The section; None with fewer than two objectives."""
    if len(found.verdicts) < 2:
        return None
    names = [verdict.objective for verdict in found.verdicts]
    groups = clusters(found.agreement)
    order = [place for group in groups for place in group]
    shares = [[found.agreement[row][column] for column in order] for row in order]
    return Section(
        "Which objectives agree",
        f"<p>{_sentence(names, found.agreement, groups)}</p><p class='soft'>Two objectives agree on a token that is "
        "masked, damped, unchanged, amplified or corrective under both. The darker a cell, the more they agree; "
        "half of the tokens or fewer is palest. Objectives of one group stand together.</p>"
        + heat_map("agreement of objectives", [names[place] for place in order], shares, lowest=0.5),
        name="agreement",
    )


def clusters(shares: Sequence[Sequence[float]], alike: float = ALIKE) -> list[list[int]]:
    """Places of ``shares`` ``[K, K]`` in groups in which each pair agrees on ``alike`` at least, the largest first."""
    groups: list[list[int]] = []
    for place in range(len(shares)):
        fitting = [group for group in groups if all(shares[place][other] >= alike for other in group)]
        best = max(fitting, key=lambda group: sum(shares[place][other] for other in group) / len(group), default=None)
        if best is None:
            groups.append([place])
        else:
            best.append(place)
    return sorted(groups, key=lambda group: -len(group))


def _sentence(names: Sequence[str], shares: Sequence[Sequence[float]], groups: Sequence[Sequence[int]]) -> str:
    """Which objectives agree, and which two agree least."""
    said = []
    for group in groups:
        if len(group) > 1:
            least = min(shares[a][b] for a in group for b in group)
            said.append(f"{_listed([names[place] for place in group])} agree on {whole_percent(least)} of the tokens")
    if not said:
        said.append(f"No two objectives agree on {whole_percent(ALIKE)} of the tokens")
    a, b = min(
        ((a, b) for a in range(len(names)) for b in range(a)),
        key=lambda pair: shares[pair[0]][pair[1]],
    )
    least = f"{_listed([names[b], names[a]])} agree least, on {whole_percent(shares[a][b])}"
    return f"{'; '.join(said)}. {least}."


def _listed(names: Sequence[str]) -> str:
    coded = [f"<code>{visible(name)}</code>" for name in names]
    return coded[0] if len(coded) == 1 else f"{', '.join(coded[:-1])} and {coded[-1]}"
