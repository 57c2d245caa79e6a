"""The tables of the inspection page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from drpo.inspection.compare import Compared, Comparison
from drpo.inspection.result import VERDICTS, Inspection
from drpo.report.html.escape import visible, visible_plain
from drpo.report.html.quantities import percent, plain

#: Longest text of a token, or of its neighbors, that is written out.
LONGEST = 60
#: Meaning of each verdict, for the legend.
MEANING = ("w = 0", "0 < w < 1", "w = 1 within 1 %", "w > 1", "w < 0")


def mu_bins(found: Inspection) -> str:
    """Quantiles of r and |π − μ|, by bin of μ."""
    heads = ("μ", "tokens", "r at 5 %", "median", "95 %", "|π − μ| median", "95 %", "99 %", "beyond δ")
    rows = (
        (
            f"{plain(b.low)} – {plain(b.high)}",
            percent(b.share),
            plain(b.ratio_p05),
            plain(b.ratio_p50),
            plain(b.ratio_p95),
            plain(b.shift_p50),
            plain(b.shift_p95),
            plain(b.shift_p99),
            percent(b.beyond_delta),
        )
        for b in found.mu_bins
    )
    return _grid(heads, rows)


def verdicts(found: Inspection) -> str:
    """One row an objective: what it does to the tokens and to the gradient."""
    legend = "".join(
        f"<span class='key v{i}'>■</span> {name} ({meaning}) "
        for i, (name, meaning) in enumerate(zip(VERDICTS, MEANING, strict=True))
    )
    heads = ("objective", "tokens", *VERDICTS, "gradient mass", "changed", "Â > 0", "Â < 0")
    rows = (
        (
            f"<b>{visible(v.objective)}</b><br><span class='soft'>{visible(v.parameters, LONGEST)}</span>",
            bar(v.tokens, f"{v.objective}, tokens"),
            *(percent(share) if share else "–" for share in v.tokens),
            bar(v.mass, f"{v.objective}, gradient mass"),
            percent(v.changed),
            percent(v.changed_positive),
            percent(v.changed_negative),
        )
        for v in found.verdicts
    )
    return (
        "<section><h2>What each objective does to these tokens</h2>"
        "<p class='soft'>The weight w scales the plain surrogate's gradient Â r ∇log π; mass is |Â r|; “changed” is "
        "Σ |Â r| |w − 1| / Σ |Â r|. Tokens with Â = 0 have no gradient and are excluded.</p>"
        f"<p class='soft'>{legend}</p>{_grid(heads, rows)}{_left_out(found)}</section>"
    )


def bar(shares: Sequence[float], label: str) -> str:
    """A stacked bar from 0 to 1, in the colors of the verdicts."""
    parts, at = [], 0.0
    for i, share in enumerate(shares):
        if share > 0:
            parts.append(f"<path class='v{i}' d='M{100 * at:.2f} 0H{100 * (at + share):.2f}V10H{100 * at:.2f}Z'/>")
        at += share
    said = ", ".join(f"{name} {percent(share)}" for name, share in zip(VERDICTS, shares, strict=True) if share > 0)
    return (
        f"<svg class='bar' viewBox='0 0 100 10' preserveAspectRatio='none' role='img' "
        f"aria-label='{visible_plain(label, LONGEST)}: {said}'>{''.join(parts)}</svg>"
    )


def _left_out(found: Inspection) -> str:
    if not found.not_evaluated:
        return ""
    reasons = "; ".join(f"<b>{visible(name)}</b> {visible(why)}" for name, why in found.not_evaluated.items())
    return f"<p class='soft'>Not evaluated: {reasons}.</p>"


def agreement(found: Inspection) -> str:
    """The matrix of objectives against objectives."""
    if len(found.verdicts) < 2:
        return ""
    names = [visible(verdict.objective) for verdict in found.verdicts]
    heads = "".join(f"<th scope='col'><span>{name}</span></th>" for name in names)
    rows = "".join(
        f"<tr><th scope='row'>{name}</th>{''.join(_shaded(share) for share in row)}</tr>"
        for name, row in zip(names, found.agreement, strict=True)
    )
    return (
        "<section><h2>Agreement of objectives</h2><p class='soft'>Percentage of tokens that two objectives treat alike "
        "(masked, damped, unchanged, amplified or corrective under both).</p>"
        f"<div class='scroll'><table class='matrix'><tr><td></td>{heads}</tr>{rows}</table></div></section>"
    )


def _shaded(share: float) -> str:
    # From half up: objectives that agree on less are all equally pale.
    strength = round(60 * max(0.0, share - 0.5) / 0.5)
    return f"<td style='background:color-mix(in srgb,var(--c1) {strength}%,transparent)'>{_whole(share)}</td>"


def _whole(share: float) -> str:
    """A percentage without decimals that never rounds to 100 what is less."""
    return "100" if share == 1 else f"{min(99.9, 100 * share):.3g}" if share > 0.99 else f"{100 * share:.0f}"


def affected(found: Inspection) -> str:
    """The tokens whose gradient the reference objective changes most."""
    if not found.affected:
        return ""
    heads = ("token in its text", "where", "Â", "μ", "π", "w", "|Â r| |w − 1|")
    rows = (
        (
            f"<bdi class='said'><span class='soft'>{_line(token.before)}</span>"
            f"<b>{_line(token.text or token.token or '–')}</b><span class='soft'>{_line(token.after)}</span></bdi>",
            (f"step {token.step}, " if token.step is not None else "") + f"row {token.row}",
            plain(token.advantage),
            plain(token.mu),
            plain(token.pi),
            plain(token.weight),
            plain(token.change),
        )
        for token in found.affected
    )
    return (
        f"<section><h2>Most affected tokens</h2><p class='soft'>Tokens whose gradient <code>{visible(found.reference)}"
        f"</code> changes most.</p>{_grid(heads, rows)}</section>"
    )


def comparison(compared: Comparison | None) -> str:
    """The section that puts another log beside this one; nothing without one."""
    if compared is None:
        return ""
    heads = ("", "this log", "the other", "difference")
    figures = [compared_cells(row, plain) for row in compared.figures]
    changed = [compared_cells(row, percent) for row in compared.changed]
    only = "".join(
        f"<li>Only in {where}: {visible(title)}</li>"
        for where, titles in (("this log", compared.findings_here), ("the other", compared.findings_there))
        for title in titles
    )
    return (
        f"<section><h2>Against <code>{visible(compared.against, 200)}</code></h2><p>{visible(compared.answer)}</p>"
        f"<ul class='notes'>{only}</ul>{_grid(heads, _coded(figures))}"
        f"<h3>Share of the gradient that an objective changes</h3>{_grid(heads, _coded(changed))}</section>"
    )


def _coded(rows: Iterable[Sequence[str]]) -> Iterable[Sequence[str]]:
    return ((f"<code>{visible(name)}</code>", *values) for name, *values in rows)


def compared_cells(row: Compared, write: Callable[[float | None], str]) -> tuple[str, str, str, str]:
    """Name, both values and their difference, as text."""
    return row.name, write(row.here), write(row.there), write(row.difference)


def _line(text: str) -> str:
    """On one line: a row of the table is one token."""
    return visible(text.replace("\n", "↵"), LONGEST)


def _grid(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A wide table that scrolls by itself; ``heads`` and cells are HTML."""
    head = "".join(f"<th scope='col'>{cell}</th>" for cell in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class='scroll'><table class='grid'><tr>{head}</tr>{body}</table></div>"
