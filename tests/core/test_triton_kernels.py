"""The Triton kernels beyond what every backend must do: run in Triton's interpreter, and compiled for real cards.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_fused_loss import assert_equal, expected, found, make_case, relative
from test_token_logprobs import Answer, LargestTensor, assert_close, problem, reference, run, triton_here

import drpo
from drpo import token_logprobs
from drpo.errors import ConfigError
from drpo.kernels import choose_backend, chunks, logprobs, triton_support

pytestmark = pytest.mark.slow


@pytest.fixture
def backend() -> Any:
    from drpo.kernels import triton_backend

    return triton_backend


@triton_here
@pytest.mark.parametrize("temperature", [1.0, torch.linspace(0.3, 3.0, 131, dtype=torch.float64)])
def test_beyond_every_block(backend: Any, monkeypatch: pytest.MonkeyPatch, temperature: float | torch.Tensor) -> None:
    """Three blocks of rows, three steps of the width, three stretches of the vocabulary forward and back."""
    monkeypatch.setattr(backend, "STRETCH", 2)
    blocks = backend.INTERPRETED
    n, v, h = 2 * blocks.rows + 3, 5 * blocks.columns + 7, 2 * blocks.width + 5
    monkeypatch.setattr(backend, "WORKSPACE", n * 2 * blocks.columns)
    assert n == 131
    given = problem(n, v=v, h=h)
    assert_close(run(given, "triton", temperature), reference(given, temperature), rtol=1e-10, atol=1e-11)


@triton_here
def test_strides_over_several_steps_of_the_width(backend: Any) -> None:
    """Every second row and column of tensors whose other places, and what lies behind them, are NaN."""
    given = problem(9, h=2 * backend.INTERPRETED.width + 5)

    def spread(values: torch.Tensor) -> torch.Tensor:
        room = torch.full([2 * size + 40 for size in values.shape], torch.nan, dtype=values.dtype)
        room[: 2 * len(values) : 2, : 2 * values.shape[1] : 2] = values
        return room[: 2 * len(values) : 2, : 2 * values.shape[1] : 2].requires_grad_(True)

    hidden, weight = spread(given.hidden), spread(given.weight)
    values, entropy = token_logprobs(hidden, weight, given.targets, 0.7, "triton")
    slopes = torch.autograd.grad(values, (hidden, weight), given.upstream)
    ours = Answer(*(part.detach().numpy() for part in (values, entropy, *slopes)))
    assert_close(ours, reference(given, 0.7), rtol=1e-10, atol=1e-12)


@triton_here
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_summed_in_float32(dtype: torch.dtype) -> None:
    given = problem(70, dtype, v=70, h=37)
    ours, right = run(given, "triton", 0.7), reference(given, 0.7)
    # Logits of up to 60, right to 1e-7 of their size.
    for name in ("logprobs", "entropy"):
        torch.testing.assert_close(getattr(ours, name), getattr(right, name), rtol=0, atol=2e-5)
    for name in ("hidden_gradient", "weight_gradient"):
        size = abs(getattr(right, name)).max()
        torch.testing.assert_close(getattr(ours, name), getattr(right, name), rtol=0, atol=0.006 * size)


@triton_here
def test_the_same_inputs_give_the_same_bits() -> None:
    given = problem(131, torch.float32, v=70, h=20)
    first, second = run(given, "triton"), run(given, "triton")
    for name in ("logprobs", "entropy", "hidden_gradient", "weight_gradient"):
        assert (getattr(first, name) == getattr(second, name)).all()


@triton_here
def test_it_never_holds_all_logits(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    n, v = 64, 160
    monkeypatch.setattr(backend, "WORKSPACE", n * 32)
    given = problem(n, torch.float32, v=v, h=2)
    hidden, weight = given.hidden.requires_grad_(True), given.weight.requires_grad_(True)
    with LargestTensor() as seen:
        token_logprobs(hidden, weight, given.targets, backend="triton")[0].sum().backward()
    assert seen.numbers == n * 32


@triton_here
def test_a_stretch_without_any_logit(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first stretch of the vocabulary is masked out; then all of it is, where there is no distribution."""
    monkeypatch.setattr(backend, "STRETCH", 1)
    masked = backend.INTERPRETED.columns
    given = problem(5, v=masked + 9)
    given.hidden[:, 0] = 1.0
    given.targets.copy_(torch.tensor([masked, masked + 8, masked + 1, masked, 0]))
    weight = given.weight.clone()
    weight[:masked] = 0.0
    weight[:masked, 0] = -math.inf
    values, entropy = token_logprobs(given.hidden, weight, given.targets, backend="triton")
    rest = replace(given, weight=given.weight[masked:], targets=(given.targets - masked).clamp(min=0))
    right = reference(rest)
    assert values[4].item() == -math.inf
    assert values[:4].tolist() == pytest.approx(right.logprobs[:4].tolist(), rel=1e-12)
    assert entropy.tolist() == pytest.approx(right.entropy.tolist(), rel=1e-12)
    weight[masked:] = weight[:9]
    for name in ("triton", "reference"):
        values, entropy = token_logprobs(given.hidden, weight, given.targets, backend=name)
        assert values.isnan().all()


@triton_here
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_a_number_stays_visible(bad: float) -> None:
    given = problem(6, torch.float32)
    given.hidden[2] = bad
    values, entropy = token_logprobs(given.hidden, given.weight, given.targets, backend="triton")
    assert values.isnan().tolist() == entropy.isnan().tolist() == [False, False, True, False, False, False]


@triton_here
def test_a_second_derivative_is_an_error() -> None:
    given = problem(3)
    hidden = given.hidden.clone().requires_grad_(True)
    values, _ = token_logprobs(hidden, given.weight, given.targets, backend="triton")
    with pytest.raises(RuntimeError, match="has no second derivative; use 'reference'"):
        torch.autograd.grad(values.sum(), hidden, create_graph=True)


# ---- the pass over the rows of a chunk of fused_loss


@triton_here
@pytest.mark.parametrize("v", [1, 33, 100])
@pytest.mark.parametrize("scale", [1.0, 0.7, torch.linspace(0.5, 2.0, 7, dtype=torch.float64).unsqueeze(1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_exponentials(
    backend: Any, monkeypatch: pytest.MonkeyPatch, v: int, scale: float | torch.Tensor, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(backend, "ROW_BLOCK", 32)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    x = (50 * torch.randn(7, v, generator=torch.Generator().manual_seed(v), dtype=torch.float64)).to(wide)
    x[1, 0] = -math.inf if v > 1 else 0.0
    if isinstance(scale, torch.Tensor):
        scale = scale.to(wide)
    right = chunks._exponentials(x.clone(), scale, None, dtype)
    ours = backend.exponentials(x.clone(), scale, dtype)
    for mine, other in zip(ours, right, strict=True):
        assert mine.dtype == other.dtype
        tolerance = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 0.01}[mine.dtype]
        torch.testing.assert_close(mine, other, rtol=tolerance, atol=2e-38)  # the interpreter has no subnormals


@triton_here
@pytest.mark.parametrize("name", ["drpo", "gspo"])
@pytest.mark.parametrize("temperature", [1.0, torch.linspace(0.6, 1.5, 70, dtype=torch.float64)])
def test_fused_loss_with_the_kernel(
    backend: Any, monkeypatch: pytest.MonkeyPatch, name: str, temperature: float | torch.Tensor
) -> None:
    calls = []
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 32)
    monkeypatch.setattr(triton_support, "compiles_for", lambda device: calls.append(device) or True)
    objective = drpo.make_objective(name)
    case = make_case(70, temperature)
    assert_equal(found(case, objective), expected(case, objective), 1e-11)
    narrow = case.to(torch.bfloat16)
    ours, right = found(narrow, objective), expected(narrow, objective)
    assert relative(ours.logprobs, right.logprobs) <= 1e-5 and relative(ours.grad_weight, right.grad_weight) <= 0.02
    assert len(calls) == 6  # a first pass, where there is one, makes no exponentials


# ---- which backend


def test_auto_takes_triton_for_large_narrow_inputs_where_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def choices(n: int) -> list[str]:
        dtypes = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
        return [choose_backend(torch.empty(n, 2, dtype=dtype), torch.empty(40, 2, dtype=dtype)) for dtype in dtypes]

    monkeypatch.setattr(logprobs, "AUTO_LIMIT", 400)
    assert choices(10) == ["reference"] * 4
    assert choices(11) == ["chunked"] * 4
    monkeypatch.setattr(triton_support, "compiles_for", lambda device: True)
    assert choices(10) == ["reference"] * 4
    assert choices(11) == ["triton", "triton", "chunked", "chunked"]


def test_auto_says_once_what_it_takes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    logprobs._announce.cache_clear()
    monkeypatch.setattr(logprobs, "AUTO_LIMIT", 40)
    with caplog.at_level(logging.INFO, logger="drpo.kernels"):
        for n in (3, 4, 3, 4, 2):
            given = problem(n)
            token_logprobs(given.hidden, given.weight, given.targets)
        token_logprobs(given.hidden, given.weight, given.targets, backend="chunked")
    logprobs._announce.cache_clear()
    assert caplog.messages == [
        "token_logprobs: auto takes the reference backend",
        "token_logprobs: auto takes the chunked backend",
    ]


def refusal() -> str:
    given = problem(2)
    with pytest.raises(ConfigError) as caught:
        token_logprobs(given.hidden, given.weight, given.targets, backend="triton")
    return str(caught.value)


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_support, "installed", lambda: False)
    assert "needs Triton, which is not installed: pip install triton" in refusal()
    assert not triton_support.compiles_for(torch.device("cuda"))


def test_without_a_device_or_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_support, "installed", lambda: True)
    monkeypatch.setattr(triton_support, "_interpreted", lambda: False)
    assert "needs a CUDA device or TRITON_INTERPRET=1, and the tensors are on cpu" in refusal()


LATE = """
import os, sys
os.environ.pop("TRITON_INTERPRET", None)
import triton.language, torch
os.environ["TRITON_INTERPRET"] = "1"
from drpo.kernels import triton_support
print(triton_support.obstacle(torch.device("cpu")))
"""


@triton_here
def test_the_variable_comes_too_late_after_triton() -> None:
    """Triton's own functions are decorated when it is imported, and half an interpreter runs nothing."""
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=120)
    assert "needs a CUDA device or TRITON_INTERPRET=1" in done.stdout, done.stderr


@triton_here
def test_the_kernels_compile_for_real_cards(tmp_path: Path) -> None:
    """To machine code, without a card: the matrix instructions of each, and no more shared memory than it has."""
    command = [sys.executable, "-m", "drpo.bench.gpu.part", "compilation", "--device", "cpu", "--out", str(tmp_path)]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "compilation.json").read_text(encoding="utf-8"))["rows"]
    assert {(row["variant"], row["sizes"]["card"]) for row in rows if "RESTRICTED" in row["case"]} == {
        (kernel, card) for kernel in ("measure", "slopes") for card in (80, 90)
    }
    assert {(row["variant"], row["sizes"]["card"]) for row in rows} == {
        (kernel, card) for kernel in ("measure", "slopes", "exponentials") for card in (80, 90)
    }
    for row in rows:
        card, figures = row["sizes"]["card"], row["figures"]
        assert figures["shared_bytes"] <= (227 if card == 90 else 99) * 1024
        assert (
            row["variant"] == "exponentials"
            or {
                "fp32": figures["wgmma"] == figures["mma"] == 0,
                "fp64": figures["mma"] > 0,
                "bf16": (figures["wgmma"] if card == 90 else figures["mma"]) > 0,
            }[row["case"].split(", ")[1]]
        )
