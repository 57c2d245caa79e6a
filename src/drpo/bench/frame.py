"""Turns and figures: variants take turns within a round, and a figure is the median over the rounds after warm-up.

What else the machine does then hits neighbors alike: ratios are medians of ratios within the same round.
"""

from __future__ import annotations

import gc
import importlib.util
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

#: How the reason of a row begins whose measurement ended with an error.
FAILED = "failed: "
#: Told what is being measured, for a line of progress.
Watch = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the user asked of a run.

    Args:
        device: a torch device, resolved.
        quick: sizes so small that the figures mean nothing: does everything run?
        rounds: measured rounds of every case; None: as many as the case is worth.
        compiled: torch.compile'd variants too.
        tokens: tokens of the log that `inspect` reads; None: the suite's own number.
        model: directory of the model that `model-step` trains; None: one of random weights.
    """

    device: str = "cpu"
    quick: bool = False
    rounds: int | None = None
    compiled: bool = False
    tokens: int | None = None
    model: Path | None = None


@dataclass(frozen=True)
class Turn:
    """One turn of a variant: seconds, response tokens made (None where that is no measure of the work), and whatever
    else was measured on the way."""

    seconds: float
    tokens: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Variants that do the same work.

    Args:
        title: one line for people.
        sizes: what the work is, in numbers.
        variants: name → one turn.
        baselines: variants that ratios are taken to.
        rounds, warm_up: measured rounds, and rounds before them.
        per_token: ratios are of seconds per token, for work that varies a little from turn to turn.
        curve: the size that grows from case to case, if cases belong to one curve.
        skipped: variant → why it is not measured.
    """

    title: str
    sizes: Mapping[str, int]
    variants: Mapping[str, Callable[[], Turn]]
    baselines: Sequence[str] = ()
    rounds: int
    warm_up: int = 1
    per_token: bool = False
    curve: str | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one variant took in one case; a skipped one has its reason and no seconds. ``note``: what else to know."""

    case: str
    variant: str
    sizes: Mapping[str, int]
    curve: str | None = None
    seconds: Sequence[float] = ()
    tokens: Sequence[float] | None = None
    ratios: Mapping[str, float] = field(default_factory=dict)
    per_token: bool = False
    figures: Mapping[str, float] = field(default_factory=dict)
    skipped: str | None = None
    note: str | None = None

    @property
    def median(self) -> float:
        """Median seconds of a turn."""
        return statistics.median(self.seconds)

    @property
    def tokens_per_second(self) -> float | None:
        """Median over rounds."""
        if self.tokens is None:
            return None
        return statistics.median(count / spent for count, spent in zip(self.tokens, self.seconds, strict=True))

    def costs(self) -> list[float]:
        """What ratios compare: seconds of each round, or seconds per token."""
        if not self.per_token or self.tokens is None:
            return list(self.seconds)
        return [spent / count for spent, count in zip(self.seconds, self.tokens, strict=True)]


def measure(case: Case, watch: Watch, survive: tuple[type[Exception], ...] = ()) -> list[Row]:
    """Every variant of ``case``, in turns; one row each, in the order of the variants, then the skipped ones.

    A variant that the device has no memory for is skipped from there on; so is one that raises an error of the classes
    ``survive``, with "failed: " and what the error says.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in case.variants}
    skipped = dict(case.skipped)
    for index in range(case.warm_up + case.rounds):
        watch(
            f"{case.title}: "
            + (f"round {index + 1 - case.warm_up} of {case.rounds}" if index >= case.warm_up else "warm-up")
        )
        for name in list(turns):
            turn = _turn_or_reason(case.variants[name], survive)
            if isinstance(turn, str):
                skipped[name] = turn
                del turns[name]
                release_memory()
            else:
                turns[name].append(turn)
    measured = {name: _row(case, name, done[case.warm_up :]) for name, done in turns.items()}
    rows = [_with_ratios(row, measured, case.baselines) for row in measured.values()]
    return rows + [
        Row(case=case.title, variant=name, sizes=case.sizes, curve=case.curve, skipped=reason)
        for name, reason in skipped.items()
    ]


def _turn_or_reason(variant: Callable[[], Turn], survive: tuple[type[Exception], ...]) -> Turn | str:
    """A reason if the device ran out of memory, or after an error of the classes ``survive``, whose traceback is
    printed; it holds the tensors and ends with this function."""
    try:
        return variant()
    except torch.OutOfMemoryError:
        return "out of memory"
    except survive as error:
        traceback.print_exc()
        return FAILED + one_line(error)


def one_line(error: BaseException) -> str:
    """The class of ``error`` and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"


def release_memory() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _row(case: Case, name: str, turns: list[Turn]) -> Row:
    tokens = [turn.tokens for turn in turns if turn.tokens is not None]
    figures = {key: statistics.median(turn.figures[key] for turn in turns) for key in turns[0].figures}
    return Row(
        case=case.title,
        variant=name,
        sizes=case.sizes,
        curve=case.curve,
        seconds=[turn.seconds for turn in turns],
        tokens=tokens or None,
        per_token=case.per_token,
        figures=figures,
    )


def _with_ratios(row: Row, rows: Mapping[str, Row], baselines: Sequence[str]) -> Row:
    ratios = {
        name: statistics.median(own / base for own, base in zip(row.costs(), rows[name].costs(), strict=True))
        for name in baselines
        if name in rows
    }
    return Row(**{**row.__dict__, "ratios": ratios})


def timed(work: Callable[[], float | None], device: str = "cpu") -> Turn:
    """The turn that ``work`` takes, all that it queued on the device included; it may return its number of tokens."""
    synchronize(device)
    started = time.perf_counter()
    tokens = work()
    synchronize(device)
    return Turn(time.perf_counter() - started, tokens)


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def missing(module: str, install: str) -> str | None:
    """Why a variant that needs ``module`` cannot run; None if it is there."""
    return None if importlib.util.find_spec(module) else f"{module} is not installed: {install}"
