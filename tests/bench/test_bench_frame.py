"""Turns, medians and ratios; and that the ways to the loss are ways to the same loss."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from drpo.bench import kernels
from drpo.bench.child import run_alone
from drpo.bench.frame import Case, Turn, measure, timed
from drpo.bench.losses import LOSSES, Problem, Size, losses
from drpo.bench.peak import measurable, peak_bytes
from drpo.bench.record import row_as_json

pytestmark = pytest.mark.slow


def script(order: list[str], name: str, seconds: list[float], tokens: list[float] | None = None) -> Callable[[], Turn]:
    """A variant that says it took ``seconds``, one a turn."""
    turns = iter([Turn(second, tokens[i] if tokens else None, {"index": i}) for i, second in enumerate(seconds)])

    def turn() -> Turn:
        order.append(name)
        return next(turns)

    return turn


def test_variants_take_turns_and_warm_up_does_not_count() -> None:
    order: list[str] = []
    said: list[str] = []
    case = Case(
        title="case",
        sizes={"n": 3},
        rounds=3,
        warm_up=1,
        baselines=("theirs",),
        skipped={"other": "not here"},
        variants={"ours": script(order, "ours", [99, 1, 2, 30]), "theirs": script(order, "theirs", [77, 4, 4, 40])},
    )
    ours, theirs, other = measure(case, said.append)
    assert order == ["ours", "theirs"] * 4
    assert said == ["case: warm-up", *(f"case: round {i} of 3" for i in (1, 2, 3))]
    assert list(ours.seconds) == [1, 2, 30] and ours.median == 2 and ours.figures == {"index": 2}
    assert ours.ratios == {"theirs": 0.5} and theirs.ratios == {"theirs": 1.0}
    assert other.skipped == "not here" and not other.seconds


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    case = Case(
        title="case",
        sizes={},
        rounds=3,
        warm_up=0,
        baselines=("theirs", "absent"),
        variants={"ours": script([], "ours", [1, 2, 30]), "theirs": script([], "theirs", [10, 2, 3])},
    )
    ours, _ = measure(case, lambda _: None)
    assert ours.ratios == {"theirs": 1.0}  # of 0.1, 1 and 10; the ratio of the medians would be 2/3


def test_ratios_per_token() -> None:
    case = Case(
        title="case",
        sizes={},
        rounds=1,
        warm_up=0,
        baselines=("theirs",),
        per_token=True,
        variants={"ours": script([], "ours", [1], [10]), "theirs": script([], "theirs", [4], [20])},
    )
    ours, theirs = measure(case, lambda _: None)
    assert ours.ratios == {"theirs": 0.5} and ours.tokens_per_second == 10 and theirs.tokens_per_second == 5


def test_out_of_memory_is_a_row() -> None:
    calls: list[int] = []

    def hungry() -> Turn:
        calls.append(1)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("no")
        return Turn(1.0)

    case = Case(
        title="case", sizes={}, rounds=3, variants={"hungry": hungry, "fine": lambda: Turn(1.0)}, baselines=("hungry",)
    )
    fine, row = measure(case, lambda _: None)
    assert row.variant == "hungry" and row.skipped == "out of memory" and len(calls) == 2
    assert len(fine.seconds) == 3 and fine.ratios == {}


def test_another_error_is_not_swallowed() -> None:
    def broken() -> Turn:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        measure(Case(title="case", sizes={}, rounds=1, variants={"broken": broken}), lambda _: None)


def test_timed_counts_what_the_work_says() -> None:
    turn = timed(lambda: 7)
    assert turn.tokens == 7 and turn.seconds > 0


SIZE = Size(tokens=128, hidden=16, vocabulary=96)


def gradients(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    problem = Problem(SIZE)
    LOSSES[name](problem)()
    assert problem.hidden.grad is not None and problem.weight.grad is not None
    return problem.hidden.grad, problem.weight.grad


@pytest.mark.parametrize("name", ["fused_loss", "token_logprobs chunked", "token_logprobs auto", "TRL fused head"])
def test_the_variants_do_the_same_work(name: str) -> None:
    if name == "TRL fused head":
        pytest.importorskip("trl")
    for got, expected in zip(gradients(name), gradients("naive"), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", losses("cpu", compiled=False)[0])
def test_every_variant_gives_both_gradients(name: str) -> None:
    hidden, weight = gradients(name)
    assert hidden.shape == (128, 16) and weight.shape == (96, 16)
    assert hidden.isfinite().all() and weight.isfinite().all() and hidden.abs().max() > 0 and weight.abs().max() > 0


def test_what_is_left_out_on_a_cpu() -> None:
    names, skipped = losses("cpu", compiled=False)
    assert not {"token_logprobs auto", "token_logprobs triton", "naive compiled"} & {*names, *skipped}
    assert set(names) | set(skipped) == set(LOSSES) - {"token_logprobs auto", "token_logprobs triton", "naive compiled"}
    on_gpu, _ = losses("cuda", compiled=True)
    assert {"token_logprobs auto", "naive compiled"} <= set(on_gpu)


def test_torch_compile_needs_a_compiler_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    names, skipped = losses("cpu", compiled=True)
    assert "naive compiled" not in names and "no-such-compiler" in skipped["naive compiled"]


def test_a_peak_that_cannot_be_told_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "peak_bytes", lambda size, name: None)
    monkeypatch.setattr(kernels, "measurable", lambda device: True)
    for row in kernels.measure_losses(SIZE, 1, False, lambda _: None):
        assert row.skipped or "out of memory" in row_as_json(row)["note"]


@pytest.mark.skipif(not measurable("cpu"), reason="peak memory of a process is read from Linux' /proc")
def test_peak_memory_sees_the_logits() -> None:
    size = Size(tokens=2048, hidden=32, vocabulary=16_384)
    logits = 4 * size.tokens * size.vocabulary
    naive, fused = peak_bytes(size, "naive"), peak_bytes(size, "fused_loss")
    assert naive is not None and fused is not None
    assert 1.5 * logits < naive < 5 * logits and fused < 0.6 * logits


def test_a_childs_peak_is_its_own() -> None:
    """Although this process has torch loaded, and memory that it once held."""
    held = bytearray(400_000_000)
    held[::4096] = b"x" * len(held[::4096])
    seconds, peak = run_alone([sys.executable, "-c", "x = b'x' * 60_000_000"])
    assert 60e6 < peak < 120e6 and 0 < seconds < 60
    with pytest.raises(subprocess.CalledProcessError):
        run_alone([sys.executable, "-c", "raise SystemExit(3)"])
