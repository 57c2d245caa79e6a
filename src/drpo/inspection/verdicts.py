"""What every objective does to the logged tokens, by differentiating the objectives themselves."""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from drpo.batch import TokenBatch
from drpo.errors import ConfigError, suggest
from drpo.inspection.measured import Measured
from drpo.inspection.readers.columns import FIELDS
from drpo.inspection.result import VERDICTS, Verdict
from drpo.objectives import OBJECTIVES, Objective, gradient_weight

#: A weight within the first of 1 leaves the token unchanged; one within the second of 0 masks it.
NEAR_ONE, NEAR_ZERO = 0.01, 1e-6
#: Position of each verdict in VERDICTS, and one past them for Â = 0 or an undefined weight.
MASKED, DAMPED, UNCHANGED, AMPLIFIED, CORRECTIVE, NONE = range(len(VERDICTS) + 1)
#: Rows of the sums: Â ≥ 0 and Â < 0.
_SIGNS = 2
#: Objectives evaluated at the same time, at most: each holds a few copies of the chunk. With fewer tokens than the
#: second, threads cost more than they save.
MOST_THREADS, FEWEST_SHARED = 8, 1 << 14


def choose_objectives(
    names: Iterable[str] | None, delta: float | None, available: Iterable[str]
) -> tuple[list[Objective], dict[str, str]]:
    """The objectives to evaluate, and for each of the others why it cannot be.

    Args:
        names: registry names; None means every registered objective.
        delta: instead of the default of every objective with a ``delta``; None keeps the defaults.
        available: optional TokenBatch fields that the log fills.

    Raises:
        ConfigError: an unknown name, a named one that cannot be evaluated, or none at all.
    """
    available = set(available)
    chosen, refused = [], {}
    for name in OBJECTIVES if names is None else names:
        if name not in OBJECTIVES:
            raise ConfigError(f"unknown objective {name!r}.{suggest(name, OBJECTIVES)}")
        made = _evaluable(OBJECTIVES[name], delta, available)
        if isinstance(made, Objective):
            chosen.append(made)
        elif names is not None:
            raise ConfigError(f"{name} cannot be evaluated on this log: {made}.")
        else:
            refused[name] = made
    if not chosen:
        raise ConfigError(f"no objective to evaluate. Name at least one of {', '.join(sorted(OBJECTIVES))}.")
    return chosen, refused


def _evaluable(kind: type[Objective], delta: float | None, available: set[str]) -> Objective | str:
    """The objective at its defaults and ``delta``, or why it cannot be evaluated."""
    defaults = kind.parameters()
    if without := [name for name, default in defaults.items() if default is dataclasses.MISSING]:
        return f"{', '.join(without)} has no default"
    given: dict[str, Any] = {} if delta is None or "delta" not in defaults else {"delta": delta}
    objective = kind(**given)
    if not objective.sequence_local:
        return "it decides over all tokens of an update together, and a log is read in parts"
    known = {field.name for field in dataclasses.fields(TokenBatch)}
    columns = {field: column for column, field in FIELDS.items()}
    reasons = [
        f"needs {field}: log the column {columns[field]}"
        if field in columns and field in known
        else f"needs {field}, which token records do not carry"
        for field in objective.needs
        if field not in available
    ]
    return "; ".join(reasons) or objective


def describe(objective: Objective) -> str:
    """Its parameters, as a call would give them."""
    return ", ".join(
        f"{field.name}={_short(getattr(objective, field.name))}" for field in dataclasses.fields(objective)
    )


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def verdict_of(weights: np.ndarray) -> np.ndarray:
    """``[N]`` int8: the position in VERDICTS of each gradient weight, NONE where it is NaN."""
    # Later lines overrule earlier ones.
    verdict = np.full(len(weights), UNCHANGED, dtype=np.int8)
    verdict[weights > 1 + NEAR_ONE] = AMPLIFIED
    verdict[weights < 1 - NEAR_ONE] = DAMPED
    verdict[weights < -NEAR_ZERO] = CORRECTIVE
    verdict[np.abs(weights) <= NEAR_ZERO] = MASKED
    verdict[np.isnan(weights)] = NONE
    return verdict


def gradient_change(mass: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``[N]`` |Â r| |w − 1|, in double precision where single precision overflows; NaN where w is."""
    with np.errstate(over="ignore"):
        change = mass * np.abs(weights - 1)
    return change if not np.isinf(change).any() else mass.astype(np.float64) * np.abs(weights.astype(np.float64) - 1)


@dataclass(frozen=True, slots=True)
class _Weighed:
    """One objective on one chunk: per token its weight, verdict and |Â r| |w − 1|; sums by sign and verdict."""

    weights: np.ndarray
    verdicts: np.ndarray
    change: np.ndarray
    tokens: np.ndarray
    mass: np.ndarray
    changed: np.ndarray


def _weigh(weights: np.ndarray, mass: np.ndarray, negative: np.ndarray) -> _Weighed:
    weights = np.where(np.isfinite(weights), weights, np.nan)
    verdicts = verdict_of(weights)
    change = gradient_change(mass, weights)
    change[verdicts == NONE] = 0
    shape = (_SIGNS, len(VERDICTS) + 1)
    cells = verdicts + negative * np.int8(shape[1])
    size = shape[0] * shape[1]
    return _Weighed(
        weights,
        verdicts,
        change,
        np.bincount(cells, minlength=size).reshape(shape),
        np.bincount(cells, weights=mass, minlength=size).reshape(shape),
        np.bincount(negative, weights=change, minlength=_SIGNS),
    )


class Verdicts:
    """Sums over tokens with Â ≠ 0, for ``K`` objectives."""

    def __init__(self, objectives: list[Objective]):
        self.objectives = objectives
        kinds = len(VERDICTS) + 1
        self.tokens = np.zeros((len(objectives), _SIGNS, kinds))
        self.mass = np.zeros((len(objectives), _SIGNS, kinds))
        self.changed = np.zeros((len(objectives), _SIGNS))
        self.agreement = np.zeros((len(objectives), len(objectives)))
        #: Tokens with Â ≠ 0, and without.
        self.compared = self.unmoved = 0
        #: Step → per objective Σ |Â r| |w − 1|, and last Σ |Â r|.
        self.by_step: dict[int, np.ndarray] = defaultdict(lambda: np.zeros(len(objectives) + 1))

    def add(self, part: Measured) -> dict[str, np.ndarray]:
        """Evaluate every objective on one chunk; returns each one's weights ``[N]``, NaN where Â = 0."""
        advantages = part.tokens.advantages
        negative = advantages < 0

        def evaluate(objective: Objective) -> _Weighed:
            return _weigh(gradient_weight(objective, part.batch).numpy(), part.mass, negative)

        if len(part.tokens) < FEWEST_SHARED:
            found = [evaluate(objective) for objective in self.objectives]
        else:  # side by side: torch and numpy leave the interpreter free while they work
            with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as threads:
                found = list(threads.map(evaluate, self.objectives))
        for k, weighed in enumerate(found):
            self.tokens[k] += weighed.tokens
            self.mass[k] += weighed.mass
            self.changed[k] += weighed.changed
        if part.tokens.steps is not None:
            self._add_steps(part, [*(weighed.change for weighed in found), part.mass])
        self._compare(np.stack([weighed.verdicts for weighed in found]))
        moved = int((advantages != 0).sum())
        self.compared += moved
        self.unmoved += len(advantages) - moved
        return {o.name: weighed.weights for o, weighed in zip(self.objectives, found, strict=True)}

    def _add_steps(self, part: Measured, sums: list[np.ndarray]) -> None:
        steps, index = part.steps()
        columns = [np.bincount(index, weights=values, minlength=len(steps)) for values in sums]
        for step, row in zip(steps.tolist(), np.stack(columns, axis=1), strict=True):
            self.by_step[step] += row

    def _compare(self, verdicts: np.ndarray) -> None:
        """Count, for each pair of objectives, the tokens on which both say the same."""
        for kind in range(len(VERDICTS)):
            same = torch.from_numpy((verdicts == kind).astype(np.float32))
            self.agreement += (same @ same.T).double().numpy()

    def summary(self) -> list[Verdict]:
        """One entry an objective, in order."""
        steps = [self.by_step[step] for step in sorted(self.by_step)]
        return [self._summary(k, objective, steps) for k, objective in enumerate(self.objectives)]

    def _summary(self, k: int, objective: Objective, steps: list[np.ndarray]) -> Verdict:
        tokens, mass = self.tokens[k][:, :NONE], self.mass[k][:, :NONE]
        undefined = self.tokens[k][:, NONE].sum() - self.unmoved
        by_sign = mass.sum(1)
        return Verdict(
            objective=objective.name,
            parameters=describe(objective),
            tokens=_shares(tokens.sum(0)),
            mass=_shares(mass.sum(0)),
            changed=_part(self.changed[k].sum(), by_sign.sum()) or 0.0,
            tokens_positive=_shares(tokens[0]),
            tokens_negative=_shares(tokens[1]),
            changed_positive=_part(self.changed[k][0], by_sign[0]),
            changed_negative=_part(self.changed[k][1], by_sign[1]),
            changed_by_step=[_part(row[k], row[-1]) for row in steps],
            undefined=_part(undefined, self.compared) or 0.0,
        )

    def agreements(self) -> list[list[float]]:
        """``[K, K]`` the share of tokens on which two objectives give the same verdict."""
        return (self.agreement / max(self.compared, 1)).tolist()


def _shares(counts: np.ndarray) -> list[float]:
    return (counts / max(counts.sum(), 1e-300)).tolist()


def _part(value: float, whole: float) -> float | None:
    return float(value / whole) if whole > 0 else None
