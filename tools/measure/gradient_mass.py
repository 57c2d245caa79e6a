"""Which tokens a bound acts on: what each objective does to the gradient mass, by bin of μ, on the same tokens.

    python -m tools.measure.gradient_mass NAME RUN…                # results/gradient-mass/NAME.json
    python -m tools.measure.gradient_mass NAME RUN… --match 0.02   # and thresholds at which each changes 2 % of it
    python -m tools.measure.gradient_mass NAME RUN… --like DRPO    # and those at which each changes as much as DRPO

A run is a directory of `drpo train log_tokens=true`, or a token log. **Gradient mass** of a token is |Â r|, the size of
the plain surrogate's gradient with respect to log π (docs/glossary.md); with respect to the token's own logit it is
|Â r| (1 − π), as ∂ log π / ∂ z = 1 − π. The gradient with respect to all logits is at most √2 times as long as that. An
objective of gradient weight w removes a token's mass where w = 0, reverses it where w < 0, and changes |w − 1| of it.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from drpo.bench.record import describe
from drpo.errors import DataError
from drpo.files import replace_text
from drpo.inspection.measured import Measured, joined, usable
from drpo.inspection.readers.sources import find_log, read_log
from drpo.inspection.verdicts import CORRECTIVE, MASKED, gradient_change, verdict_of
from drpo.objectives import Objective, gradient_weight, make_objective
from drpo.run_directory import RunDirectory
from tools import RESULTS

FOLDER = RESULTS / "gradient-mass"
#: Upper ends of the bins of μ, a probability.
ENDS = (1e-3, 1e-2, 0.1, 0.5, 1.0)
#: Label → the objective, at the thresholds of settle2-area and, where that has none, at its default.
BOUNDS: dict[str, dict[str, Any]] = {
    "DRPO": {"name": "drpo", "delta": 0.15},
    "DPPO": {"name": "dppo_tv", "delta": 0.15},
    "IPO": {"name": "ipo", "delta": 0.15},
    "PPO": {"name": "ppo", "ratio_low": 0.2, "ratio_high": 0.2},
    "GRPO": {"name": "grpo", "ratio_low": 0.2, "ratio_high": 0.28},
    "SPO": {"name": "spo", "epsilon": 0.2},
    "k1": {"name": "kl_penalty", "estimator": "k1", "coefficient": 1.0},
}
#: Parameters that a match scales, all of an objective by one factor; a coefficient is divided by it.
THRESHOLDS, COEFFICIENTS = ("delta", "ratio_low", "ratio_high", "epsilon"), ("coefficient",)
#: Those that bound nothing from 1 on, and how far they go.
BELOW_ONE, LARGEST = ("delta", "ratio_low"), 0.999
#: A match tries factors of the thresholds from the inverse of this to this.
WIDEST = 4096.0


@dataclass(frozen=True)
class Masses:
    """``N`` tokens with Â ≠ 0, and for each its bin of μ, |Â r| and |Â r| (1 − π)."""

    parts: Measured
    bins: np.ndarray
    mass: np.ndarray
    logit: np.ndarray
    #: Tokens of the log, those with Â = 0 among them.
    tokens: int

    def weights(self, objective: Objective) -> np.ndarray:
        """``[N]`` float64: the gradient weight of every token."""
        found = gradient_weight(objective, self.parts.batch).numpy()[self.parts.tokens.advantages != 0]
        return found.astype(np.float64)

    def changed(self, objective: Objective) -> float:
        """Σ |Â r| |w − 1| / Σ |Â r|."""
        return float(gradient_change(self.mass, self.weights(objective)).sum() / self.mass.sum())


def read(paths: Iterable[Path]) -> Masses:
    """All tokens of these runs or logs.

    Raises:
        DataError: there are none with Â ≠ 0, or a log cannot be read.
    """
    measured = []
    for tokens, _ in read_log(find_log(paths)):
        kept = tokens.select(usable(tokens))
        if len(kept):
            measured.append(Measured.of(kept))
    if not measured or not any((part.tokens.advantages != 0).any() for part in measured):
        raise DataError("the logs hold no token with Â ≠ 0, so that there is no gradient to share")
    return masses(joined(measured))


def masses(whole: Measured) -> Masses:
    """The gradient mass of the tokens ``whole`` ``[N]``."""
    moved = whole.tokens.advantages != 0
    mu = np.exp(whole.tokens.behavior_logprobs[moved].astype(np.float64))
    pi = np.exp(whole.tokens.logprobs[moved].astype(np.float64))
    mass = whole.mass[moved].astype(np.float64)
    # The left side is open: a token with μ = 1e-3 is in the first bin. float32 has 1e-3 up to 1e-10.
    bins = np.searchsorted(np.array(ENDS[:-1]) * (1 + 1e-6), mu, side="left")
    return Masses(whole, bins, mass, mass * np.clip(1 - pi, 0.0, 1.0), len(whole.tokens))


def shares(found: Masses, bounds: Mapping[str, Mapping[str, Any]] = BOUNDS) -> dict[str, Any]:
    """What each bound does in each bin: all figures are shares of the whole log's sum, so that bins add up.

    ``tokens``, ``mass`` and ``logit`` are the bin's share of tokens with Â ≠ 0, of Σ |Â r| and of Σ |Â r| (1 − π). Of
    an objective: ``removed`` (w = 0), ``reversed`` (w < 0) and ``changed`` (Σ |Â r| |w − 1|), and the same ending in
    ``_logit`` with the second mass.
    """

    def by_bin(values: np.ndarray, whole: float) -> list[float]:
        return (np.bincount(found.bins, weights=values, minlength=len(ENDS)) / whole).tolist()

    of_mass, of_logit = float(found.mass.sum()), float(found.logit.sum())
    objectives = {}
    for label, settings in bounds.items():
        weights = found.weights(make_objective(**settings))
        verdicts = verdict_of(weights)
        rows: dict[str, Any] = {"settings": dict(settings)}
        for ending, mass, whole in (("", found.mass, of_mass), ("_logit", found.logit, of_logit)):
            rows[f"removed{ending}"] = by_bin(mass * (verdicts == MASKED), whole)
            rows[f"reversed{ending}"] = by_bin(mass * (verdicts == CORRECTIVE), whole)
            rows[f"changed{ending}"] = by_bin(gradient_change(mass, weights), whole)
        objectives[label] = rows
    return {
        "tokens": found.tokens,
        "with_advantage": len(found.mass),
        "ends": list(ENDS),
        "bins": {
            "tokens": by_bin(np.ones(len(found.mass)), len(found.mass)),
            "mass": by_bin(found.mass, of_mass),
            "logit": by_bin(found.logit, of_logit),
        },
        "objectives": objectives,
    }


def scaled(settings: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """An objective's settings with its thresholds times ``factor``; the larger the factor, the less it changes."""
    found = dict(settings)
    for key in THRESHOLDS:
        if key in found:
            found[key] = min(found[key] * factor, LARGEST if key in BELOW_ONE else math.inf)
    for key in COEFFICIENTS:
        if key in found:
            found[key] = found[key] / factor
    return found


def matched(found: Masses, settings: Mapping[str, Any], share: float) -> dict[str, Any]:
    """The settings, thresholds scaled and to three digits, that change the ``share`` of the gradient mass.

    Raises:
        DataError: no threshold within a factor of 4,096 changes as much, or as little.
    """

    def changed(log_factor: float) -> float:
        return found.changed(make_objective(**scaled(settings, math.exp(log_factor))))

    low, high = -math.log(WIDEST), math.log(WIDEST)
    least, most = changed(high), changed(low)
    if not least < share <= most:
        raise DataError(
            f"{settings['name']}: with its thresholds scaled by 1/{WIDEST:g} to {WIDEST:g} it changes {least:.3g} to "
            f"{most:.3g} of the gradient mass of these tokens, and {share:.3g} lies outside. Choose another share."
        )
    while high - low > 1e-4:  # it falls with the factor
        middle = (low + high) / 2
        low, high = (middle, high) if changed(middle) >= share else (low, middle)
    exact = scaled(settings, math.exp((low + high) / 2))
    return {key: float(f"{value:.3g}") if isinstance(value, float) else value for key, value in exact.items()}


def matches(found: Masses, share: float, bounds: Mapping[str, Mapping[str, Any]] = BOUNDS) -> dict[str, Any]:
    """For each bound the ``settings`` that change ``share``, and what these do ``changed``."""
    made = {label: matched(found, settings, share) for label, settings in bounds.items()}
    return {
        label: {"settings": settings, "changed": found.changed(make_objective(**settings))}
        for label, settings in made.items()
    }


def described(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """What made the tokens: the settings of each run that the figures depend on."""
    keys = ("model", "task", "objective", "steps", "seed", "learning_rate", "updates_per_step", "rollout_lag")
    configs = [RunDirectory(run).read_config() for run in runs if RunDirectory(run).exists()]
    steps = [len(RunDirectory(run).token_files()) for run in runs if RunDirectory(run).exists()]
    return [
        {key: config[key] for key in keys if key in config}
        | {"model": Path(config["model"]).name, "logged_steps": logged}
        for config, logged in zip(configs, steps, strict=True)
    ]


def main() -> None:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the record below results/gradient-mass/")
    parser.add_argument("runs", nargs="+", type=Path, help="run directories with token logs")
    parser.add_argument("--match", type=float, help="also the thresholds at which each changes this share")
    parser.add_argument("--like", choices=[*BOUNDS], help="also the thresholds at which each changes as much as this")
    options = parser.parse_args()
    found = read(options.runs)
    command = ["python", "-m", "tools.measure.gradient_mass", options.name, *(run.name for run in options.runs)]
    record: dict[str, Any] = {
        "schema": 1,
        "command": shlex.join(command),
        "machine": describe(),
        "runs": described(options.runs),
        **shares(found),
    }
    share = options.match
    if options.like is not None:
        share = found.changed(make_objective(**BOUNDS[options.like]))
    if share is not None:
        record["matched"] = {"share": share, "like": options.like, "objectives": matches(found, share)}
    FOLDER.mkdir(parents=True, exist_ok=True)
    replace_text(FOLDER / f"{options.name}.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(FOLDER / f"{options.name}.json")


if __name__ == "__main__":
    main()
