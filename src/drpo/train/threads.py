"""How many threads a run computes with: as many as CPUs are free when it starts, and the same number ever after."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from drpo.cpus import Look, allowed_cpus, free_cpus, others_since_start, usable_cpus
from drpo.train.config import MOST_THREADS

#: Environment variables by which a user gives torch a number of threads.
GIVEN = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
#: Seconds over which :class:`LoadWatch` measures, and how many of these in a row must be slow.
WINDOW, WINDOWS = 5.0, 2
#: What share of the best speed is slow.
SLOW = 0.7


@dataclass(frozen=True, slots=True)
class Threads:
    """Their number, and what the user should know of it, if anything."""

    count: int
    note: str = ""


@contextmanager
def computing_threads(setting: int | str, recorded: object = None) -> Iterator[Threads]:
    """Within it torch computes with the threads of :func:`choose_threads`, afterwards with those of before."""
    chosen, before = choose_threads(setting, recorded), torch.get_num_threads()
    torch.set_num_threads(chosen.count)
    try:
        yield chosen
    finally:
        torch.set_num_threads(before)


def choose_threads(setting: int | str, recorded: object = None) -> Threads:
    """The number that ``setting`` gives, or with ``auto`` the first of these that there is:

    1. what the run was started with (``recorded`` in its manifest): sums are split by thread, and numbers stay the
       same bit for bit;
    2. what the environment gives torch;
    3. as many as CPUs are free, and no more than torch takes by itself.
    """
    given = next((name for name in GIVEN if os.environ.get(name)), None)
    before = recorded if type(recorded) is int and 0 < recorded <= MOST_THREADS else None
    if isinstance(setting, int):
        return Threads(setting, _of_setting(setting, before))
    if before is not None:
        return Threads(before, _of_resumed(before, given))
    default = torch.get_num_threads()
    if given is not None or default == 1:
        return Threads(default)
    others = others_since_start()
    count = min(default, free_cpus(others))
    if count == min(default, usable_cpus()):
        return Threads(count)
    return Threads(
        count,
        f"{_threads(count)}: other programs use {others:.1f} of {len(allowed_cpus())} CPUs (threads="
        f"{min(default, usable_cpus())} takes all of them anyway)",
    )


def _of_setting(count: int, before: int | None) -> str:
    if before is not None and before != count:
        return (
            f"{_threads(count)} where the run had {before}: later numbers differ in their last bits from those of an "
            "uninterrupted run"
        )
    if count > usable_cpus():
        return f"{_threads(count)} on {usable_cpus()} CPUs wait for each other: threads={usable_cpus()} is faster"
    return ""


def _of_resumed(before: int, given: str | None) -> str:
    if given is not None and torch.get_num_threads() != before:
        return (
            f"{_threads(before)}, as the run had before, for the same bits, although {given} is "
            f"{os.environ[given]}. Resume with threads={torch.get_num_threads()} to change that"
        )
    if before > usable_cpus():
        return (
            f"{_threads(before)}, as the run had before, for the same bits, on {usable_cpus()} CPUs. Resume with "
            f"threads={usable_cpus()} for more speed; results then differ in their last bits"
        )
    return ""


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


class LoadWatch:
    """Notices, once, that others took the CPUs that ``count`` threads compute on; ``free`` is what they leave."""

    def __init__(self, count: int):
        self.count, self.free = count, count
        self._best, self._slow, self._said = 0.0, 0, count == 1
        self._begin()

    def _begin(self) -> None:
        self._look, self._tokens = Look(), 0

    def after_step(self, tokens: int) -> str | None:
        """The beginning of a note, if now is the time for it; ``tokens`` were sampled and trained in a step."""
        self._tokens += tokens
        seconds = self._look.age()
        if self._said or seconds < WINDOW:
            return None
        others, speed = self._look.others(), self._tokens / seconds
        self._begin()
        self.free = free_cpus(others)
        self._best = max(self._best, speed)
        self._slow = self._slow + 1 if speed < SLOW * self._best and self.free < self.count else 0
        if self._slow < WINDOWS:
            return None
        self._said = True
        return (
            f"other programs use {others:.1f} of {len(allowed_cpus())} CPUs by now, and {self.count} threads wait "
            f"for each other: {speed:.0f} tokens/s, {self._best:.0f} before. Fewer threads would be faster: press "
            "Ctrl-C once, then "
        )
