"""Suite ``kernels``: from hidden states to the gradients of the loss, with time and peak memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from drpo.bench.frame import Case, Row, Settings, Turn, Watch, measure, release_memory, timed
from drpo.bench.losses import STEPS, Problem, Size, losses
from drpo.bench.peak import measurable, peak_bytes

#: Size → measured rounds. The first two are those that the project's bars are set at; around the first, one number
#: at a time changes.
ON_CPU = {
    Size(tokens=1024, hidden=512, vocabulary=32_000): 7,
    Size(tokens=4096, hidden=256, vocabulary=151_936): 2,
    Size(tokens=256, hidden=512, vocabulary=32_000): 5,
    Size(tokens=1024, hidden=1024, vocabulary=32_000): 3,
    Size(tokens=1024, hidden=512, vocabulary=4_096): 5,
}
#: Qwen3-4B's head; Liger takes a sequence at a time.
ON_GPU = {
    Size(tokens=tokens, hidden=2560, vocabulary=151_936, length=2048, dtype="bfloat16"): 10
    for tokens in (8_192, 32_768)
}
QUICK = {Size(tokens=128, hidden=16, vocabulary=512): 2}


def run(settings: Settings, watch: Watch) -> Iterator[list[Row]]:
    """A case for every size."""
    on_gpu = settings.device.startswith("cuda")
    sizes = QUICK if settings.quick else ON_GPU if on_gpu else ON_CPU
    for size, rounds in sizes.items():
        here = dataclasses.replace(size, device=settings.device)
        yield measure_losses(here, settings.rounds or rounds, settings.compiled, watch)


def measure_losses(
    size: Size, rounds: int, compiled: bool, watch: Watch, survive: tuple[type[Exception], ...] = ()
) -> list[Row]:
    """Every variant at ``size``, with its peak memory; ``survive`` as in :func:`drpo.bench.frame.measure`."""
    names, skipped = losses(size.device, compiled)
    rows = measure(loss_case(size, names, rounds, skipped), watch, survive)
    release_memory()
    return [with_peak(row, size, watch) for row in rows]


def loss_case(
    size: Size, names: list[str], rounds: int, skipped: dict[str, str] | None = None, curve: str | None = None
) -> Case:
    """The variants ``names`` on inputs of ``size``."""
    problem = Problem(size)
    # Warm-up is for what is compiled, tuned or loaded at a first call, which is nothing beside a minute's work.
    on_cpu = size.device == "cpu"
    large = size.tokens * size.hidden * size.vocabulary > 1e11
    return Case(
        title=size.title(),
        sizes=size.numbers(),
        curve=curve,
        rounds=rounds,
        warm_up=(0 if large else 1) if on_cpu else 3,
        baselines=("floor", "naive", "Liger GRPO"),
        skipped=skipped or {},
        variants={name: turn_of(problem, STEPS[name](problem)) for name in names},
    )


def turn_of(problem: Problem, step: Callable[[], None]) -> Callable[[], Turn]:
    """A timed turn of ``step``, without the gradients of the one before."""

    def turn() -> Turn:
        problem.forget_gradients()
        return timed(step, problem.size.device)

    return turn


def with_peak(row: Row, size: Size, watch: Watch) -> Row:
    """``row`` with the peak memory of its variant, where that can be measured."""
    if row.skipped is not None or not measurable(size.device):
        return row
    watch(f"{row.case}: peak memory of {row.variant}")
    peak = peak_bytes(size, row.variant)
    if peak is None:
        return dataclasses.replace(row, note="no peak memory: the process that measures it was out of memory")
    return dataclasses.replace(row, figures={**row.figures, "peak_bytes": peak})
