"""The page of `drpo inspect`: one self-contained static HTML file, from plain data."""

from __future__ import annotations

from drpo.inspection.compare import Comparison
from drpo.inspection.result import Inspection
from drpo.report.html.escape import visible
from drpo.report.html.quantities import finite, percent, plain
from drpo.report.html.style import document
from drpo.report.inspection.tables import affected, agreement, comparison, mu_bins, verdicts
from drpo.report.run.histograms import Histogram, draw_shares
from drpo.report.svg.charts import Chart, Line, draw
from drpo.report.svg.points import Point

#: Longest file name that is written out, and most files that are named.
LONGEST, MOST_FILES = 200, 5
#: Objectives whose curve over steps is drawn: those that change the gradient most.
MOST_LINES = 4


def build_inspection_page(found: Inspection, compared: Comparison | None = None) -> str:
    """The page as HTML: no script, no request, the same bytes for the same inspection."""
    return document(
        "Is the trust region doing anything?",
        [
            _head(found),
            _findings(found),
            comparison(compared),
            _distributions(found),
            verdicts(found),
            _courses(found),
            agreement(found),
            affected(found),
        ],
    )


def _head(found: Inspection) -> str:
    names = ", ".join(f"<code>{visible(name, LONGEST)}</code>" for name in found.files[:MOST_FILES])
    more = f" and {len(found.files) - MOST_FILES:,} more" if len(found.files) > MOST_FILES else ""
    f = {name: finite(value) for name, value in found.figures.items()}
    suggested = found.suggested_delta
    facts = {
        "tokens": f"{found.tokens:,} of {found.sequences:,} responses",
        "read as": visible(" and ".join(found.layouts), LONGEST),
        "excluded": _left_out(found),
        "μ ≤ 0.01": percent(f["rare_share"]),
        "diverging, Â(r − 1) > 0": percent(f["diverging_share"]),
        "ratio r": f"mean {plain(f['ratio'])}, {plain(f['ratio_min'])} to {plain(f['ratio_max'])}",
        "|π − μ|": f"mean {plain(f['shift'])}, at most {plain(f['shift_max'])}",
        "|log π − log μ|": f"mean {plain(f['mismatch'])} nats, at most {plain(f['mismatch_max'])}",
        "T of π / T of μ": _temperature(found),
    }
    listed = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in facts.items())
    return (
        f"<header><h1>{visible(found.answer.sentence)}</h1><p class='soft'>{names}{more}</p></header>"
        f"<div class='lead'><div><p class='result'>{percent(f['beyond_delta'])}</p>"
        f"<p class='soft'>of tokens have |π − μ| > δ = {plain(found.delta)}</p>"
        f"<p><b>Suggested δ: {plain(suggested.value)}</b><br>{visible(suggested.reason)}</p></div>"
        f"<dl>{listed}</dl></div>"
    )


def _left_out(found: Inspection) -> str:
    masked = f", {found.masked_tokens:,} by {visible(' and '.join(found.masks), LONGEST)}" if found.masks else ""
    return f"{found.unusable_tokens:,} tokens with invalid log-probabilities{masked}"


def _temperature(found: Inspection) -> str:
    if found.temperature is None:
        return "not estimated: too few tokens"
    t = found.temperature
    return f"{t.value:.3f} (95 % confidence interval {t.low:.3f} to {t.high:.3f})"


def _findings(found: Inspection) -> str:
    items = "".join(
        f"<li{'' if f.severity == 'note' else ' class=warn'}><b>{visible(f.title)}</b> "
        f"<span class='soft'>({f.severity})</span><br>{visible(f.evidence)}<br><i class='fix'>Fix:</i> "
        f"{visible(f.fix)}</li>"
        for f in found.findings
    )
    if not items:
        items = "<li>No fault found.</li>"
    return f"<section><h2>Findings</h2><ul class='notes'>{items}</ul></section>"


def _distributions(found: Inspection) -> str:
    mu = Histogram(
        "mu",
        "Probability μ of the sampled token",
        "share of tokens per bin, a tenth of a decade wide.",
        tuple(found.mu_edges),
        rules=((0.01, "0.01"),),
        log=True,
    )
    rules = ((found.delta, f"δ = {plain(found.delta)}"),) if found.delta <= 1 else ()
    shift = Histogram(
        "shift",
        "|π − μ|",
        "share of tokens per bin, a tenth of a decade wide.",
        tuple(found.shift_edges),
        rules=rules,
        log=True,
    )
    charts = draw_shares(mu, [("", _shares(found.mu_counts))]) + draw_shares(shift, [("", _shares(found.shift_counts))])
    return (
        f"<section><h2>How far π has moved</h2><div class='charts'>{charts}</div>"
        f"<h2>By the behavior policy's probability μ</h2>"
        f"<p class='soft'>A rare token's ratio changes much while its probability changes little. Bounds on the ratio "
        f"and bounds on |π − μ| differ most on such tokens.</p>{mu_bins(found)}</section>"
    )


def _shares(counts: list[int]) -> list[float]:
    return [count / max(sum(counts), 1) for count in counts]


def _courses(found: Inspection) -> str:
    """Curves by step; nothing where the log has fewer than two steps."""
    if len(found.steps) < 2:
        return ""
    x = [float(step.step) for step in found.steps]
    by_change = sorted(found.verdicts, key=lambda verdict: -verdict.changed)[:MOST_LINES]
    lines = [
        Line(
            v.objective,
            [Point(at, value, None, None) for at, value in zip(x, v.changed_by_step, strict=True)],
            color=i + 1,
        )
        for i, v in enumerate(by_change)
        if v.changed > 0
    ]
    charts = [
        Chart("Mean |π − μ|", "of each step's tokens.", [_line(x, [step.shift for step in found.steps])]),
        Chart(
            "Tokens beyond δ",
            f"share of tokens with |π − μ| > {plain(found.delta)}.",
            [_line(x, [step.beyond_delta for step in found.steps])],
            text=percent,
        ),
        Chart(
            "Gradient change",
            "Σ |Â r| |w − 1| / Σ |Â r|, for the objectives that change it most.",
            lines,
            text=percent,
        ),
    ]
    figures = "".join(draw(chart, (x[0], x[-1])) for chart in charts)
    return f"<section><h2>By step</h2><div class='charts'>{figures}</div></section>"


def _line(x: list[float], y: list[float]) -> Line:
    return Line("", [Point(at, value, None, None) for at, value in zip(x, y, strict=True)])
