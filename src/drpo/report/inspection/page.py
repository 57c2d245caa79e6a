"""The page of `drpo inspect`: one self-contained static HTML file, from plain data."""

from __future__ import annotations

from drpo.inspection.compare import Comparison
from drpo.inspection.result import Inspection
from drpo.report.html.escape import visible
from drpo.report.html.frame import Section, document
from drpo.report.html.quantities import finite, percent, plain
from drpo.report.inspection.agreement import agreement
from drpo.report.inspection.tables import affected, comparison, legend, mu_bins, not_evaluated, objectives_table
from drpo.report.palette import paint
from drpo.report.run.histograms import Histogram, draw_shares
from drpo.report.svg.charts import Chart, Line, draw
from drpo.report.svg.points import Point

#: Longest file name that is written out, and most files that are named.
LONGEST, MOST_FILES = 200, 5
#: Objectives whose curve over steps is drawn: those that change the gradient most.
MOST_LINES = 4


def build_inspection_page(found: Inspection, compared: Comparison | None = None) -> str:
    """The page as HTML: no script but the page's own, no request, the same bytes for the same inspection."""
    return document(
        "Is the trust region doing anything?",
        _head(found),
        [
            _findings(found),
            comparison(compared),
            _distributions(found),
            _by_mu(found),
            _objectives(found),
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
        f"<h1>{visible(found.answer.sentence)}</h1><p class='soft'>{names}{more}</p>"
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


def _findings(found: Inspection) -> Section:
    items = "".join(
        f"<li{'' if f.severity == 'note' else ' class=warn'}><b>{visible(f.title)}</b> "
        f"<span class='soft'>({f.severity})</span><br>{visible(f.evidence)}<br><i class='fix'>Fix:</i> "
        f"{visible(f.fix)}</li>"
        for f in found.findings
    )
    if not items:
        items = "<li>No fault found.</li>"
    return Section("Findings", f"<ul class='notes'>{items}</ul>")


def _distributions(found: Inspection) -> Section:
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
    return Section("How far π has moved", f"<div class='charts'>{charts}</div>")


def _by_mu(found: Inspection) -> Section:
    return Section(
        "By the behavior policy's probability μ",
        "<p class='soft'>A rare token's ratio changes much while its probability changes little. Bounds on the ratio "
        f"and bounds on |π − μ| differ most on such tokens.</p>{mu_bins(found)}",
        name="by-mu",
    )


def _objectives(found: Inspection) -> Section:
    names = [verdict.objective for verdict in found.verdicts]
    return Section(
        "What each objective does to these tokens",
        "<p class='soft'>The weight w scales the plain surrogate's gradient Â r ∇log π; mass is |Â r|; “changed” is "
        "Σ |Â r| |w − 1| / Σ |Â r|. Tokens with Â = 0 have no gradient and are excluded.</p>"
        f"{legend()}{objectives_table(found, names, 'objectives')}{not_evaluated(found)}",
        name="objectives",
    )


def _shares(counts: list[int]) -> list[float]:
    return [count / max(sum(counts), 1) for count in counts]


def _courses(found: Inspection) -> Section | None:
    """Curves by step; None where the log has fewer than two steps."""
    if len(found.steps) < 2:
        return None
    x = [float(step.step) for step in found.steps]
    by_change = sorted(found.verdicts, key=lambda verdict: -verdict.changed)[:MOST_LINES]
    lines = [
        Line(
            v.objective,
            [Point(at, value, None, None) for at, value in zip(x, v.changed_by_step, strict=True)],
            *paint(v.objective),
        )
        for v in by_change
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
    return Section("By step", f"<div class='charts'>{figures}</div>")


def _line(x: list[float], y: list[float]) -> Line:
    return Line("", [Point(at, value, None, None) for at, value in zip(x, y, strict=True)])
