"""The loss path never waits for the device: no operation in it needs a tensor's values to know what to do next.

Checks of values are made where that waits for nothing, on a CPU alone, and are turned off here.
Seen on a CPU by the operations themselves: those that hand a value to Python, whose result's shape hangs on values,
or that bring a new tensor over from the host.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary, ``K`` most likely tokens.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_compile import fields
from torch.utils._python_dispatch import TorchDispatchMode

import drpo
from drpo import aggregation
from drpo.aggregation import Mode
from drpo.kernels import logprobs
from drpo.kernels.chunks import CHUNK_ROWS
from drpo.objectives import OBJECTIVES

N, H, V = 48, 4, 9
#: A way to aggregate, with the horizon that it needs and a denominator.
WAYS: list[tuple[Mode, int | None, float | torch.Tensor | None]] = [
    ("token_mean", None, None),
    ("token_mean", None, torch.tensor(50.0)),
    ("sequence_mean", None, None),
    ("sequence_mean", None, 6.0),
    ("sequence_sum", 8, None),
]
#: Operations that put what Python holds into a tensor; on a device that is a copy the host waits for.
FROM_THE_HOST = {torch.ops.aten.lift_fresh.default}


@pytest.fixture(autouse=True)
def _as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (aggregation, logprobs):
        monkeypatch.setattr(module, "is_readable", lambda values: False)


class NoWaiting(TorchDispatchMode):
    """Raises at the first operation that a GPU's host would wait in."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waits = torch.Tag.data_dependent_output in func.tags or func in FROM_THE_HOST
        if torch.Tag.dynamic_output_shape in func.tags:
            # Taking rows by number has a known shape; by a mask it has not.
            taken = args[1] if func is torch.ops.aten.index.Tensor else [None]
            waits = waits or any(index is None or index.dtype in (torch.bool, torch.uint8) for index in taken)
        if waits:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("mode", "horizon", "denominator"), WAYS)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective_and_aggregate(name: str, mode: Mode, horizon: int | None, denominator: Any) -> None:
    objective = drpo.make_objective(name)
    given = fields(objective.topk > 0)
    leaf = (given["behavior_logprobs"] + 0.2 * torch.sin(torch.arange(N))).requires_grad_(True)
    with NoWaiting():
        batch = drpo.TokenBatch(leaf, **given, validate=False)
        drpo.aggregate(objective(batch).loss, batch, mode, denominator, horizon).backward()
    assert leaf.grad is not None


def inputs(n: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, H, generator=generator).to(dtype).requires_grad_(True)
    weight = torch.randn(V, H, generator=generator).to(dtype).requires_grad_(True)
    return hidden, weight, torch.randint(0, V, (n,), generator=generator)


@pytest.mark.parametrize(("mode", "horizon", "denominator"), WAYS)
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if not drpo.make_objective(name).topk])
def test_fused_loss(name: str, mode: Mode, horizon: int | None, denominator: Any) -> None:
    objective, given = drpo.make_objective(name), inputs(N)
    with NoWaiting():
        out = drpo.fused_loss(*given, objective, **fields(False), mode=mode, denominator=denominator, horizon=horizon)
        out.loss.backward()
    assert given[0].grad is not None and given[1].grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_loss_in_every_dtype_and_temperature(dtype: torch.dtype) -> None:
    for temperature in (0.7, torch.linspace(0.5, 2.0, N)):
        given = inputs(N, dtype)
        with NoWaiting():
            out = drpo.fused_loss(*given, drpo.make_objective("drpo"), **fields(False), temperature=temperature)
            out.loss.backward()
        assert given[1].grad is not None


@pytest.mark.parametrize("backend", ["reference", "chunked", "auto"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_token_logprobs(backend: str, dtype: torch.dtype) -> None:
    given = inputs(CHUNK_ROWS + 1, dtype)
    with NoWaiting():
        values, _ = drpo.token_logprobs(*given, 0.7, backend)
        values.sum().backward()
    assert given[1].grad is not None


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.unique(),
        lambda x: torch.equal(x, x),
        lambda x: x + torch.tensor([1.0]),
        lambda x: x.masked_select(x > 0),
        lambda x: x.repeat_interleave(torch.arange(3)),
    ],
)
def test_the_watch_sees_what_waits(waits: Any) -> None:
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        waits(torch.arange(3.0))
