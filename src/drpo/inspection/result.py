"""What an inspection found, as plain data: for the terminal, the page and ``--json``. Needs neither torch nor numpy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from drpo.mismatch.estimate import Estimate

#: What a token is to an objective: w = 0; 0 < w < 1; w within 1 % of 1; w > 1; w < 0.
VERDICTS = ("masked", "damped", "unchanged", "amplified", "corrective")

Severity = Literal["fault", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the reader should know: what it is, the evidence, and what to do about it.

    ``name`` is stable, for machines. A ``fault`` makes the other figures untrustworthy.
    """

    name: str
    severity: Severity
    title: str
    evidence: str
    fix: str


#: The numbers are right and tokens reach δ; r = 1 throughout; no token reaches δ; a fault was found.
State = Literal["acts", "inert", "vacuous", "untrusted"]


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether the trust region acts, for a program and in a sentence."""

    state: State
    sentence: str


@dataclass(frozen=True, slots=True)
class MuBin:
    """Tokens whose μ lies in (low, high]: their share of all, and quantiles of r and of |π − μ|."""

    low: float
    high: float
    share: float
    ratio_p05: float | None
    ratio_p50: float | None
    ratio_p95: float | None
    shift_p50: float | None
    shift_p95: float | None
    shift_p99: float | None
    beyond_delta: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one objective does: shares of tokens and of gradient mass |Â r|, in the order of VERDICTS.

    ``changed`` is Σ |Â r| |w − 1| / Σ |Â r|: how far the gradient is from the plain surrogate's. ``undefined`` is the
    share of tokens whose weight is not a number.
    """

    objective: str
    parameters: str
    tokens: list[float]
    mass: list[float]
    changed: float
    tokens_positive: list[float]
    tokens_negative: list[float]
    changed_positive: float | None
    changed_negative: float | None
    changed_by_step: list[float | None]
    undefined: float


@dataclass(frozen=True, slots=True)
class AffectedToken:
    """A token whose gradient the reference objective changes much; ``before`` and ``after`` are its neighbors' text.

    ``change`` is |Â r| |w − 1|.
    """

    source: str
    row: int
    step: int | None
    token: str | None
    text: str | None
    before: str
    after: str
    mu: float
    pi: float
    advantage: float
    weight: float
    change: float


@dataclass(frozen=True, slots=True)
class SampledResponse:
    """A response of the sample that the page shows token by token; lists have one entry a token.

    ``first`` is the place of the first token that was kept in the response, which has ``length`` tokens. ``weights``
    holds the gradient weights of some objectives, NaN where Â = 0. ``why`` names what it was kept for: ``changed``
    much, an ``extreme`` log-ratio, or at ``random``. ``pointed`` holds for a finding the places of its tokens, counted
    from the first one that was kept.
    """

    source: str
    row: int
    step: int | None
    update: int | None
    group: str | None
    reward: float | None
    first: int
    length: int
    texts: list[str | None] | None
    ids: list[str | None] | None
    behavior_logprobs: list[float]
    logprobs: list[float]
    advantages: list[float]
    weights: dict[str, list[float]]
    why: list[str] = field(default_factory=list)
    pointed: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepFigures:
    """One step: tokens, mean |π − μ|, mean |log r| (nats), share beyond δ."""

    step: int
    tokens: int
    shift: float
    mismatch: float
    beyond_delta: float


@dataclass(frozen=True, slots=True)
class UpdateFigures:
    """One update of the rollout batches, over all steps: as :class:`StepFigures`."""

    update: int
    tokens: int
    shift: float
    mismatch: float
    beyond_delta: float


@dataclass(frozen=True, slots=True)
class SuggestedDelta:
    """A bound to begin with, and why; ``value`` is None where the log gives no ground for one."""

    value: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that ``drpo inspect`` reports. Histograms are counts per bin of their edges.

    ``objective`` is the one that the answer is about: the run's own if the log is a run's, else ``drpo``. ``layouts``
    says whose layouts the files were read as; ``updates`` is empty where the log has no column update. ``sampled`` is a
    bounded sample of whole responses, for the page.
    """

    files: list[str]
    answer: Answer
    objective: str
    tokens: int
    sequences: int
    unusable_tokens: int
    delta: float
    findings: list[Finding]
    suggested_delta: SuggestedDelta
    figures: dict[str, float]
    mu_edges: list[float]
    mu_counts: list[int]
    shift_edges: list[float]
    shift_counts: list[int]
    mu_bins: list[MuBin]
    verdicts: list[Verdict]
    agreement: list[list[float]]
    not_evaluated: dict[str, str]
    steps: list[StepFigures]
    affected: list[AffectedToken]
    reference: str
    temperature: Estimate | None = None
    masked_tokens: int = 0
    masks: list[str] = field(default_factory=list)
    layouts: list[str] = field(default_factory=list)
    updates: list[UpdateFigures] = field(default_factory=list)
    sampled: list[SampledResponse] = field(default_factory=list)

    def figures_only(self) -> dict[str, Any]:
        """Everything but the sampled responses, as plain data: what ``--json`` prints."""
        values = asdict(replace(self, sampled=[]))
        del values["sampled"]
        return values
