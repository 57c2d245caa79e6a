"""`fused_loss` against plain float64 autograd over whole logits, for every objective it can serve.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from test_token_logprobs import LargestTensor

import drpo
from drpo import fused_loss
from drpo.errors import ConfigError, DataError
from drpo.kernels import chunks
from drpo.kernels.chunks import CHUNK_ROWS
from drpo.objectives import OBJECTIVES

V, H = 13, 6
SERVED = [name for name in OBJECTIVES if not drpo.make_objective(name).topk]
#: Objectives whose gradient may jump where a log-probability moves by a rounding error are compared in float64 only.
SMOOTH = ("surrogate", "drpo", "spo", "kl_penalty", "sapo", "mdpo")


@dataclass(frozen=True)
class Case:
    hidden: torch.Tensor
    weight: torch.Tensor
    targets: torch.Tensor
    fields: dict[str, Any]
    temperature: float | torch.Tensor = 1.0

    def to(self, dtype: torch.dtype) -> Case:
        return replace(self, hidden=self.hidden.to(dtype), weight=self.weight.to(dtype))


def make_case(n: int, temperature: float | torch.Tensor = 1.0, v: int = V, h: int = H, scale: float = 1.0) -> Case:
    generator = torch.Generator().manual_seed(n)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hidden, weight = scale * normal(n, h), normal(v, h)
    targets = torch.randint(0, v, (n,), generator=generator)
    logprobs, entropy = distributions(hidden, weight, targets, temperature)
    fields = {
        "behavior_logprobs": (logprobs + 0.4 * normal(n)).clamp(max=-1e-3),
        "proximal_logprobs": (logprobs + 0.1 * normal(n)).clamp(max=-1e-3),
        "advantages": normal(n),
        "entropy": entropy,
        "sequence_ids": torch.arange(n) // 7,
    }
    return Case(hidden, weight, targets, fields, temperature)


def distributions(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: Any) -> Any:
    scale = temperature.unsqueeze(1) if isinstance(temperature, torch.Tensor) else temperature
    everything = (hidden @ weight.T / scale).log_softmax(1)
    entropy = -(everything.exp() * everything).sum(1).detach()
    return everything.gather(1, targets.unsqueeze(1)).squeeze(1), entropy


@dataclass
class Answer:
    loss: torch.Tensor
    logprobs: torch.Tensor
    entropy: torch.Tensor
    grad_hidden: torch.Tensor | None
    grad_weight: torch.Tensor | None


def expected(case: Case, objective: drpo.Objective, **how: Any) -> Answer:
    hidden = case.hidden.double().clone().requires_grad_(True)
    weight = case.weight.double().clone().requires_grad_(True)
    logprobs, entropy = distributions(hidden, weight, case.targets, case.temperature)
    batch = drpo.TokenBatch(logprobs, **case.fields)
    loss = drpo.aggregate(objective(batch).loss, batch, **how)
    slopes = torch.autograd.grad(loss, (hidden, weight))
    return Answer(loss.detach(), logprobs.detach(), entropy, *slopes)


def found(case: Case, objective: drpo.Objective, upstream: float = 1.0, frozen: str = "", **how: Any) -> Answer:
    hidden = case.hidden.clone().requires_grad_(frozen != "hidden")
    weight = case.weight.clone().requires_grad_(frozen != "weight")
    out = fused_loss(hidden, weight, case.targets, objective, temperature=case.temperature, **case.fields, **how)
    assert not out.logprobs.requires_grad and not out.entropy.requires_grad
    (upstream * out.loss).backward()
    for leaf in (hidden, weight):
        assert leaf.grad is None or leaf.grad.dtype == leaf.dtype
    return Answer(out.loss.detach(), out.logprobs, out.entropy, hidden.grad, weight.grad)


def relative(ours: torch.Tensor | None, right: torch.Tensor | None) -> float:
    assert ours is not None and right is not None
    return float((ours.double() - right).abs().max() / right.abs().max().clamp(min=1e-300))


def assert_equal(ours: Answer, right: Answer, tolerance: float) -> None:
    assert ours.loss.item() == pytest.approx(right.loss.item(), rel=tolerance, abs=tolerance)
    for name in ("logprobs", "entropy", "grad_hidden", "grad_weight"):
        assert relative(getattr(ours, name), getattr(right, name)) <= tolerance, name


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize(
    "how",
    [{"mode": "token_mean"}, {"mode": "sequence_mean", "denominator": 90.0}, {"mode": "sequence_sum", "horizon": 9}],
)
def test_every_objective(name: str, how: dict[str, Any]) -> None:
    case, objective = make_case(2 * CHUNK_ROWS + 77), drpo.make_objective(name)
    assert_equal(found(case, objective, **how), expected(case, objective, **how), 1e-11)


@pytest.mark.parametrize("n", [1, 2, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1])
@pytest.mark.parametrize("name", ["drpo", "gspo"])
def test_sizes_around_a_chunk(name: str, n: int) -> None:
    case, objective = make_case(n), drpo.make_objective(name)
    assert_equal(found(case, objective), expected(case, objective), 1e-11)


@pytest.mark.parametrize("v", [1, 2, 257])
@pytest.mark.parametrize("h", [1, 3])
def test_odd_widths(v: int, h: int) -> None:
    case, objective = make_case(CHUNK_ROWS + 3, v=v, h=h), drpo.make_objective("drpo")
    ours, right = found(case, objective), expected(case, objective)
    assert ours.grad_weight is not None and right.grad_weight is not None
    torch.testing.assert_close(ours.grad_weight, right.grad_weight, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(ours.grad_hidden, right.grad_hidden, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(ours.entropy, right.entropy, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", ["drpo", "gmpo"])
@pytest.mark.parametrize("cached", [V, 100 * V, chunks.CACHED])
def test_temperature(name: str, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that the cache holds: one, a hundred, all of a chunk."""
    monkeypatch.setattr(chunks, "CACHED", cached)
    n = CHUNK_ROWS + 9
    each = torch.linspace(0.3, 3.0, n, dtype=torch.float64)
    for temperature in (0.7, 2.5, each):
        case, objective = make_case(n, temperature), drpo.make_objective(name)
        assert_equal(found(case, objective), expected(case, objective), 1e-11)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
@pytest.mark.parametrize("name", ["drpo", "gspo"])
def test_one_side_frozen(name: str, frozen: str) -> None:
    case, objective = make_case(CHUNK_ROWS + 5), drpo.make_objective(name)
    ours, right = found(case, objective, frozen=frozen), expected(case, objective)
    assert getattr(ours, f"grad_{frozen}") is None
    other = "grad_weight" if frozen == "hidden" else "grad_hidden"
    assert relative(getattr(ours, other), getattr(right, other)) <= 1e-11


def test_the_scale_of_the_backward_pass() -> None:
    case, objective = make_case(40), drpo.make_objective("drpo")
    ours, right = found(case, objective, upstream=-2.5), expected(case, objective)
    assert right.grad_hidden is not None and right.grad_weight is not None
    assert relative(ours.grad_hidden, -2.5 * right.grad_hidden) <= 1e-11
    assert relative(ours.grad_weight, -2.5 * right.grad_weight) <= 1e-11


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_float32(name: str, scale: float) -> None:
    """``scale`` 100 gives logits of ±1000, whose exponentials do not exist."""
    case = make_case(2 * CHUNK_ROWS + 1, scale=scale).to(torch.float32)
    # μ near π of the rounded inputs, so that no ratio saturates.
    logprobs, _ = distributions(case.hidden.double(), case.weight.double(), case.targets, 1.0)
    near = (logprobs + 0.3 * torch.linspace(-1, 1, len(logprobs))).clamp(max=-1e-3)
    case = replace(case, fields={**case.fields, "behavior_logprobs": near})
    objective = drpo.make_objective(name)
    ours, right = found(case, objective), expected(case, objective)
    largest = float((case.hidden.double() @ case.weight.double().T).abs().max())
    # Logits are right to about 1e-7 of their size, and an error of a logit is one of a log-probability.
    for field in ("logprobs", "entropy"):
        assert float((getattr(ours, field) - getattr(right, field)).abs().max()) <= 1e-6 * max(largest, 1.0), field
    for field in ("grad_hidden", "grad_weight"):
        assert relative(getattr(ours, field), getattr(right, field)) <= 1e-6 * max(largest, 10.0), field


@pytest.mark.parametrize("temperature", [1.0, 0.7, torch.linspace(0.6, 1.5, 3 * CHUNK_ROWS + 5, dtype=torch.float64)])
def test_bfloat16_inputs(temperature: float | torch.Tensor) -> None:
    case = make_case(3 * CHUNK_ROWS + 5, temperature).to(torch.bfloat16)
    objective = drpo.make_objective("drpo")
    ours, right = found(case, objective), expected(case, objective)
    assert ours.logprobs.dtype == ours.entropy.dtype == torch.float32
    # Logits of up to 16 / temperature are summed in float32, which is right to 1e-7 of their size.
    assert float((ours.logprobs - right.logprobs).abs().max()) <= 1e-5
    # The exponentials are rounded to bfloat16, 2^-9 of their size; their errors cancel in a sum.
    assert float((ours.entropy - right.entropy).abs().max()) <= 0.02
    assert relative(ours.grad_hidden, right.grad_hidden) <= 0.01
    assert relative(ours.grad_weight, right.grad_weight) <= 0.01


@pytest.mark.parametrize("name", ["drpo", "gspo"])
def test_it_never_holds_all_logits(name: str) -> None:
    case = make_case(3 * CHUNK_ROWS + 1, v=400, h=2).to(torch.float32)
    with LargestTensor() as seen:
        found(case, drpo.make_objective(name))
    assert seen.numbers == CHUNK_ROWS * 400


def test_small_vocabularies_take_more_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK_NUMBERS", 600 * V)
    case, objective = make_case(2 * 600 + 7), drpo.make_objective("drpo")
    with LargestTensor() as seen:
        ours = found(case, objective)
    assert seen.numbers == 600 * V
    assert_equal(ours, expected(case, objective), 1e-11)


def test_an_objective_that_drops_every_token() -> None:
    case = make_case(9)
    far = torch.full((9,), -1e-3, dtype=torch.float64)
    fields = {**case.fields, "behavior_logprobs": far, "advantages": torch.full((9,), -1.0, dtype=torch.float64)}
    ours = found(replace(case, fields=fields), drpo.make_objective("dppo_tv", delta=1e-9))
    assert ours.loss.item() == 0.0
    assert ours.grad_hidden is not None and not ours.grad_hidden.any()
    assert ours.grad_weight is not None and not ours.grad_weight.any()


def test_no_tokens_at_all() -> None:
    empty = torch.zeros(0, dtype=torch.float64)
    hidden = torch.zeros(0, H, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(V, H, dtype=torch.float64, requires_grad=True)
    out = fused_loss(
        hidden,
        weight,
        torch.zeros(0, dtype=torch.int64),
        drpo.make_objective("drpo"),
        behavior_logprobs=empty,
        advantages=empty,
        denominator=5.0,
    )
    out.loss.backward()
    assert out.loss.item() == 0.0 and weight.grad is not None and not weight.grad.any()


def test_without_gradients_it_still_measures() -> None:
    case, objective = make_case(30), drpo.make_objective("drpo")
    out = fused_loss(case.hidden, case.weight, case.targets, objective, **case.fields)
    right = expected(case, objective)
    assert not out.loss.requires_grad
    assert relative(out.logprobs, right.logprobs) <= 1e-12 and relative(out.entropy, right.entropy) <= 1e-12


def test_a_second_backward_pass_is_an_error() -> None:
    case = make_case(5)
    hidden = case.hidden.clone().requires_grad_(True)
    out = fused_loss(hidden, case.weight, case.targets, drpo.make_objective("drpo"), **case.fields)
    out.loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated before"):
        out.loss.backward()


def test_what_it_refuses() -> None:
    case = make_case(5)

    def call(objective: drpo.Objective, **changes: Any) -> None:
        arguments = {**case.fields, "temperature": 1.0, **changes}
        fused_loss(case.hidden, case.weight, case.targets, objective, **arguments)

    drpo_objective = drpo.make_objective("drpo")
    with pytest.raises(ConfigError, match=r"reads the 20 most likely tokens .* Use whole logits"):
        call(drpo.make_objective("dppo_topk_tv"))
    with pytest.raises(ConfigError, match="temperature must be finite and > 0, got 0"):
        call(drpo_objective, temperature=0.0)
    with pytest.raises(DataError, match=r"a temperature for each token must be \[N\] = \[5\], got \[4\]"):
        call(drpo_objective, temperature=torch.ones(4))
    with pytest.raises(DataError, match=r"advantages must be \[N\] = \[5\]"):
        call(drpo_objective, advantages=torch.ones(4))
    with pytest.raises(DataError, match="needs proximal_logprobs"):
        call(drpo.make_objective("minirl"), proximal_logprobs=None)
    with pytest.raises(ConfigError, match="sequence_sum needs horizon"):
        call(drpo_objective, mode="sequence_sum")
