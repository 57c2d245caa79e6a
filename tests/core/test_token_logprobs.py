"""`token_logprobs`: every backend against a float64 reference written here in NumPy.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from drpo import token_logprobs
from drpo.errors import ConfigError, DataError
from drpo.kernels import BACKENDS, logprobs, triton_support
from drpo.kernels.chunks import CHUNK_ROWS

pytestmark = pytest.mark.slow

SIZES = (0, 1, 2, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS, 2 * CHUNK_ROWS + 77)
V, H = 11, 5


@dataclass
class Problem:
    """Inputs, and upstream gradients of the log-probabilities."""

    hidden: torch.Tensor
    weight: torch.Tensor
    targets: torch.Tensor
    upstream: torch.Tensor


def problem(n: int, dtype: torch.dtype = torch.float64, v: int = V, h: int = H, scale: float = 1.0) -> Problem:
    generator = torch.Generator().manual_seed(n)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    targets = torch.randint(0, v, (n,), generator=generator)
    return Problem((scale * normal(n, h)).to(dtype), normal(v, h).to(dtype), targets, normal(n))


@dataclass
class Answer:
    logprobs: np.ndarray
    entropy: np.ndarray
    hidden_gradient: np.ndarray
    weight_gradient: np.ndarray


def reference(given: Problem, temperature: float | torch.Tensor = 1.0) -> Answer:
    hidden, weight = given.hidden.double().numpy(), given.weight.double().numpy()
    scale = np.asarray(temperature)[..., None]
    logits = hidden @ weight.T / scale
    logits = logits - logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits)
    total = probabilities.sum(axis=1, keepdims=True)
    probabilities = probabilities / total
    log_probabilities = logits - np.log(total)
    rows, targets = np.arange(len(hidden)), given.targets.numpy()
    entropy = -np.where(probabilities > 0, probabilities * np.maximum(log_probabilities, -1e300), 0.0).sum(axis=1)
    slope = -probabilities
    slope[rows, targets] += 1.0
    slope *= given.upstream.numpy()[:, None] / scale
    return Answer(log_probabilities[rows, targets], entropy, slope @ weight, slope.T @ hidden)


def run(given: Problem, backend: str, temperature: float | torch.Tensor = 1.0) -> Answer:
    hidden = given.hidden.clone().requires_grad_(True)
    weight = given.weight.clone().requires_grad_(True)
    values, entropy = token_logprobs(hidden, weight, given.targets, temperature, backend)
    slopes = torch.autograd.grad(values, (hidden, weight), given.upstream.to(values.dtype))
    assert [slope.dtype for slope in slopes] == [hidden.dtype, weight.dtype]
    return Answer(*(part.detach().double().numpy() for part in (values, entropy, *slopes)))


def assert_close(ours: Answer, theirs: Answer, rtol: float, atol: float) -> None:
    for field in ("logprobs", "entropy", "hidden_gradient", "weight_gradient"):
        np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), rtol, atol, err_msg=field)


NO_TRITON = triton_support.obstacle(torch.device("cpu"))
triton_here = pytest.mark.skipif(NO_TRITON is not None, reason=str(NO_TRITON))
backends = pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=[triton_here] if name == "triton" else []) for name in sorted(BACKENDS)]
)


@backends
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients(backend: str, n: int, temperature: float):
    given = problem(n)
    assert_close(run(given, backend, temperature), reference(given, temperature), rtol=1e-10, atol=1e-12)


@backends
@pytest.mark.parametrize("n", [0, 1, CHUNK_ROWS + 9])
def test_a_temperature_for_each_token(backend: str, n: int):
    given, each = problem(n), torch.linspace(0.3, 3.0, n, dtype=torch.float64)
    assert_close(run(given, backend, each), reference(given, each), rtol=1e-10, atol=1e-12)


@backends
def test_the_dtype_of_the_temperatures_does_not_matter(backend: str):
    """Float32 beside narrower and wider inputs; a quarter is exact in all of them."""
    each = 0.25 + 0.25 * (torch.arange(40) % 5)
    for dtype, rtol in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        given = problem(40, dtype)
        assert_close(run(given, backend, each), reference(given, each), rtol=rtol, atol=10 * rtol * (rtol > 1e-9))
    values, entropy = token_logprobs(
        problem(40, torch.bfloat16).hidden, problem(40, torch.bfloat16).weight, given.targets, each.double(), backend
    )
    assert values.dtype == entropy.dtype == torch.float32


@backends
def test_strides_do_not_matter(backend: str):
    """Every second row and column of a larger tensor, and a transposed weight."""
    n = CHUNK_ROWS + 3
    given = problem(n)
    spread = torch.full((2 * n, 2 * H), torch.nan, dtype=torch.float64)
    spread[::2, ::2] = given.hidden
    scattered = Problem(
        spread[::2, ::2],
        given.weight.T.contiguous().T,
        given.targets.repeat_interleave(2)[::2],
        given.upstream.repeat_interleave(2)[::2],
    )
    assert not scattered.hidden.is_contiguous() and not scattered.weight.is_contiguous()
    hidden, weight = scattered.hidden.requires_grad_(True), scattered.weight.requires_grad_(True)
    values, entropy = token_logprobs(hidden, weight, scattered.targets, 0.7, backend)
    slopes = torch.autograd.grad(values, (hidden, weight), scattered.upstream)
    ours = Answer(*(part.detach().numpy() for part in (values, entropy, *slopes)))
    assert_close(ours, reference(given, 0.7), rtol=1e-10, atol=1e-12)


@backends
@pytest.mark.parametrize("v", [1, 2, 257])
@pytest.mark.parametrize("h", [1, 3])
def test_odd_widths(backend: str, v: int, h: int):
    given = problem(CHUNK_ROWS + 3, v=v, h=h)
    assert_close(run(given, backend, 2.5), reference(given, 2.5), rtol=1e-9, atol=1e-12)


@backends
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_float32(backend: str, scale: float):
    """``scale`` 300 gives logits of ±1000, whose exponentials do not exist."""
    given = problem(2 * CHUNK_ROWS + 1, torch.float32, scale=scale)
    ours, theirs = run(given, backend), reference(given)
    # Logits are right to about 1e-7 of their size, and an error of a logit is one of a log-probability.
    largest = float((given.hidden.double() @ given.weight.double().T).abs().max())
    np.testing.assert_allclose(ours.logprobs, theirs.logprobs, rtol=0, atol=1e-6 * largest)
    np.testing.assert_allclose(ours.entropy, theirs.entropy, rtol=0, atol=1e-5 * largest)
    for mine, right in (
        (ours.hidden_gradient, theirs.hidden_gradient),
        (ours.weight_gradient, theirs.weight_gradient),
    ):
        np.testing.assert_allclose(mine, right, rtol=0, atol=1e-6 * largest * np.abs(right).max())


@backends
def test_bfloat16_inputs_give_float32_values(backend: str):
    given = problem(3 * CHUNK_ROWS + 5, torch.bfloat16)
    values, entropy = token_logprobs(given.hidden, given.weight, given.targets, backend=backend)
    assert values.dtype == entropy.dtype == torch.float32
    ours, theirs = run(given, backend), reference(given)
    # The logits come out of the matrix product in bfloat16: 2^-9 of their size, which is below 10.
    np.testing.assert_allclose(ours.logprobs, theirs.logprobs, rtol=0, atol=0.05)
    np.testing.assert_allclose(ours.entropy, theirs.entropy, rtol=0, atol=0.05)
    for mine, right in (
        (ours.hidden_gradient, theirs.hidden_gradient),
        (ours.weight_gradient, theirs.weight_gradient),
    ):
        np.testing.assert_allclose(mine, right, rtol=0, atol=0.02 * np.abs(right).max())


@backends
@pytest.mark.parametrize("n", [0, 3, CHUNK_ROWS + 1])
@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_one_side_frozen(backend: str, frozen: str, n: int):
    given, right = problem(n), reference(problem(n))
    hidden, weight = given.hidden.clone(), given.weight.clone()
    trained = weight if frozen == "hidden" else hidden
    trained.requires_grad_(True)
    values, _ = token_logprobs(hidden, weight, given.targets, backend=backend)
    values.backward(given.upstream)
    expected = right.weight_gradient if frozen == "hidden" else right.hidden_gradient
    assert trained.grad is not None
    np.testing.assert_allclose(trained.grad.numpy(), expected, rtol=1e-10, atol=1e-12)
    assert (hidden if frozen == "hidden" else weight).grad is None


@backends
def test_everything_frozen(backend: str):
    given = problem(CHUNK_ROWS + 1)
    values, entropy = token_logprobs(given.hidden, given.weight, given.targets, backend=backend)
    assert not values.requires_grad and not entropy.requires_grad
    np.testing.assert_allclose(values.numpy(), reference(given).logprobs, rtol=1e-10)


@backends
@pytest.mark.parametrize("n", [1, CHUNK_ROWS + 1])
def test_entropy_is_a_constant(backend: str, n: int):
    given = problem(n)
    hidden = given.hidden.clone().requires_grad_(True)
    values, entropy = token_logprobs(hidden, given.weight, given.targets, backend=backend)
    assert values.requires_grad and not entropy.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        entropy.sum().backward()
    # Using it beside the log-probabilities changes no gradient.
    (with_entropy,) = torch.autograd.grad((values + 3.0 * entropy).sum(), hidden, retain_graph=True)
    (without,) = torch.autograd.grad(values.sum(), hidden)
    assert torch.equal(with_entropy, without)


@backends
def test_logits_of_minus_infinity(backend: str):
    """A vocabulary entry that is masked out: 0 in the entropy, no gradient, −inf where it is the target."""
    n = CHUNK_ROWS + 2
    given = problem(n)
    given.hidden[:, 0] = 1.0
    given.weight[4] = 0.0
    given.weight[4, 0] = -math.inf
    given.targets[given.targets == 4] = 3
    given.targets[7] = 4
    given.upstream[7] = 0.0
    weight = given.weight.clone().requires_grad_(True)
    values, entropy = token_logprobs(given.hidden, weight, given.targets, backend=backend)
    values[torch.arange(n) != 7].backward(given.upstream[torch.arange(n) != 7])

    remaining = torch.tensor([v for v in range(V) if v != 4])
    position = torch.full((V,), 0).index_put((remaining,), torch.arange(V - 1))
    right = reference(Problem(given.hidden, given.weight[remaining], position[given.targets], given.upstream))
    others = np.arange(n) != 7
    np.testing.assert_allclose(values.detach().numpy()[others], right.logprobs[others], rtol=1e-10)
    assert float(values[7].detach()) == -math.inf
    np.testing.assert_allclose(entropy.numpy(), right.entropy, rtol=1e-10)
    assert weight.grad is not None
    np.testing.assert_allclose(weight.grad[remaining].numpy(), right.weight_gradient, rtol=1e-9, atol=1e-12)
    assert weight.grad[4].tolist() == [0.0] * H


@backends
def test_entropy_of_known_distributions(backend: str):
    weight = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    hidden = torch.tensor([[0.0], [math.log(2.0)], [-800.0]], dtype=torch.float64)
    _, entropy = token_logprobs(hidden, weight, torch.tensor([0, 1, 2]), backend=backend)
    assert entropy.tolist() == pytest.approx([math.log(3), 1.5 * math.log(2), math.log(2)])  # ⅓⅓⅓, ¼¼½, ½½0


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns.

    But for bytes: Triton's interpreter works on copies of whole storages.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor) and value.dtype != torch.uint8:
                self.numbers = max(self.numbers, value.numel())
        return out


def largest_tensors(backend: str, n: int, v: int) -> tuple[int, int]:
    """Of the forward pass, and of the backward pass."""
    given = problem(n, torch.float32, v=v, h=2)
    hidden, weight = given.hidden.requires_grad_(True), given.weight.requires_grad_(True)
    with LargestTensor() as forward:
        values, _ = token_logprobs(hidden, weight, given.targets, backend=backend)
    with LargestTensor() as backward:
        values.sum().backward()
    return forward.numbers, backward.numbers


def test_chunked_never_holds_all_logits():
    n, v = 3 * CHUNK_ROWS + 1, 40
    assert largest_tensors("chunked", n, v) == (CHUNK_ROWS * v, CHUNK_ROWS * v)
    # The recorder does see them where they exist.
    assert largest_tensors("reference", n, v) == (n * v, n * v)


def test_auto_chunks_beyond_the_limit(monkeypatch: pytest.MonkeyPatch):
    n, v = 2 * CHUNK_ROWS, 40
    monkeypatch.setattr(logprobs, "AUTO_LIMIT", n * v)
    assert largest_tensors("auto", n, v)[0] == n * v
    monkeypatch.setattr(logprobs, "AUTO_LIMIT", n * v - 1)
    assert largest_tensors("auto", n, v)[0] == CHUNK_ROWS * v


def test_a_second_derivative_of_the_chunked_backend_is_an_error():
    """It is not supported, so it must not come out as a constant."""
    given = problem(3)
    hidden = given.hidden.clone().requires_grad_(True)
    values, _ = token_logprobs(hidden, given.weight, given.targets, backend="chunked")
    with pytest.raises(RuntimeError, match="has no second derivative; use 'reference'"):
        torch.autograd.grad(values.sum(), hidden, create_graph=True)


# ---- bad input


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature_must_be_positive(temperature: float):
    given = problem(2)
    with pytest.raises(ConfigError, match=f"temperature must be finite and > 0, got {temperature}"):
        token_logprobs(given.hidden, given.weight, given.targets, temperature)


def test_unknown_backend():
    given = problem(2)
    with pytest.raises(ConfigError, match=r"unknown backend 'chunky'\. Did you mean 'chunked'\? Known: auto, chunked"):
        token_logprobs(given.hidden, given.weight, given.targets, backend="chunky")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.zeros(3)}, r"hidden must be \[N, H\] and weight \[V, H\], got \[3\] and \[11, 5\]"),
        ({"hidden": torch.zeros(1, 3, 5)}, r"hidden must be \[N, H\].* got \[1, 3, 5\] and \[11, 5\]"),
        ({"hidden": torch.zeros(3, 4)}, r"hidden must be \[N, H\].* got \[3, 4\] and \[11, 5\]"),
        ({"weight": torch.zeros(11)}, r"hidden must be \[N, H\].* got \[3, 5\] and \[11\]"),
        (
            {"targets": torch.zeros(4, dtype=torch.int64)},
            r"targets must be int64 \[N\] = \[3\], got torch.int64 \[4\]",
        ),
        (
            {"targets": torch.zeros(1, 3, dtype=torch.int64)},
            r"targets must be int64 \[N\] = \[3\], got torch.int64 \[1, 3\]",
        ),
        (
            {"targets": torch.zeros(3, dtype=torch.int32)},
            r"targets must be int64 \[N\] = \[3\], got torch.int32 \[3\]",
        ),
        ({"targets": torch.zeros(3)}, r"targets must be int64 \[N\] = \[3\], got torch.float32 \[3\]"),
        (
            {"hidden": torch.zeros(3, 5, dtype=torch.bfloat16)},
            r"one floating-point dtype, got torch.bfloat16 and torch.float32; convert one with \.to\(\)",
        ),
        (
            {"hidden": torch.zeros(3, 5, dtype=torch.int64), "weight": torch.zeros(11, 5, dtype=torch.int64)},
            r"one floating-point dtype, got torch.int64 and torch.int64",
        ),
    ],
)
@pytest.mark.parametrize("backend", ["auto", "chunked", "reference"])
def test_shapes_and_dtypes_are_checked(backend: str, change: dict[str, torch.Tensor], message: str):
    arguments: dict[str, Any] = {
        "hidden": torch.zeros(3, 5),
        "weight": torch.zeros(11, 5),
        "targets": torch.zeros(3, dtype=torch.int64),
    }
    with pytest.raises(DataError, match=message):
        token_logprobs(**{**arguments, **change}, backend=backend)


@backends
@pytest.mark.parametrize("target", [-100, V])
def test_a_target_outside_the_vocabulary_is_an_error(backend: str, target: int):
    given = problem(2)
    given.targets[1] = target
    with pytest.raises(DataError, match=rf"targets must be in \[0, V\) with V = {V}: 1 of .* at index 1 with {target}"):
        token_logprobs(given.hidden, given.weight, given.targets, backend=backend)
