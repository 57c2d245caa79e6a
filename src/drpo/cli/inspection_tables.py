"""What `drpo inspect` prints: the answer, the findings, and the figures they rest on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from drpo.cli.printing import PlainConsole
from drpo.inspection.answer import shown_first
from drpo.inspection.compare import Comparison
from drpo.inspection.result import VERDICTS, Inspection, StepFigures, UpdateFigures
from drpo.report.html.quantities import finite, percent, plain
from drpo.report.inspection.tables import compared_cells

#: More objectives than this make a matrix too wide for a terminal; more steps or tokens than these, a table too long.
WIDEST_MATRIX, MOST_STEPS, MOST_TOKENS = 10, 12, 8
#: Findings that are printed without --all.
MOST_FINDINGS = 5
_STYLES = {"fault": "bold red", "warning": "yellow", "note": "cyan"}


def show(found: Inspection, console: PlainConsole, *, everything: bool, chosen: bool) -> None:
    """Print the answer, the findings, and the objectives.

    Args:
        found: what to print.
        console: where.
        everything: all findings, objectives and tables.
        chosen: whether the user chose the objectives, so that all of them are shown.
    """
    console.print(Text(found.answer.sentence, style="bold"))
    files = found.files[0] if len(found.files) == 1 else f"{len(found.files)} files"
    console.say(f"{found.tokens:,} tokens of {found.sequences:,} responses in {files}; δ = {found.delta:g}")
    console.say(f"read as {' and '.join(found.layouts)}")
    if found.masked_tokens:
        console.say(f"{found.masked_tokens:,} more excluded by {' and '.join(found.masks)}")
    _findings(found, console, len(found.findings) if everything else MOST_FINDINGS)
    _heading(console, "Suggested δ", plain(found.suggested_delta.value))
    console.print(Padding(Text(found.suggested_delta.reason), (0, 0, 0, 2)))
    _figures(found, console)
    names = [verdict.objective for verdict in found.verdicts]
    shown = names if everything or chosen else shown_first(names, found.objective) or names
    _heading(
        console, "By objective", "share of tokens by gradient weight: w = 0, 0 < w < 1, w = 1 within 1 %, w > 1, w < 0"
    )
    console.print(_token_table(found, shown))
    if everything:
        _details(found, console)
    else:
        more = f"{len(names) - len(shown)} more objectives, " if len(names) > len(shown) else ""
        console.say(f"\n--all: {more}tables by μ, by step and of the most affected tokens")


def _details(found: Inspection, console: PlainConsole) -> None:
    _heading(console, "By objective", "share of gradient mass |Â r|; changed = Σ |Â r| |w − 1| / Σ |Â r|")
    console.print(_mass_table(found))
    for name, reason in found.not_evaluated.items():
        console.say(f"  {name} not evaluated: {reason}")
    _heading(console, "By μ", "the behavior policy's probability of the token")
    console.print(_mu_table(found))
    if len(found.verdicts) <= WIDEST_MATRIX:
        _heading(console, "Agreement", "share of tokens that both objectives treat alike")
        console.print(_agreement_table(found))
    if found.steps:
        _heading(console, "By step", f"{len(found.steps):,} steps")
        console.print(_step_table(found))
    if found.updates:
        _heading(console, "By update", "within the rollout batches, over all steps")
        console.print(_update_table(found))
    if found.affected:
        _heading(console, "Most affected tokens", f"by {found.reference}: largest |Â r| |w − 1|")
        console.print(_affected_table(found))


def show_comparison(compared: Comparison, console: PlainConsole, *, every_objective: bool) -> None:
    """Print what differs from the other log; without ``every_objective``, of both logs' own and four others."""
    _heading(console, "Against", compared.against)
    for said in (compared.answer, *compared.caveats()):
        console.print(Padding(Text(said), (0, 0, 0, 2)))
    heads = ("", "this log", "other", "difference")
    console.print(_table(heads, (compared_cells(row, plain) for row in compared.figures)))
    rows = compared.changed if every_objective else compared.changed_first()
    more = len(compared.changed) - len(rows)
    _heading(console, "Gradient changed", f"by objective; --all: {more} more" if more else "by objective")
    console.print(_table(heads, (compared_cells(row, percent) for row in rows)))
    for where, titles in (("this log", compared.findings_here), ("the other", compared.findings_there)):
        for title in titles:
            console.say(f"  only in {where}: {title}")


def _heading(console: PlainConsole, title: str, note: str) -> None:
    console.print(Text.assemble("\n", (title, "bold"), "  ", (note, "dim")))


def _findings(found: Inspection, console: PlainConsole, most: int) -> None:
    for finding in found.findings[:most]:
        console.print(Text.assemble("\n", (finding.severity, _STYLES[finding.severity]), "  ", (finding.title, "bold")))
        console.print(Padding(Text(finding.evidence), (0, 0, 0, 2)))
        console.print(Padding(Text(f"Fix: {finding.fix}"), (0, 0, 0, 2)))
    if (left := len(found.findings) - most) > 0:
        console.say(f"\n{left} more {'finding' if left == 1 else 'findings'}: --all")


def _figures(found: Inspection, console: PlainConsole) -> None:
    f = {name: finite(value) for name, value in found.figures.items()}
    _heading(console, "Figures", "over all tokens")
    for line in (
        f"μ ≤ 0.01 on {percent(f['rare_share'])}; diverging, Â(r − 1) > 0, on {percent(f['diverging_share'])}",
        f"r: mean {plain(f['ratio'])}, from {plain(f['ratio_min'])} to {plain(f['ratio_max'])}",
        f"|π − μ|: mean {plain(f['shift'])}, at most {plain(f['shift_max'])}; beyond δ {percent(f['beyond_delta'])} "
        f"(Â > 0: {percent(f['beyond_delta_positive'])}, Â < 0: {percent(f['beyond_delta_negative'])})",
        f"|log π − log μ|: mean {plain(f['mismatch'])} nats, at most {plain(f['mismatch_max'])}; KL(μ‖π) "
        f"{plain(f['k3_kl'])}",
    ):
        console.say(f"  {line}")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str | Text]], left: int = 1) -> Padding:
    """A table without lines whose first ``left`` columns are text, the others numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    return Padding(table, (0, 0, 0, 2))


def _mu_table(found: Inspection) -> Padding:
    return _table(
        ("μ up to", "tokens", "r 5 %", "median", "95 %", "|π−μ| median", "95 %", "99 %", "beyond δ"),
        (
            (
                plain(b.high),
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
        ),
    )


def _token_table(found: Inspection, names: Sequence[str]) -> Padding:
    verdicts = {verdict.objective: verdict for verdict in found.verdicts}
    rows = ((name, *map(_share, verdicts[name].tokens), _share(verdicts[name].changed)) for name in names)
    return _table(("", *VERDICTS, "gradient changed"), rows)


def _mass_table(found: Inspection) -> Padding:
    return _table(
        ("", *VERDICTS, "changed", "Â > 0", "Â < 0"),
        (
            (v.objective, *map(_share, (*v.mass, v.changed, v.changed_positive, v.changed_negative)))
            for v in found.verdicts
        ),
    )


def _share(value: float | None) -> str:
    return percent(value) if value else "–"


def _agreement_table(found: Inspection) -> Padding:
    names = [verdict.objective for verdict in found.verdicts]
    rows = zip(names, found.agreement, strict=True)
    return _table(("", *names), ((name, *(percent(share) for share in row)) for name, row in rows))


def _step_table(found: Inspection) -> Padding:
    return _progress_table("step", [(s.step, s) for s in found.steps])


def _update_table(found: Inspection) -> Padding:
    return _progress_table("update", [(u.update, u) for u in found.updates])


def _progress_table(head: str, rows: Sequence[tuple[int, StepFigures | UpdateFigures]]) -> Padding:
    """Rows spread evenly over the log, the first and the last among them."""
    count = min(MOST_STEPS, len(rows))
    shown = [rows[round(i * (len(rows) - 1) / max(count - 1, 1))] for i in range(count)]
    return _table(
        (head, "tokens", "mean |π−μ|", "mean |log r|", "beyond δ"),
        (
            (str(number), f"{f.tokens:,}", plain(f.shift), plain(f.mismatch), percent(f.beyond_delta))
            for number, f in shown
        ),
    )


def _affected_table(found: Inspection) -> Padding:
    return _table(
        ("text", "step", "Â", "μ", "π", "w"),
        (
            (
                _in_context(token.before, token.text or token.token, token.after),
                "–" if token.step is None else str(token.step),
                plain(token.advantage),
                plain(token.mu),
                plain(token.pi),
                plain(token.weight),
            )
            for token in found.affected[:MOST_TOKENS]
        ),
    )


def _in_context(before: str, token: str | None, after: str) -> Text:
    """The token between its neighbors; what a model wrote reaches a terminal here, so control characters are spelt."""
    before, token, after = _plain_text(before)[-16:], _plain_text(token or "–")[:16], _plain_text(after)[:16]
    return Text.assemble((before, "dim"), (token, "bold reverse"), (after, "dim"))


def _plain_text(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
