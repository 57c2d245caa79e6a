"""Part ``interpreter``: `token_logprobs` by the Triton kernels in Triton's interpreter, against float64.

What the kernels compute is checked, and nothing of how fast: the interpreter runs them as Python.
"""

from __future__ import annotations

import torch

import drpo
from drpo.bench.frame import Case, Row, Settings, Turn, Watch, measure, timed
from drpo.bench.gpu import Cases
from drpo.kernels import triton_backend as backend

#: Largest difference of log π and of the entropy, in nats; of a gradient, relative to its norm.
MOST = {"float32": 1e-5, "float64": 1e-9}


def cases(settings: Settings) -> Cases:
    """Sizes around the block edges, with one temperature for all tokens and with one per token."""
    blocks = backend.INTERPRETED
    for n, v, h in [(1, 1, 1), (9, 2 * blocks.columns + 3, 2 * blocks.width + 5), (blocks.rows + 1, 40, 7)]:
        title = f"interpreted, N={n} H={h} V={v}"

        def work(watch: Watch, title: str = title, n: int = n, v: int = v, h: int = h) -> list[Row]:
            turns = {
                f"{dtype}, {temperatures}": (lambda dtype=dtype, many=many: turn(n, v, h, dtype, many))
                for dtype in MOST
                for temperatures, many in (("one temperature", False), ("one a token", True))
            }
            sizes = {"tokens": n, "hidden": h, "vocabulary": v}
            case = Case(title=title, sizes=sizes, variants=turns, rounds=1, warm_up=0)
            return measure(case, watch, survive=(Exception,))

        yield title, work


def turn(n: int, v: int, h: int, dtype: str, many: bool) -> Turn:
    """Seconds, and the largest of the differences.

    Raises:
        ArithmeticError: it is larger than :data:`MOST` allows.
    """
    generator = torch.Generator().manual_seed(n)
    given = [torch.randn(*shape, generator=generator).to(getattr(torch, dtype)) for shape in ((n, h), (v, h))]
    hidden, weight = (tensor.requires_grad_(True) for tensor in given)
    targets = torch.randint(v, (n,), generator=generator)
    temperature = 0.5 + torch.rand(n, generator=generator) if many else 0.7
    upstream = torch.randn(n, generator=generator)
    found: list[torch.Tensor] = []

    def work() -> None:
        logprobs, entropy = drpo.token_logprobs(hidden, weight, targets, temperature, "triton")
        found.extend([logprobs, entropy, *torch.autograd.grad((logprobs * upstream).sum(), (hidden, weight))])

    seconds = timed(work).seconds
    exact = exactly(hidden, weight, targets, temperature, upstream)
    errors = [
        float((ours.detach().double() - right).abs().max() / (1 if place < 2 else right.norm().clamp(min=1)))
        for place, (ours, right) in enumerate(zip(found, exact, strict=True))
    ]
    if not max(errors) <= MOST[dtype]:
        raise ArithmeticError(f"log π, entropy and gradients differ from float64 by {errors}, allowed {MOST[dtype]}")
    return Turn(seconds, figures={"error": max(errors)})


def exactly(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    temperature: float | torch.Tensor,
    upstream: torch.Tensor,
) -> list[torch.Tensor]:
    """log π ``[N]``, entropy ``[N]`` and both gradients in float64.

    Args:
        hidden: ``[N, H]``.
        weight: ``[V, H]``.
        targets: ``[N]`` int64.
        temperature: a number, or ``[N]``.
        upstream: ``[N]``, the gradient of log π.
    """
    wide = [tensor.detach().double().requires_grad_(True) for tensor in (hidden, weight)]
    scale = temperature.double().unsqueeze(1) if isinstance(temperature, torch.Tensor) else temperature
    everything = (wide[0] @ wide[1].T / scale).log_softmax(1)
    logprobs = everything.gather(1, targets.unsqueeze(1)).squeeze(1)
    gradients = torch.autograd.grad((logprobs * upstream).sum(), wide)
    return [logprobs.detach(), -(everything.exp() * everything).sum(1).detach(), *gradients]
