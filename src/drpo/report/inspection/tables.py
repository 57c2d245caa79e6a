"""The tables of the inspection page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from drpo.inspection.compare import Compared, Comparison
from drpo.inspection.result import VERDICTS, Inspection, Verdict
from drpo.report.html.escape import visible, visible_plain
from drpo.report.html.frame import Section
from drpo.report.html.quantities import percent, plain
from drpo.report.html.table import Cell, Column, Row, number, share, table

#: Longest text of a token, or of its neighbors, that is written out.
LONGEST = 60
#: Meaning of each verdict, for the legend.
MEANING = ("w = 0", "0 < w < 1", "w = 1 within 1 %", "w > 1", "w < 0")


def mu_bins(found: Inspection) -> str:
    """Quantiles of r and |π − μ|, by bin of μ."""
    columns = [
        Column("μ", words=True),
        Column("tokens"),
        Column("r at 5 %", "the ratio below which 5 % of the tokens lie"),
        Column("r median"),
        Column("r at 95 %"),
        Column("|π − μ| median"),
        Column("at 95 %"),
        Column("at 99 %"),
        Column("beyond δ", "share of these tokens with |π − μ| > δ"),
    ]
    rows = [
        Row(
            [
                Cell(f"{plain(b.low)} – {plain(b.high)}", f"{b.high:.9g}"),
                share(b.share),
                *map(number, (b.ratio_p05, b.ratio_p50, b.ratio_p95, b.shift_p50, b.shift_p95, b.shift_p99)),
                share(b.beyond_delta),
            ]
        )
        for b in found.mu_bins
    ]
    return table("tokens by μ", columns, rows)


def objectives_table(found: Inspection, names: Sequence[str], caption: str, by_sign: bool = True) -> str:
    """A row for each objective: what it does to the tokens and to the gradient.

    Args:
        found: the inspection.
        names: of the objectives.
        caption: of the table.
        by_sign: whether there are columns for Â > 0 and Â < 0.
    """
    columns = [
        Column("objective", words=True),
        Column("tokens", "share of tokens by gradient weight", words=True),
        *(Column(name, meaning) for name, meaning in zip(VERDICTS, MEANING, strict=True)),
        Column("gradient changed", "Σ |Â r| |w − 1| / Σ |Â r|"),
        *([Column("where Â > 0"), Column("where Â < 0")] if by_sign else []),
    ]
    by_name = {verdict.objective: verdict for verdict in found.verdicts}
    rows = [Row(_verdict(by_name[name])[: len(columns)], own=name == found.objective) for name in names]
    return table(caption, columns, rows)


def _verdict(verdict: Verdict) -> list[Cell]:
    name = f"<b>{visible(verdict.objective)}</b><span class='soft given'>{visible(verdict.parameters, LONGEST)}</span>"
    return [
        Cell(name, verdict.objective),
        Cell(bar(verdict.tokens, f"{verdict.objective}, tokens"), f"{1 - verdict.tokens[2]:.9g}"),
        *map(share, verdict.tokens),
        share(verdict.changed),
        share(verdict.changed_positive),
        share(verdict.changed_negative),
    ]


def legend() -> str:
    """What the colors of the bars mean."""
    keys = "".join(
        f"<span class='nowrap'><span class='key v{i}'>■</span> {name} ({meaning})</span> "
        for i, (name, meaning) in enumerate(zip(VERDICTS, MEANING, strict=True))
    )
    return f"<p class='soft'>{keys}</p>"


def bar(shares: Sequence[float], label: str) -> str:
    """A stacked bar from 0 to 1, in the colors of the verdicts."""
    parts, at = [], 0.0
    for i, part in enumerate(shares):
        if part > 0:
            parts.append(f"<path class='v{i}' d='M{100 * at:.2f} 0H{100 * (at + part):.2f}V10H{100 * at:.2f}Z'/>")
        at += part
    said = ", ".join(f"{name} {percent(part)}" for name, part in zip(VERDICTS, shares, strict=True) if part > 0)
    return (
        f"<svg class='bar' viewBox='0 0 100 10' preserveAspectRatio='none' role='img' "
        f"aria-label='{visible_plain(label, LONGEST)}: {said}'><title>{said}</title>{''.join(parts)}</svg>"
    )


def not_evaluated(found: Inspection) -> str:
    """Which objectives are missing, and why."""
    if not found.not_evaluated:
        return ""
    reasons = "; ".join(f"<b>{visible(name)}</b> {visible(why)}" for name, why in found.not_evaluated.items())
    return f"<p class='soft'>Not evaluated: {reasons}.</p>"


def affected(found: Inspection) -> Section | None:
    """The tokens whose gradient the reference objective changes most."""
    if not found.affected:
        return None
    columns = [
        Column("token in its text", words=True),
        Column("where", words=True),
        Column("Â"),
        Column("μ"),
        Column("π"),
        Column("w", "gradient weight"),
        Column("|Â r| |w − 1|"),
    ]
    rows = [
        Row(
            [
                Cell(
                    f"<bdi class='said'><span class='soft'>{_line(token.before)}</span>"
                    f"<b>{_line(token.text or token.token or '–')}</b>"
                    f"<span class='soft'>{_line(token.after)}</span></bdi>"
                ),
                Cell((f"step {token.step}, " if token.step is not None else "") + f"row {token.row}"),
                *map(number, (token.advantage, token.mu, token.pi, token.weight, token.change)),
            ]
        )
        for token in found.affected
    ]
    said = f"<p class='soft'>Tokens whose gradient <code>{visible(found.reference)}</code> changes most.</p>"
    return Section("Most affected tokens", said + table("most affected tokens", columns, rows), folded=True)


def comparison(compared: Comparison | None) -> Section | None:
    """The section that puts another log beside this one; None without one."""
    if compared is None:
        return None
    only = "".join(
        f"<li>Only in {where}: {visible(title)}</li>"
        for where, titles in (("this log", compared.findings_here), ("the other", compared.findings_there))
        for title in titles
    )
    said = "".join(f"<p>{visible(text)}</p>" for text in (compared.answer, *compared.caveats()))
    return Section(
        f"Against {compared.against}",
        f"{said}<ul class='notes'>{only}</ul>"
        f"{_side_by_side('figures of both logs', compared.figures, plain)}"
        f"<h3>Share of the gradient that an objective changes</h3>"
        f"{_side_by_side('gradient changed in both logs', compared.changed, percent)}",
        name="against",
    )


def _side_by_side(caption: str, rows: Iterable[Compared], write: Callable[[float | None], str]) -> str:
    columns = [Column("name", words=True), Column("this log"), Column("the other"), Column("difference")]
    cells = (
        [Cell(f"<code>{visible(row.name)}</code>"), *(number(value, write) for value in _both(row))] for row in rows
    )
    return table(caption, columns, [Row(row) for row in cells])


def _both(row: Compared) -> tuple[float | None, float | None, float | None]:
    return row.here, row.there, row.difference


def compared_cells(row: Compared, write: Callable[[float | None], str]) -> tuple[str, str, str, str]:
    """Name, both values and their difference, as text."""
    here, there, difference = _both(row)
    return row.name, write(here), write(there), write(difference)


def _line(text: str) -> str:
    """On one line: a row of the table is one token."""
    return visible(text.replace("\n", "↵"), LONGEST)
