"""What makes an inspection fail in a script: findings of a severity, or figures above a limit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from drpo.errors import ConfigError, suggest
from drpo.inspection.result import Inspection, Severity

#: What --fail-on takes → the severities that then fail.
LEVELS: dict[str, tuple[Severity, ...]] = {"fault": ("fault",), "warning": ("fault", "warning")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that the gate looked at: its ``name``, and why it failed, or nothing."""

    name: str
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """The limits of ``drpo inspect --fail-on LEVEL --max NAME=VALUE``."""

    severities: tuple[Severity, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, fail_on: str | None, limits: Iterable[str], known: Iterable[str]) -> Gate:
        """The gate that the options say; ``known`` are the names of figures.

        Raises:
            ConfigError: an unknown level or figure, or a limit that is no number.
        """
        if fail_on is not None and fail_on not in LEVELS:
            raise ConfigError(f"--fail-on must be {' or '.join(LEVELS)}, got {fail_on!r}.{suggest(fail_on, LEVELS)}")
        names = tuple(known)
        return cls(severities=LEVELS.get(fail_on or "", ()), limits=dict(_limit(text, names) for text in limits))

    def checks(self, found: Inspection) -> list[Check]:
        """One check a finding that counts, then one a limit; empty without any limit and severity."""
        failing = [
            Check(name=finding.name, failure=f"{finding.severity}: {finding.title}. {finding.evidence}")
            for finding in found.findings
            if finding.severity in self.severities
        ]
        passed = [Check(name="findings")] if self.severities and not failing else []
        return [*failing, *passed, *(_within(name, limit, found) for name, limit in self.limits.items())]


def _within(name: str, limit: float, found: Inspection) -> Check:
    value = found.figures[name]
    if math.isnan(value):
        return Check(
            name=name, failure=f"{name} has no value in this log, so that it cannot be compared with {limit:g}"
        )
    return Check(name=name, failure=f"{name} is {value:.4g}, above the limit {limit:g}" if value > limit else "")


def _limit(text: str, known: tuple[str, ...]) -> tuple[str, float]:
    name, _, value = text.partition("=")
    if name not in known:
        raise ConfigError(f"--max {text!r}: no figure {name!r}.{suggest(name, known)}")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ConfigError(f"--max {text!r}: the limit must be a number, as in --max {name}=0.05")
    return name, number
