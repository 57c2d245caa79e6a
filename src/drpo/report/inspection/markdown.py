"""An inspection as Markdown: for the summary of a CI job or a comment on a change."""

from __future__ import annotations

from collections.abc import Sequence

from drpo.inspection.answer import shown_first
from drpo.inspection.compare import Comparison
from drpo.inspection.gate import Check
from drpo.inspection.result import Inspection
from drpo.report.html.quantities import finite, percent, plain
from drpo.report.inspection.tables import compared_cells

#: Figures in the order of the table, with their names for a reader.
FIGURES = {
    "beyond_delta": "tokens with \\|π − μ\\| > δ",
    "diverging_share": "diverging, Â(r − 1) > 0",
    "rare_share": "tokens with μ ≤ 0.01",
}


def markdown(found: Inspection, checks: Sequence[Check], compared: Comparison | None = None) -> str:
    """The answer, the findings, the gate, the objectives that are shown first, and the other log if there is one."""
    lines = [f"**{escaped(found.answer.sentence)}**", ""]
    lines += [
        f"{found.tokens:,} tokens of {found.sequences:,} responses, δ = {plain(found.delta)}, suggested δ "
        f"{plain(found.suggested_delta.value)}.",
        "",
    ]
    for check in checks:
        lines.append(f"- {'failed' if check.failure else 'passed'} `{check.name}` {escaped(check.failure)}".rstrip())
    lines += [""] if checks else []
    for finding in found.findings:
        lines.append(
            f"- **{finding.severity}** {escaped(finding.title)}. {escaped(finding.evidence)} "
            f"*Fix:* {escaped(finding.fix)}"
        )
    figures = {name: finite(found.figures[name]) for name in FIGURES}
    lines += ["", "| figure | share of tokens |", "| --- | --- |"]
    lines += [f"| {title} | {percent(figures[name])} |" for name, title in FIGURES.items()]
    lines += ["", "| objective | masked | damped | corrective | gradient changed |", "| --- | --- | --- | --- | --- |"]
    by_name = {verdict.objective: verdict for verdict in found.verdicts}
    for name in shown_first(list(by_name), found.objective):
        masked, damped, _, _, corrective = by_name[name].tokens
        shares = (masked, damped, corrective, by_name[name].changed)
        lines.append(f"| `{name}` | {' | '.join(percent(share) for share in shares)} |")
    if compared is not None:
        said = " ".join((compared.answer, *compared.caveats()))
        lines += ["", f"Against {escaped(compared.against)}: {escaped(said)}", ""]
        lines += ["| figure | this log | the other | difference |", "| --- | --- | --- | --- |"]
        lines += [f"| {' | '.join(compared_cells(row, plain))} |" for row in compared.figures]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """``text`` without the characters that Markdown or HTML would read; names of columns come from the log."""
    for character in "\\`*_{}[]<>|#":
        text = text.replace(character, f"\\{character}")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
