"""fp8 is really fp8, bfloat16 really bfloat16, and log μ is the log-probability of the policy that sampled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from drpo.errors import ConfigError, DataError
from drpo.model.precision import Quantized, QuantizedExperts, quantize, quantized_names
from drpo.rollouts import CopySampler, InProcessSampler, Precision, Request, Response, SamplingParameters, set_precision
from support import tiny

#: All finite numbers of e4m3, from its definition: sign, 4 bits of exponent with bias 7, 3 of mantissa; no infinity.
POSITIVE = [m / 8 * 2.0**-6 for m in range(8)]
POSITIVE += [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)]
GRID = torch.tensor(sorted({sign * value for value in POSITIVE for sign in (1, -1)}), dtype=torch.float64)

SMALL: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
}
HYBRID: dict[str, Any] = {
    "shared_expert_intermediate_size": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}


def mixture(name: str = "Qwen3MoeConfig", **changes: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, name)(**(SMALL | changes))
    made = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return made


def dense() -> Any:
    return tiny.model(sharpness=4.0)


def on_grid(values: torch.Tensor, scale: torch.Tensor) -> bool:
    """Whether ``values`` ``[…, K]`` divided by ``scale`` ``[…, 1]`` are e4m3 numbers, up to float32's rounding."""
    codes = values.double() / scale.double()
    nearest = (codes.unsqueeze(-1) - GRID).abs().amin(-1)
    return bool((nearest <= 1e-6 * codes.abs()).all())


def rounded(values: torch.Tensor) -> torch.Tensor:
    """``[…, K]`` float64: what e4m3 with a scale a row leaves of ``values``, by looking for the nearest of its numbers;
    of two the even one."""
    scale = values.abs().amax(-1, keepdim=True).float() / 448
    codes, positive = (values.float() / scale).double(), torch.tensor(POSITIVE, dtype=torch.float64)
    above = torch.searchsorted(positive, codes.abs()).clamp(1, len(positive) - 1)
    up, down = positive[above] - codes.abs(), codes.abs() - positive[above - 1]
    nearest = torch.where((up < down) | ((up == down) & (above % 2 == 0)), above, above - 1)
    return positive[nearest] * codes.sign() * scale.double()


def quantized_linear(weight: torch.Tensor) -> Any:
    """A linear layer of that weight ``[P, K]``, in fp8, the rest in float32."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(*reversed(weight.shape), bias=False)

        def get_output_embeddings(self) -> None:
            return None

    model = Model()
    layer: Any = set_precision(model, "fp8").layer.float()
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=20))
def test_quantized_values_lie_on_the_grid_and_are_the_nearest(numbers: list[float]) -> None:
    values = torch.tensor([numbers])
    codes, scale = quantize(values)
    assert torch.isin(codes.double(), GRID).all()
    assert scale.shape == (1, 1)
    peak = values.abs().amax()
    assert peak < 448e-12 or float(codes.abs().max()) == 448  # the whole range is used
    error = (codes.double() * scale - values.double()).abs()
    # Half a unit in the last of three bits, or of the smallest number there is.
    assert bool((error <= (values.double().abs() / 16).clamp(min=float(scale) * 2.0**-10) * (1 + 1e-6)).all())


def test_a_linear_layer_multiplies_weights_and_activations_of_e4m3() -> None:
    """Seen from outside: rows of a unit matrix bring out the weights, a unit matrix as weight the activations."""
    torch.manual_seed(0)
    weight, x = torch.randn(24, 32) * torch.logspace(-3, 3, 24).unsqueeze(1), torch.randn(40, 32)
    x *= torch.logspace(-4, 4, 40).unsqueeze(1)
    unit = torch.eye(32)
    seen = quantized_linear(weight)(unit).T
    assert on_grid(seen, weight.abs().amax(1, keepdim=True) / 448)
    assert not torch.equal(seen, weight) and torch.allclose(seen, weight, rtol=2**-4, atol=0.01 * float(weight.std()))
    seen = quantized_linear(unit)(x)
    assert on_grid(seen, x.abs().amax(1, keepdim=True) / 448)
    assert torch.allclose(seen.double(), rounded(x), rtol=1e-6)
    product = quantized_linear(weight)(x).detach()
    assert torch.allclose(product.double(), rounded(x) @ rounded(weight).T, rtol=1e-5, atol=1e-5 * float(product.std()))


def test_the_gradient_is_straight_through() -> None:
    torch.manual_seed(0)
    weight, x, slope = torch.randn(24, 32), torch.randn(3, 5, 32, requires_grad=True), torch.randn(3, 5, 24)
    layer = quantized_linear(weight)
    layer(x).backward(slope)
    assert x.grad is not None
    assert torch.allclose(x.grad.double(), slope.double() @ rounded(weight), atol=1e-4)
    expected = slope.double().flatten(0, 1).T @ rounded(x.detach()).flatten(0, 1)
    assert torch.allclose(layer.weight.grad.double(), expected, atol=1e-4)


def test_changed_weights_are_quantized_anew() -> None:
    layer, x = quantized_linear(torch.randn(8, 16)), torch.randn(2, 16)
    with torch.inference_mode():
        before = layer(x)
    layer(x).sum().backward()  # goes on from what was kept in inference mode
    with torch.no_grad():
        layer.weight.mul_(2)
    assert torch.allclose(layer(x), 2 * before)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (dense, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        (mixture, {"q_proj", "k_proj", "v_proj", "o_proj", "experts"}),
        (
            lambda: mixture("Qwen3_5MoeTextConfig", **HYBRID),
            {
                "q_proj",
                "k_proj",
                "v_proj",
                "o_proj",
                "experts",
                "in_proj_qkv",
                "in_proj_z",
                "out_proj",
                "gate_proj",
                "up_proj",
                "down_proj",
            },
        ),
    ],
)
def test_what_is_quantized_and_what_never_is(make: Callable[[], Any], expected: set[str]) -> None:
    """Every product but embeddings, head, norms, routers and the gates of recurrent layers; numbers as in float64."""
    model = make()
    names = quantized_names(model)
    assert {name.rsplit(".", 1)[-1] for name in names} == expected
    set_precision(model, "fp8")
    assert [name for name, module in model.named_modules() if isinstance(module, Quantized)] == names
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    seen = record(model, names)
    model(input_ids=torch.arange(1, 13).view(2, 6))
    assert len(seen) == len(names)
    for module, inputs, found in seen:
        right = (expert_sum if isinstance(module, QuantizedExperts) else product)(module, *inputs)
        close = (found.double() - right).abs() <= 2**-7 * right.abs() + 2**-8 * right.std()
        assert close.double().mean() > 0.99  # a bfloat16 between the products of an expert may round the other way
        assert (found.double() - right).abs().max() <= 0.2 * right.std()


def record(model: Any, names: list[str]) -> list[tuple[Any, tuple[torch.Tensor, ...], torch.Tensor]]:
    """(module, inputs, output) of every call to come."""
    seen: list[Any] = []
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda *call: seen.append(call))
    return seen


def product(module: Any, x: torch.Tensor) -> torch.Tensor:
    return rounded(x.detach()) @ rounded(module.weight.detach()).T


def expert_sum(module: Any, states: torch.Tensor, chosen: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The mixture token by token."""
    total = torch.zeros_like(states, dtype=torch.float64)
    up, down = rounded(module.gate_up_proj.detach()), rounded(module.down_proj.detach())
    for token, (x, experts, shares) in enumerate(zip(rounded(states.detach()), chosen, weights, strict=True)):
        for expert, share in zip(experts.tolist(), shares.double(), strict=True):
            gate, value = (up[expert] @ x).to(torch.bfloat16).chunk(2)
            inner = rounded((nn.functional.silu(gate) * value).detach())
            total[token] += share * (down[expert] @ inner).to(torch.bfloat16).double()
    return total.detach()


REQUESTS = [Request([3 + (i + j) % 15 for j in range(2 + 3 * i)], 6, seed=i) for i in range(3)]
ASKED = SamplingParameters(max_new_tokens=12, temperature=0.9)


@torch.no_grad()
def stepwise_logprobs(model: Any, request: Request, response: Response) -> torch.Tensor:
    """log π of the response, by the model itself one token after another, its head as a product in float64."""
    ids, cache, found = torch.tensor([list(request.prompt_ids)]), None, []
    for token in response.token_ids:
        out = model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache, ids = out.past_key_values, torch.tensor([[token]])
        logits = out.last_hidden_state[0, -1].double() @ model.get_output_embeddings().weight.double().T
        found.append((logits / 0.9).log_softmax(-1)[token])
    return torch.stack(found)


@pytest.mark.parametrize("make", [dense, mixture])
@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_behavior_logprobs_are_those_of_the_quantized_policy(make: Callable[[], Any], precision: Precision) -> None:
    """To 1e-4 for the very model that sampled (the same operations; a batch of another shape rounds otherwise), and not
    for the same weights in float32."""
    model = make()
    sampler = CopySampler(model, precision, {0})
    assert sampler._forward.lean is None
    ours, plain = [], []
    for request in REQUESTS:
        ((response,),) = sampler.sample([Request(request.prompt_ids, 1, request.seed)], ASKED)
        behavior = torch.tensor(response.behavior_logprobs)
        ours.append(behavior - stepwise_logprobs(sampler.model, request, response))
        plain.append(behavior - stepwise_logprobs(model, request, response))
    assert torch.cat(ours).abs().max() <= 1e-4
    assert torch.cat(plain).abs().mean() > {"bf16": 3e-4, "fp8": 5e-3}[precision]


def test_float32_copies_sample_as_the_model_itself() -> None:
    model = dense()
    samplers = InProcessSampler(model, {0}), CopySampler(model, "fp32", {0})
    ours, theirs = ([out for group in made.sample(REQUESTS, ASKED) for out in group] for made in samplers)
    assert [out.token_ids for out in ours] == [out.token_ids for out in theirs]
    for mine, right in zip(ours, theirs, strict=True):
        assert mine.behavior_logprobs == pytest.approx(right.behavior_logprobs, abs=1e-5)


def test_weights_are_taken_over_and_the_model_given_stays_alone() -> None:
    model, other = dense(), tiny.model(seed=1, sharpness=4.0)
    sampler = CopySampler(model, "fp8", {0})
    first = sampler.sample(REQUESTS, ASKED)
    sampler.load_weights(dict(other.named_parameters()))
    second = sampler.sample(REQUESTS, ASKED)
    assert second == CopySampler(other, "fp8", {0}).sample(REQUESTS, ASKED) != first
    sampler.load_weights({name: weight.bfloat16() for name, weight in model.named_parameters()})
    assert sampler.sample(REQUESTS, ASKED) == first
    assert model.dtype == torch.float32 and not any(isinstance(module, Quantized) for module in model.modules())
    with pytest.raises(DataError, match=r"do not fit its model: model.layers.1.mlp.up_proj.weight is missing"):
        sampler.load_weights({k: w for k, w in model.named_parameters() if k != "model.layers.1.mlp.up_proj.weight"})


def test_every_precision_is_reached_from_every_other() -> None:
    ids = torch.arange(1, 7).unsqueeze(0)
    ends: list[tuple[Precision, torch.dtype]] = [("bf16", torch.bfloat16), ("fp32", torch.float32)]
    for make in (dense, mixture):
        for last, dtype in ends:
            right = set_precision(make(), last)
            kinds = {type(module) for module in right.modules()}
            found = set_precision(set_precision(set_precision(make(), "bf16"), "fp8"), last)
            assert {type(module) for module in found.modules()} == kinds
            assert found.dtype == dtype
            if last == "bf16":
                assert torch.equal(found(input_ids=ids).logits, right(input_ids=ids).logits)


def test_rotary_frequencies_stay_in_float32() -> None:
    assert set_precision(dense(), "bf16").model.rotary_emb.inv_freq.dtype == torch.float32


def test_what_cannot_be_had_in_fp8_is_said() -> None:
    small: dict[str, Any] = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    with pytest.raises(ConfigError, match=r"fp8: GPT2LMHeadModel has no linear layers .*Use bf16"):
        CopySampler(mixture("GPT2Config", **small), "fp8", {0})
    with pytest.raises(ConfigError, match=r"fp8: model.layers.0.mlp.experts \(GptOssExperts\) lays its experts out"):
        CopySampler(mixture("GptOssConfig", num_local_experts=4), "fp8", {0})
    with pytest.raises(ConfigError, match=r"compiled sampling does not go together with fp8"):
        CopySampler(dense(), "fp8", {0}, compiled=True)
