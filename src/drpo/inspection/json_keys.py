"""What each key of ``drpo inspect --json`` means and its unit, for docs/schema.md."""

from __future__ import annotations

from drpo.inspection.compare import Compared, Comparison
from drpo.inspection.gate import Check
from drpo.inspection.result import (
    AffectedToken,
    Answer,
    Finding,
    Inspection,
    MuBin,
    StepFigures,
    SuggestedDelta,
    UpdateFigures,
    Verdict,
)
from drpo.mismatch.estimate import Estimate

_VERDICTS = "masked, damped, unchanged, amplified, corrective"
_TOKENS = "tokens that were counted"
_SHIFT = "mean \\|π − μ\\|, a probability"
_MISMATCH = "mean \\|log π − log μ\\|, nats"
_BEYOND = "share of the tokens with \\|π − μ\\| > δ"

#: Keys that stand beside those of :class:`Inspection`; the last two only where they were asked for.
AROUND = {
    "schema": "the number of this layout",
    "comparison": "with `--against`: the other log beside this one",
    "checks": "with `--fail-on` or `--max`: what was checked",
}
#: The figures of ``drpo.diagnose``; null where a figure is a mean over no tokens.
FIGURES = {
    "ratio": "mean r = π/μ",
    "ratio_min": "smallest r",
    "ratio_max": "largest r",
    "shift": _SHIFT,
    "shift_max": "largest \\|π − μ\\|, a probability",
    "beyond_delta": _BEYOND,
    "beyond_delta_positive": "the same of tokens with Â > 0",
    "beyond_delta_negative": "the same of tokens with Â < 0",
    "diverging_share": "share of the tokens with Â(r − 1) > 0",
    "mismatch": _MISMATCH,
    "mismatch_max": "largest \\|log π − log μ\\|, nats",
    "k3_kl": "estimate of KL(μ‖π), nats",
    "rare_share": "share of the tokens with μ ≤ 0.01",
}
#: Class → key → meaning, in the order in which they are written.
KEYS: dict[type, dict[str, str]] = {
    Inspection: {
        "files": "the files that were read, in order",
        "answer": "the answer",
        "objective": "the objective that the answer is about: the run's own, else `drpo`",
        "tokens": _TOKENS,
        "sequences": "responses with at least one such token",
        "unusable_tokens": "tokens that were left out because a log-probability is invalid",
        "delta": "δ, the bound on \\|π − μ\\| that shares count against, a probability",
        "findings": "faults first, then warnings, then notes",
        "suggested_delta": "a δ to begin with",
        "figures": "figures over all tokens, by name",
        "mu_edges": "edges of the bins of μ, probabilities; one more than bins",
        "mu_counts": "tokens in each bin of μ",
        "shift_edges": "edges of the bins of \\|π − μ\\|, probabilities; one more than bins",
        "shift_counts": "tokens in each bin of \\|π − μ\\|",
        "mu_bins": "how r and \\|π − μ\\| are distributed, by μ",
        "verdicts": "what each objective does, in the order of the registry",
        "agreement": "[i][j]: share of the tokens with Â ≠ 0 that the objectives i and j of `verdicts` treat alike",
        "not_evaluated": "objective → why it was not evaluated",
        "steps": "figures by step, in order; empty where the log has no column `step`",
        "affected": "the tokens with the largest `change`, at most 20",
        "reference": "the objective whose `change` and `weight` these tokens have",
        "temperature": "T of π / T of μ; null where it cannot be estimated",
        "masked_tokens": "tokens that masks excluded",
        "masks": "names of the masks that were applied",
        "layouts": "whose layouts the files were read as",
        "updates": "figures by update within the rollout batches; empty where the log has no column `update`",
    },
    Answer: {
        "state": "in this order: tokens reach δ; r = 1 throughout; no token reaches δ; a fault was found",
        "sentence": "the same in words",
    },
    Finding: {
        "name": "stable, for programs; those of [inspect.md](inspect.md#findings)",
        "severity": "a fault makes the other figures untrustworthy",
        "title": "what was found",
        "evidence": "the counts that it rests on",
        "fix": "what to do",
    },
    SuggestedDelta: {
        "value": "a probability; null where the log gives no ground for one",
        "reason": "why",
    },
    MuBin: {
        "low": "lower end of the bin, exclusive, a probability",
        "high": "upper end, inclusive",
        "share": "share of all tokens",
        "ratio_p05": "5 % quantile of r",
        "ratio_p50": "median of r",
        "ratio_p95": "95 % quantile of r",
        "shift_p50": "median of \\|π − μ\\|, a probability",
        "shift_p95": "95 % quantile of \\|π − μ\\|",
        "shift_p99": "99 % quantile of \\|π − μ\\|",
        "beyond_delta": "share of the bin's tokens with \\|π − μ\\| > δ",
    },
    Verdict: {
        "objective": "its name in the registry",
        "parameters": "as a call would give them",
        "tokens": f"shares of the tokens with Â ≠ 0: {_VERDICTS}",
        "mass": "shares of the gradient mass Σ \\|Â r\\|, in the same order",
        "changed": "Σ \\|Â r\\| \\|w − 1\\| / Σ \\|Â r\\|: distance from the plain surrogate's gradient; may exceed 1",
        "tokens_positive": "as `tokens`, of tokens with Â > 0",
        "tokens_negative": "as `tokens`, of tokens with Â < 0",
        "changed_positive": "as `changed`, of tokens with Â > 0",
        "changed_negative": "as `changed`, of tokens with Â < 0",
        "changed_by_step": "as `changed`, in the order of `steps`; null where a step has no gradient",
        "undefined": "share of the tokens with Â ≠ 0 whose weight is not a number",
    },
    StepFigures: {
        "step": "the step",
        "tokens": _TOKENS,
        "shift": _SHIFT,
        "mismatch": _MISMATCH,
        "beyond_delta": _BEYOND,
    },
    UpdateFigures: {
        "update": "the optimizer step within the rollout batch, from 0",
        "tokens": _TOKENS,
        "shift": _SHIFT,
        "mismatch": _MISMATCH,
        "beyond_delta": _BEYOND,
    },
    AffectedToken: {
        "source": "its file",
        "row": "its line, row, record or sample there, from 1",
        "step": "its step",
        "token": "its id",
        "text": "its text",
        "before": "text of the tokens before it, at most 12",
        "after": "text of the tokens after it, at most 12",
        "mu": "μ, a probability",
        "pi": "π, a probability",
        "advantage": "Â",
        "weight": "the gradient weight w of `reference`",
        "change": "\\|Â r\\| \\|w − 1\\|",
    },
    Estimate: {
        "value": "the estimate",
        "low": "lower end of its 95 % confidence interval",
        "high": "upper end",
    },
    Comparison: {
        "against": "the other log's first file",
        "answer": "the other log's answer, in words",
        "figures": "the figures of both logs, by name",
        "changed": "`changed` of both logs, of the objectives that both could evaluate",
        "findings_here": "titles of the findings of this log alone",
        "findings_there": "titles of the findings of the other alone",
        "objective_here": "`objective` of this log",
        "objective_there": "of the other",
        "delta_here": "`delta` of this log, a probability",
        "delta_there": "of the other",
        "only_here": "objectives that only this log could evaluate",
        "only_there": "those of the other",
    },
    Compared: {
        "name": "of the figure or objective",
        "here": "this log's value, in the unit of the figure; null where it has none",
        "there": "the other's",
    },
    Check: {
        "name": "of the finding or figure; `findings` where none failed",
        "failure": "why it failed; empty where it passed",
    },
}
