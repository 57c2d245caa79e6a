"""Linear layers in bfloat16 on a CPU that has no units for it: the same numbers, multiplied in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from drpo.kernels import plain_head
from drpo.model import precision
from drpo.model.precision import WidenedLinear, set_precision
from support import tiny


@pytest.fixture(params=[True, False], ids=["with units", "without units"])
def units(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: request.param)
    return request.param


def layer(bias: bool) -> tuple[nn.Linear, torch.Tensor]:
    torch.manual_seed(0)
    plain = nn.Linear(300, 40, bias=bias).bfloat16()
    return plain, torch.randn(3, 17, 300).bfloat16()


def widened(plain: nn.Linear) -> Any:
    found: Any = nn.Linear(plain.in_features, plain.out_features, bias=plain.bias is not None).bfloat16()
    found.load_state_dict(plain.state_dict())
    found.__class__ = WidenedLinear
    return found


@pytest.mark.parametrize("bias", [False, True])
def test_the_sum_is_rounded_once(bias: bool) -> None:
    plain, x = layer(bias)
    out = widened(plain)(x)
    exact = x.double() @ plain.weight.double().T + (plain.bias.double() if bias else 0.0)
    assert out.dtype == torch.bfloat16 and out.shape == (3, 17, 40)
    # Eight bits: half a unit in the last place; beyond it only where float32's own rounding decides.
    torch.testing.assert_close(out.double(), exact, rtol=2**-8 * 1.001, atol=1e-5)
    assert float((out != exact.to(torch.bfloat16)).float().mean()) < 0.01


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_are_those_of_the_plain_layer_but_for_rounding(bias: bool) -> None:
    plain, x = layer(bias)
    other = widened(plain)
    given = [x.clone().requires_grad_(True) for _ in range(2)]
    upstream = torch.randn(3, 17, 40).bfloat16()
    for module, value in zip((plain, other), given, strict=True):
        module(value).backward(upstream)
    wanted = upstream.double().flatten(0, 1).T @ x.double().flatten(0, 1)
    torch.testing.assert_close(given[1].grad, given[0].grad, rtol=2**-6, atol=2**-6)
    torch.testing.assert_close(other.weight.grad.double(), wanted, rtol=2**-8, atol=1e-4)
    if bias:
        total = upstream.double().flatten(0, 1).sum(0)
        torch.testing.assert_close(other.bias.grad.double(), total, rtol=2**-8, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(other(x), other(x.clone().requires_grad_(True)))


def test_a_model_takes_it_where_there_are_no_units(units: bool) -> None:
    model = tiny.model()
    before = {name: type(module) for name, module in model.named_modules()}
    set_precision(model, "bf16")
    kinds = {type(module) for module in model.modules()}
    assert (nn.Linear in kinds, WidenedLinear in kinds) == (units, not units)
    assert plain_head(model) is model.lm_head.weight
    set_precision(model, "fp32")
    assert {name: type(module) for name, module in model.named_modules()} == before


def test_log_probabilities_are_those_of_bfloat16() -> None:
    ids = torch.arange(37).remainder(20).unsqueeze(0)
    found = []
    for has_units in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(precision, "multiplies_bf16", lambda device, answer=has_units: answer)
            model = set_precision(tiny.model(), "bf16")
        with torch.no_grad():
            found.append(model(input_ids=ids).logits.float().log_softmax(-1))
    with torch.no_grad():
        exact = tiny.model()(input_ids=ids).logits.log_softmax(-1)
    errors = [float((one - exact).abs().mean()) for one in found]
    assert errors[1] <= 1.5 * errors[0]  # as far from float32 as the machine's own bfloat16 is
