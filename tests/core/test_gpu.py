"""The kernels on a real card: at the sizes of a language model, against float64, and with bounded memory.

Shapes: ``N`` tokens, ``H`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import drpo
from drpo.kernels import choose_backend
from drpo.kernels.chunks import GPU_CHUNK_ROWS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
V, H = 32_003, 1_024
GIGABYTE = 1 << 30


def make(n: int, v: int = V, h: int = H, dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, ...]:
    """hidden, weight, targets: logits of a few units, as a language model has them."""
    generator = torch.Generator("cuda").manual_seed(n)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device="cuda")

    hidden = normal(n, h).to(dtype).requires_grad_(True)
    weight = (3.0 / h**0.5 * normal(v, h)).to(dtype).requires_grad_(True)
    return hidden, weight, torch.randint(0, v, (n,), generator=generator, device="cuda")


def exactly(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, temperature: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """log π, with its graph, and the entropy, in float64."""
    scale = temperature.double().unsqueeze(1) if isinstance(temperature, torch.Tensor) else temperature
    everything = (hidden.double() @ weight.double().T / scale).log_softmax(1)
    entropy = -(everything.exp() * everything).sum(1).detach()
    return everything.gather(1, targets.unsqueeze(1)).squeeze(1), entropy


def relative(ours: torch.Tensor, right: torch.Tensor) -> float:
    return float((ours.double() - right.double()).norm() / right.double().norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "v", "h"), [(1_003, V, H), (1, 1, 1), (1, 257, 33), (300, 5_000, 100)])
def test_triton(dtype: torch.dtype, n: int, v: int, h: int) -> None:
    for temperature in (1.0, 0.5 + torch.rand(n, device="cuda")):
        hidden, weight, targets = make(n, v, h, dtype)
        values, entropy = drpo.token_logprobs(hidden, weight, targets, temperature, "triton")
        right, right_entropy = exactly(hidden, weight, targets, temperature)
        tolerance = 1e-9 if dtype == torch.float64 else 1e-4
        torch.testing.assert_close(values.double(), right, rtol=0, atol=tolerance)
        torch.testing.assert_close(entropy.double(), right_entropy, rtol=0, atol=tolerance)
        upstream = torch.randn(n, device="cuda", dtype=values.dtype)
        ours = torch.autograd.grad(values, (hidden, weight), upstream)
        theirs = torch.autograd.grad(right, (hidden, weight), upstream.double())
        if v > 1:
            narrow = dtype in (torch.bfloat16, torch.float16)
            for mine, other in zip(ours, theirs, strict=True):
                assert relative(mine, other) <= (0.01 if narrow else 1e-4)


def test_triton_gives_the_same_bits_twice() -> None:
    hidden, weight, targets = make(2_000)
    results = []
    for _ in range(2):
        values, entropy = drpo.token_logprobs(hidden, weight, targets, backend="triton")
        results.append([values, entropy, *torch.autograd.grad(values.sum(), (hidden, weight))])
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


def test_auto_takes_triton() -> None:
    hidden, weight, _ = make(1_000)
    expected = "triton" if torch.cuda.get_device_capability() >= (8, 0) else "chunked"
    assert choose_backend(hidden, weight) == expected


@pytest.mark.parametrize("name", ["drpo", "gspo"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_fused_loss(name: str, dtype: torch.dtype) -> None:
    n = GPU_CHUNK_ROWS + 77
    temperature = 0.8 + 0.4 * torch.rand(n, device="cuda")
    hidden, weight, targets = make(n, v=4_001, h=256, dtype=dtype)
    right, entropy = exactly(hidden, weight, targets, temperature)
    objective = drpo.make_objective(name)
    fields: dict[str, Any] = {
        "behavior_logprobs": (right + 0.05 * torch.randn_like(right)).detach().clamp(max=-1e-4).float(),
        "advantages": torch.randn(n, device="cuda"),
        "sequence_ids": torch.arange(n, device="cuda") // 50,
    }
    out = drpo.fused_loss(hidden, weight, targets, objective, temperature=temperature, **fields)
    batch = drpo.TokenBatch(right, **fields)
    loss = drpo.aggregate(objective(batch).loss, batch)
    torch.testing.assert_close(out.logprobs.double(), right, rtol=0, atol=1e-4)
    torch.testing.assert_close(out.entropy.double(), entropy, rtol=0, atol=0.02)
    assert out.loss.item() == pytest.approx(loss.item(), abs=1e-4)
    ours = torch.autograd.grad(out.loss, (hidden, weight))
    for mine, other in zip(ours, torch.autograd.grad(loss, (hidden, weight)), strict=True):
        assert relative(mine, other) <= 0.02


def peak(n: int, v: int, h: int, how: str) -> int:
    """Bytes above the inputs of one forward and backward pass."""
    hidden, weight, targets = make(n, v, h)
    behavior, advantages = torch.full((n,), -11.0, device="cuda"), torch.randn(n, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    if how == "fused":
        drpo.fused_loss(
            hidden, weight, targets, drpo.make_objective("drpo"), behavior_logprobs=behavior, advantages=advantages
        ).loss.backward()
    else:
        drpo.token_logprobs(hidden, weight, targets, backend=how)[0].mean().backward()
    return torch.cuda.max_memory_allocated() - before


@pytest.mark.parametrize("how", ["fused", "triton"])
def test_peak_memory_does_not_grow_with_all_logits(how: str) -> None:
    if torch.cuda.get_device_properties(0).total_memory < 20 * GIGABYTE:
        pytest.skip("needs 20 GB of device memory")
    v, h = 151_936, 1_024
    small, large = (peak(n, v, h, how) for n in (2 * GPU_CHUNK_ROWS, 4 * GPU_CHUNK_ROWS))
    # What remains is a row of float32 for each token, and the gradient of the hidden states.
    assert large - small <= 2 * GPU_CHUNK_ROWS * (16 * h + 4_096)
    logits = 4 * GPU_CHUNK_ROWS * v * 4
    assert large <= 0.6 * logits


def test_no_operation_waits_for_the_device() -> None:
    hidden, weight, targets = make(GPU_CHUNK_ROWS + 1, v=1_000, h=64)
    behavior, advantages = torch.full((len(hidden),), -7.0, device="cuda"), torch.randn(len(hidden), device="cuda")

    def step() -> None:
        for name in ("drpo", "gspo"):
            drpo.fused_loss(
                hidden, weight, targets, drpo.make_objective(name), behavior_logprobs=behavior, advantages=advantages
            ).loss.backward()
        drpo.token_logprobs(hidden, weight, targets, 0.7, "triton")[0].sum().backward()

    step()  # compiles, which may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
