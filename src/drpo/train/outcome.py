"""What a run came to, in a sentence: held-out accuracy improved, did not change, or got worse, and what to try."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from drpo.collapse import collapsed_run
from drpo.intervals import accuracy_interval, difference_interval

Kind = Literal["improved", "unchanged", "worse", "unknown"]
Record = Mapping[str, Any]

#: Share of the responses at the length limit, and of the updates without a gradient, beyond which that is the reason.
NEARLY_ALL = 0.9
#: The largest |π − μ| of a run that never came near the bound, as a share of δ.
NEAR = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How held-out accuracy changed over a run, in ``sentence``; the likely ``reason`` and the setting to ``try_next``,
    where there is one. ``collapsed``: it fell from its best as :func:`drpo.collapse.has_collapsed` says, which counts
    as worse."""

    kind: Kind
    sentence: str
    reason: str = ""
    try_next: str = ""
    collapsed: bool = False

    @property
    def text(self) -> str:
        """All of it."""
        return " ".join(part for part in (self.sentence, self.reason, self.try_next) if part)


def outcome(evaluations: Sequence[Record], updates: Sequence[Record], config: Mapping[str, Any]) -> Outcome:
    """What the records of a run say.

    Args:
        evaluations: in their order; the first and the last are compared.
        updates: in their order.
        config: the run's resolved settings.
    """
    measured = [record for record in evaluations if "accuracy" in record and accuracy_interval(record)]
    if len(measured) < 2:
        return Outcome("unknown", "Held-out accuracy was not measured twice, so nothing is known about a change.")
    collapsed = collapsed_run(measured)
    first = max(measured, key=lambda record: record["accuracy"]) if collapsed else measured[0]
    before, after = _estimate(first), _estimate(measured[-1])
    change, low, high = difference_interval(before, after)
    kind: Kind = "improved" if low > 0 else "worse" if high < 0 else "unchanged"
    said = {"improved": "improved", "worse": "got worse", "unchanged": "did not change measurably"}[kind]
    if collapsed:
        when = f"after step {first['step']}" if first.get("step") else "before training"
        said = f"collapsed from its best, {when}, and stays below half of it"
    sentence = (
        f"Held-out accuracy {said}: {before[0]:.3f} → {after[0]:.3f} ({change:+.3f}, 95 % confidence interval "
        f"{low:+.3f} to {high:+.3f})."
    )
    reason, try_next = ("", "") if kind == "improved" else _reason(kind, updates, config, measured[-1], (low, high))
    return Outcome(kind, sentence, reason, try_next, collapsed)


def _estimate(record: Record) -> tuple[float, float, float]:
    """An evaluation's accuracy with its 95 % confidence interval."""
    interval = accuracy_interval(record)
    assert interval is not None, "measured records have their samples"
    return record["accuracy"], *interval


def _reason(
    kind: Kind, updates: Sequence[Record], config: Mapping[str, Any], last: Record, interval: tuple[float, float]
) -> tuple[str, str]:
    """The likely reason, and what to try: the first that applies."""
    if not updates:
        return "No update was made.", "Raise steps."
    cut_off = _mean(updates, "truncated_share")
    if cut_off >= NEARLY_ALL:
        limit = int(config["max_new_tokens"])
        return f"{cut_off:.0%} of the responses reached the length limit.", f"Try max_new_tokens={2 * limit}."
    still = sum(record["gradient_norm"] == 0 for record in updates) / len(updates)
    if still >= NEARLY_ALL:
        return (
            f"{still:.0%} of the updates had no gradient: the responses to a prompt had equal rewards.",
            "Try easier or harder prompts, or a larger group_size.",
        )
    if step := _beyond_since(updates):
        return (
            f"From step {step} on some update of each step has |π − μ| beyond δ = {updates[-1]['delta']:g} on more "
            "than 1 % of its tokens: the policy moves too far on each rollout batch.",
            _smaller(config),
        )
    furthest, delta = max(record["shift_max"] for record in updates), updates[-1]["delta"]
    if kind == "unchanged" and furthest < NEAR * delta:
        rate = float(config["learning_rate"])
        return (
            f"The policy hardly moved: |π − μ| was at most {furthest:.2g}, far from δ = {delta:g}.",
            f"Try learning_rate={3 * rate:.1g}, or more updates_per_step.",
        )
    if kind == "unchanged":
        return (
            f"A change between {interval[0]:+.3f} and {interval[1]:+.3f} cannot be told from none with "
            f"{last['samples']} held-out samples.",
            "Try more steps, or a larger eval_examples.",
        )
    return "The policy stayed within δ while it got worse.", f"Look at the responses of the report. {_smaller(config)}"


def _smaller(config: Mapping[str, Any]) -> str:
    rate, updates = float(config["learning_rate"]), int(config["updates_per_step"])
    fewer = f", or updates_per_step={updates // 2}" if updates > 1 else ""
    return f"Try learning_rate={rate / 3:.1g}{fewer}."


def _beyond_since(updates: Sequence[Record]) -> int:
    """The first step of the last stretch of steps whose p99 of |π − μ| exceeds δ, if the run ends in it; else 0."""
    furthest: dict[int, float] = defaultdict(float)
    for record in updates:
        furthest[record["step"]] = max(furthest[record["step"]], record["shift_p99"] / record["delta"])
    since = 0
    for step in sorted(furthest, reverse=True):
        if not furthest[step] > 1:
            break
        since = step
    return since


def _mean(updates: Sequence[Record], name: str) -> float:
    return sum(record[name] for record in updates) / len(updates)
