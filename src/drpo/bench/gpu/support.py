"""Part ``support``: the loss over the tokens that truncated sampling kept, against the whole vocabulary and a mask.

Every response token has a support of as many ids, its own and drawn ones: few, as top-p keeps of a sharp policy, or
many, as it keeps of a flat one. The floor is the three products over the whole vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

import drpo
from drpo.bench.frame import Case, Row, Settings, Turn, Watch, measure, release_memory, timed
from drpo.bench.gpu import Cases
from drpo.bench.kernels import ON_GPU, QUICK
from drpo.bench.losses import LOSSES, Problem, Size, Step, fused_over, some_support

#: Ids of a support.
KEPT, KEPT_QUICK = (20, 2000), (3, 40)


def cases(settings: Settings) -> Cases:
    """The smallest size of the part ``kernels``, a case for each size of the supports."""
    size, default = next(iter((QUICK if settings.quick else ON_GPU).items()))
    here = dataclasses.replace(size, device=settings.device, dtype="bfloat16")
    for kept in KEPT_QUICK if settings.quick else KEPT:
        title = f"{here.title()}, supports of {kept:,} ids"
        yield (
            title,
            lambda watch, kept=kept, title=title: measure_support(here, kept, title, settings.rounds or default, watch),
        )


def measure_support(size: Size, kept: int, title: str, rounds: int, watch: Watch) -> list[Row]:
    """Every way with a support of ``kept`` ids, beside the ways without one."""
    problem = Problem(size)
    support = some_support(problem.targets, size.vocabulary, kept)
    steps = {name: LOSSES[name](problem) for name in ("floor", "fused_loss", "token_logprobs chunked")}
    steps |= {
        "fused_loss, support": fused_over(problem, support),
        "token_logprobs, support": in_two_steps(problem, support),
        "naive, support": masked(problem, support),
    }
    rows = measure(
        Case(
            title=title,
            sizes={**size.numbers(), "support": kept},
            variants={name: turn(problem, step) for name, step in steps.items()},
            baselines=("floor", "fused_loss"),
            rounds=rounds,
            warm_up=2,
        ),
        watch,
        survive=(Exception,),
    )
    release_memory()
    return rows


def turn(problem: Problem, step: Step) -> Callable[[], Turn]:
    """The time of ``step``, and on a card the highest memory above what was there before."""

    def work() -> Turn:
        problem.forget_gradients()
        device = problem.size.device
        if not device.startswith("cuda"):
            return timed(step, device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        seconds = timed(step, device).seconds
        return Turn(seconds, figures={"peak_bytes": torch.cuda.max_memory_allocated(device) - before})

    return work


def in_two_steps(problem: Problem, support: drpo.Support) -> Step:
    """`drpo.token_logprobs`, then the objective."""

    def step() -> None:
        logprobs, _ = drpo.token_logprobs(problem.hidden, problem.weight, problem.targets, support=support)
        problem.loss(logprobs).backward()

    return step


def masked(problem: Problem, support: drpo.Support) -> Step:
    """Whole logits, −inf outside of the support by a mask ``[N, V]``, log-softmax, autograd."""

    def step() -> None:
        mask = support.mask(problem.size.vocabulary)
        logits = (problem.hidden @ problem.weight.T).float().masked_fill(~mask, -torch.inf)
        logprobs = logits.log_softmax(-1).gather(1, problem.targets.unsqueeze(1)).squeeze(1)
        problem.loss(logprobs).backward()

    return step
