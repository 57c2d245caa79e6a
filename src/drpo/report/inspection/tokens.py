"""The responses of a log, token by token."""

from __future__ import annotations

from drpo.inspection.result import Inspection
from drpo.report.html.escape import visible
from drpo.report.html.frame import Section
from drpo.report.html.quantities import plain
from drpo.report.tokens.viewer import TokenTest, token_viewer


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
    tests = [
        TokenTest(f"|π − μ| > δ = {plain(found.delta)}", "shift", found.delta),
        TokenTest("w ≤ 0", "below_weight"),
    ]
    return Section("Tokens", f"<p>{kept}.</p>{token_viewer(found.sampled, found.delta, tests)}")
