"""The page of `drpo inspect`: one self-contained HTML file, from plain data. The answer first, details below it."""

from __future__ import annotations

from collections.abc import Sequence

from drpo.inspection.answer import shown_first
from drpo.inspection.compare import Comparison
from drpo.inspection.result import Finding, Inspection, Verdict
from drpo.report.html.escape import visible
from drpo.report.html.frame import Section, document
from drpo.report.html.quantities import percent, plain, with_exponents
from drpo.report.inspection.agreement import agreement
from drpo.report.inspection.courses import by_step, by_update
from drpo.report.inspection.tables import affected, comparison, legend, mu_bins, not_evaluated, objectives_table
from drpo.report.inspection.tokens import tokens
from drpo.report.inspection.words import figures_table
from drpo.report.run.histograms import Histogram, draw_shares

#: Longest file name that is written out, and most files that are named.
LONGEST, MOST_FILES = 200, 3
#: Findings that are shown at once.
MOST_FINDINGS = 5


def build_inspection_page(found: Inspection, compared: Comparison | None = None, refresh: int | None = None) -> str:
    """The page as HTML: no script but the page's own, no request, the same bytes for the same inspection.

    ``refresh``: seconds after which the browser loads the page again, of a log that is followed; None: never.
    """
    return document(
        found.answer.sentence,
        _head(found),
        [
            _findings(found),
            _own(found),
            comparison(compared),
            tokens(found),
            _figures(found),
            _distributions(found),
            by_step(found),
            by_update(found),
            _by_mu(found),
            _all_objectives(found),
            agreement(found),
            affected(found),
        ],
        refresh,
    )


def _head(found: Inspection) -> str:
    names = ", ".join(f"<code>{visible(name, LONGEST)}</code>" for name in found.files[:MOST_FILES])
    more = f" and {len(found.files) - MOST_FILES:,} more" if len(found.files) > MOST_FILES else ""
    layouts = visible(" and ".join(found.layouts), LONGEST)
    return (
        "<p class='soft'>Is the trust region doing anything?</p>"
        f"<h1>{visible(found.answer.sentence)}</h1>"
        f"<p class='soft'>{found.tokens:,} tokens of {found.sequences:,} responses in {names}{more}"
        f"{f', read as {layouts}' if layouts else ''}. {_left_out(found)}</p>"
    )


def _left_out(found: Inspection) -> str:
    """What no figure counts."""
    parts = []
    if found.unusable_tokens:
        parts.append(f"{found.unusable_tokens:,} tokens with invalid log-probabilities")
    if found.masks:
        parts.append(f"{found.masked_tokens:,} tokens by {visible(' and '.join(found.masks), LONGEST)}")
    return f"Excluded: {', '.join(parts)}." if parts else ""


def _findings(found: Inspection) -> Section:
    if not found.findings:
        return Section("Findings", "<p>No fault found in the log.</p>")
    first, rest = found.findings[:MOST_FINDINGS], found.findings[MOST_FINDINGS:]
    more = "finding" if len(rest) == 1 else "findings"
    folded = f"<details><summary>{len(rest)} more {more}</summary>{_listed(rest)}</details>" if rest else ""
    return Section("Findings", _listed(first) + folded)


def _listed(findings: Sequence[Finding]) -> str:
    items = (
        f"<li{'' if f.severity == 'note' else ' class=warn'}><b>{visible(with_exponents(f.title))}</b> "
        f"<span class='soft'>({f.severity})</span><br>{visible(with_exponents(f.evidence))}<br>"
        f"<b>Fix:</b> {visible(f.fix)}</li>"
        for f in findings
    )
    return f"<ul class='notes'>{''.join(items)}</ul>"


def _own(found: Inspection) -> Section:
    by_name = {verdict.objective: verdict for verdict in found.verdicts}
    names = shown_first(list(by_name), found.objective) or list(by_name)[:5]
    return Section(
        "What the objectives do to these tokens",
        f"<p>{_in_words(by_name[names[0]])}</p>{legend()}"
        + objectives_table(found, names, "the objective and its neighbors", by_sign=False),
        name="objective",
    )


def _in_words(verdict: Verdict) -> str:
    """What an objective does, as a sentence."""
    masked, damped, _, amplified, corrective = verdict.tokens
    kinds = (
        ("masks {}", masked),
        ("damps {}", damped),
        ("amplifies {}", amplified),
        ("reverses {} (w < 0)", corrective),
    )
    done = [verb.format(percent(part)) for verb, part in kinds if part > 0]
    changes = f"<code>{visible(verdict.objective)}</code> changes {percent(verdict.changed)} of the gradient."
    if not done:
        return f"{changes} It leaves every token as it is."
    what = f"{', '.join(done[:-1])} and {done[-1]}" if len(done) > 1 else done[0]
    return f"{changes} It {what} of the tokens; the others keep the gradient of the plain surrogate."


def _figures(found: Inspection) -> Section:
    suggested = found.suggested_delta
    return Section(
        "Figures in words",
        f"<p><b>Suggested δ: {plain(suggested.value)}</b> {visible(suggested.reason)}</p>{figures_table(found)}"
        f"<p class='soft'>Temperature of π / temperature of μ: {_temperature(found)}.</p>",
        name="figures",
    )


def _temperature(found: Inspection) -> str:
    if found.temperature is None:
        return "not estimated, because too few tokens tell it"
    t = found.temperature
    return f"{t.value:.3f} (95 % confidence interval {t.low:.3f} to {t.high:.3f})"


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
    return Section("How far π has moved", f"<div class='charts'>{charts}</div>", name="distributions")


def _shares(counts: list[int]) -> list[float]:
    return [count / max(sum(counts), 1) for count in counts]


def _by_mu(found: Inspection) -> Section:
    return Section(
        "By the behavior policy's probability μ",
        "<p>A rare token's ratio changes much while its probability changes little. Bounds on the ratio and bounds on "
        f"|π − μ| differ most on such tokens.</p>{mu_bins(found)}",
        name="by-mu",
    )


def _all_objectives(found: Inspection) -> Section:
    names = [verdict.objective for verdict in found.verdicts]
    return Section(
        "All objectives",
        "<p>The weight w scales the plain surrogate's gradient Â r ∇log π, and “gradient changed” is "
        "Σ |Â r| |w − 1| / Σ |Â r|. Tokens with Â = 0 have no gradient and are excluded.</p>"
        f"{legend()}{objectives_table(found, names, 'all objectives')}{not_evaluated(found)}",
        name="objectives",
        folded=True,
    )
