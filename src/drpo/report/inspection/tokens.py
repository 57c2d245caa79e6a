"""The responses of a log, token by token."""

from __future__ import annotations

from drpo.inspection.result import Inspection
from drpo.report.html.escape import visible
from drpo.report.html.frame import Section
from drpo.report.html.quantities import plain
from drpo.report.tokens.viewer import TokenTest, token_viewer

#: |log π − log μ| in nats above which the finding `outliers` counts a token.
OUTLIER = 5.0


def tokens(found: Inspection) -> Section | None:
    """The section with the token viewer; None where no response was kept."""
    if not found.sampled:
        return None
    count = sum(len(response.logprobs) for response in found.sampled)
    kept = (
        f"All {found.sequences:,} responses"
        if len(found.sampled) == found.sequences
        else f"{len(found.sampled):,} of {found.sequences:,} responses ({count:,} of {found.tokens:,} tokens): those "
        f"whose gradient <code>{visible(found.objective)}</code> changes most, those with the largest |log π − log μ|, "
        "and a random sample. Shares among them are not those of the log"
    )
    return Section("Tokens", f"<p>{kept}.</p>{token_viewer(found.sampled, found.delta, _tests(found))}")


def _tests(found: Inspection) -> list[TokenTest]:
    """What responses can be chosen by: the bound, and the findings that are about single tokens."""
    names = {finding.name for finding in found.findings}
    tests = [
        TokenTest(f"|π − μ| > δ = {plain(found.delta)}", "shift", found.delta),
        TokenTest("w ≤ 0", "below_weight"),
    ]
    if "outliers" in names:
        tests.append(TokenTest(f"|log π − log μ| > {plain(OUTLIER)} nats (finding: outliers)", "log_ratio", OUTLIER))
    for name in ("placeholder", "truncated"):
        if name in names:
            tests.append(TokenTest(f"a probability of exactly 1 (finding: {name})", "certain"))
    return tests
