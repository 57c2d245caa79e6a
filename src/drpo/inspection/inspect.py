"""Inspect a token log: read it in chunks, accumulate counts, derive findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from drpo.checks import is_positive
from drpo.diagnostics import DEFAULT_DELTA, diagnose
from drpo.errors import ConfigError, DataError
from drpo.inspection.affected import Affected
from drpo.inspection.answer import answer, shown_first
from drpo.inspection.bounds import suggest_delta
from drpo.inspection.counters import Counters
from drpo.inspection.detectors.misplaced import MISPLACED
from drpo.inspection.detectors.number_format import Unusable
from drpo.inspection.evidence import Evidence
from drpo.inspection.findings import findings
from drpo.inspection.histograms import PROBABILITY, SHIFT, Counts
from drpo.inspection.measured import Measured, joined, usable
from drpo.inspection.pointed import pointed
from drpo.inspection.readers.column_map import AUTOMATIC, ColumnMap
from drpo.inspection.readers.reading import Reading
from drpo.inspection.readers.sources import Log, find_log, last_files, read_log
from drpo.inspection.readers.tokens import Tokens
from drpo.inspection.result import Inspection, SuggestedDelta
from drpo.inspection.sampled import Sample
from drpo.inspection.steps import LastSteps, Steps
from drpo.inspection.verdicts import Verdicts, choose_objectives
from drpo.metrics import Metric
from drpo.mismatch.axis import Axis

#: Figures of `drpo.diagnose` that the report shows.
FIGURES = (
    "ratio",
    "ratio_min",
    "ratio_max",
    "shift",
    "shift_max",
    "beyond_delta",
    "beyond_delta_positive",
    "beyond_delta_negative",
    "diverging_share",
    "mismatch",
    "mismatch_max",
    "k3_kl",
    "rare_share",
)
#: Tokens of small chunks that the objectives are evaluated on together.
TOGETHER = 1 << 14
#: Bins of the histograms that are drawn: ten a decade, of the fifty that are counted.
MERGED = 5


def inspect(
    paths: Iterable[Path],
    delta: float | None = None,
    objectives: Sequence[str] | None = None,
    on_progress: Callable[[float], None] = lambda done: None,
    columns: ColumnMap = AUTOMATIC,
    steps: Steps = Steps(),  # noqa: B008 - it is frozen
    last: int | None = None,
) -> Inspection:
    """Inspect the token records in ``paths``: files, folders of files, or run directories.

    Args:
        paths: files, folders or run directories.
        delta: the bound on |π − μ| of every objective that has one, a probability; None: the run's own if the log is
            a run's, else each objective's default (and 0.15 for the shares beyond δ).
        objectives: registry names to evaluate; None means all that the log has the columns for.
        on_progress: called with the share of the log read so far.
        columns: names of columns that go before the known ones.
        steps: the steps to read.
        last: so many of the last steps instead. To find them a log is read twice, unless the names of its files say
            which steps they hold.

    Raises:
        DataError: a file is missing or malformed, no token is usable, or the log has no steps.
        ConfigError: delta is not positive, an objective is unknown or cannot be evaluated, pyarrow is missing.
    """
    require_delta(delta)
    log, reading = find_log(paths), Reading(columns)
    survey: Survey | None = None
    newest = None
    if last is not None:
        named = last_files(log, last)
        log, newest = (log, LastSteps(last)) if named is None else (named, None)
    for whole, done in read_log(log, reading, newest and newest.note):
        tokens = (newest.steps if newest else steps).select(whole)
        if survey is None:
            survey = Survey(log, delta, objectives, tokens.optional, reading)
        survey.add(tokens)
        on_progress(done)
    if survey is None or not survey.tokens:
        raise DataError(nothing_counted(log, reading, survey, steps))
    return survey.result()


def require_delta(delta: float | None) -> None:
    """Raise a ConfigError unless ``delta`` is a bound on |π − μ|, or None."""
    if delta is not None and not is_positive(delta):
        raise ConfigError(f"--delta must be a finite probability > 0, got {delta!r}")


def nothing_counted(log: Log, reading: Reading, survey: Survey | None, steps: Steps) -> str:
    """Why no token is left to count."""
    files = ", ".join(log.names[:5]) + (" and others" if len(log.files) > 5 else "")
    if survey is not None and survey.unusable.tokens:
        return (
            f"{files}: no token has two usable log-probabilities (finite and ≤ 0, in nats): "
            f"{survey.unusable.kinds()}. Check what logprob and behavior_logprob hold."
        )
    if steps != Steps():
        return f"{files}: no token in the steps {steps}. Give other steps, or leave --steps out."
    if reading.masked:
        return (
            f"{files}: all {reading.masked:,} tokens are excluded by {' and '.join(reading.masks)}. Give the mask "
            "that is 1 on trained tokens with --map mask=NAME, or --map mask=none."
        )
    return f"{files}: the responses have no tokens. Give a log with at least one token."


class Survey:
    """Everything that is counted on the way through a log."""

    def __init__(
        self, log: Log, delta: float | None, names: Sequence[str] | None, available: Iterable[str], reading: Reading
    ):
        self.log, self.reading = log, reading
        given = log.delta if delta is None else delta
        self.delta = DEFAULT_DELTA if given is None else given
        chosen, self.not_evaluated = choose_objectives(names, given, available)
        self.available = set(available)
        #: Whose changes rank the most affected tokens, and what the answer is about.
        self.reference = next((o for o in chosen if o.name == "drpo"), chosen[0])
        self.objective = next((o for o in chosen if o.name == log.objective), self.reference)
        self.verdicts = Verdicts(chosen)
        self.counted, self.unusable = Counters(self.delta), Unusable()
        self.affected = Affected()
        names = [objective.name for objective in chosen]
        self.sample = Sample(self.objective.name, shown_first(names, self.objective.name))
        self.figures: dict[str, Metric] = {}
        self.tokens = self.sequences = 0
        self._waiting: list[Measured] = []

    def add(self, tokens: Tokens) -> None:
        """Count one chunk."""
        if set(tokens.optional) != self.available:
            raise DataError(
                f"{tokens.source} has the optional columns {sorted(tokens.optional) or 'none'} where the "
                f"files before have {sorted(self.available) or 'none'}. Inspect them separately."
            )
        good = usable(tokens)
        self.unusable.add(tokens, good)
        kept = tokens.select(good)
        if not len(kept):
            return
        part = Measured.of(kept)
        self.tokens += len(kept)
        self.sequences += part.batch.num_sequences
        self.counted.add(part)
        if self._waiting and (self._waiting[0].tokens.steps is None) != (kept.steps is None):
            self._weigh()
        self._waiting.append(part)
        if sum(len(waiting.tokens) for waiting in self._waiting) >= TOGETHER:
            self._weigh()
        measured = diagnose(part.batch, self.delta)
        for name in FIGURES:
            self.figures[name] = self.figures[name] + measured[name] if name in self.figures else measured[name]

    def _weigh(self) -> None:
        """Evaluate the objectives on the chunks that wait for it, which costs the same for few tokens as for many."""
        parts, self._waiting = self._waiting, []
        if parts:
            weights = self.verdicts.add(joined(parts))
            end = 0
            for part in parts:
                mine = slice(end, end := end + len(part.tokens))
                its = {name: values[mine] for name, values in weights.items()}
                self.affected.add(part, its[self.reference.name])
                self.sample.add(part, its)

    def result(self) -> Inspection:
        """What was found."""
        self._weigh()
        counted = self.counted.distributions
        evidence = Evidence(
            self.tokens,
            self.delta,
            self.counted,
            self.counted.temperature.slope(),
            self.unusable,
            [o for o in self.verdicts.objectives if o.shift_bound is not None],
            self.reading,
            self.log.outcome,
        )
        slope, found = evidence.slope, findings(evidence)
        suggested = suggest_delta(counted, self.tokens)
        if fault := next((finding for finding in found if finding.name in MISPLACED), None):
            suggested = SuggestedDelta(
                None,
                f"{fault.title}. Until this is fixed, |π − μ| does not measure how far the policy has moved.",
            )
        verdicts = self.verdicts.summary()
        figures = {name: metric.item() for name, metric in self.figures.items()}
        own = next(verdict for verdict in verdicts if verdict.objective == self.objective.name)
        return Inspection(
            files=self.log.names,
            answer=answer(found, self.delta, figures["beyond_delta"], own),
            objective=self.objective.name,
            tokens=self.tokens,
            sequences=self.sequences,
            unusable_tokens=self.unusable.tokens,
            delta=self.delta,
            findings=found,
            suggested_delta=suggested,
            figures=figures,
            mu_edges=_edges(PROBABILITY),
            mu_counts=_merged(counted.mu.counts),
            shift_edges=_edges(SHIFT),
            shift_counts=_merged(counted.shift.counts),
            mu_bins=counted.mu_bins(),
            verdicts=verdicts,
            agreement=self.verdicts.agreements(),
            not_evaluated=self.not_evaluated,
            steps=counted.step_figures(),
            affected=list(self.affected.found),
            reference=self.reference.name,
            temperature=None if slope is None else slope.estimate,
            masked_tokens=self.reading.masked,
            masks=list(self.reading.masks),
            layouts=list(self.reading.layouts),
            updates=self.counted.updates.figures(),
            sampled=pointed(found, evidence, self.sample.responses()),
        )


def _edges(axis: Axis) -> list[float]:
    """Of the bins that are drawn; the first reaches down to zero."""
    count = axis.bins // MERGED
    return [0.0, *(10 ** (axis.low + (i + 1) * axis.width * MERGED) for i in range(count))]


def _merged(counts: Counts) -> list[int]:
    return counts.sum(0).reshape(-1, MERGED).sum(1).tolist()
