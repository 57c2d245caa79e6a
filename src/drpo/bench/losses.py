"""From hidden states to the gradients of a policy loss, by every way that people use: each a variant of the same work.

A step goes forward and backward on (hidden, weight), both of which get a gradient. ``floor`` is the three matrix
products that any method needs (the logits, and one for each gradient) and nothing else.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import torch

import drpo
from drpo.bench.frame import missing
from drpo.installation import install

Step = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Size:
    """``tokens`` N hidden states of width ``hidden`` H, a ``vocabulary`` V; ``length`` tokens are a sequence for a
    method that wants sequences (N must be a multiple)."""

    tokens: int
    hidden: int
    vocabulary: int
    length: int = 64
    device: str = "cpu"
    dtype: str = "float32"

    def title(self) -> str:
        """For people."""
        return f"N={self.tokens:,} H={self.hidden:,} V={self.vocabulary:,} {self.dtype}"

    def numbers(self) -> dict[str, int]:
        """For the record."""
        return {"tokens": self.tokens, "hidden": self.hidden, "vocabulary": self.vocabulary}


class Problem:
    """Inputs of ``size``, the same every time, μ a little off π."""

    def __init__(self, size: Size):
        self.size, self.objective = size, drpo.make_objective("drpo")
        generator = torch.Generator(size.device).manual_seed(0)
        dtype = getattr(torch, size.dtype)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, device=size.device, dtype=dtype)

        self.hidden, self.weight = 0.3 * normal(size.tokens, size.hidden), 0.1 * normal(size.vocabulary, size.hidden)
        self.targets = torch.randint(size.vocabulary, (size.tokens,), generator=generator, device=size.device)
        with torch.no_grad():
            logprobs, _ = drpo.token_logprobs(self.hidden, self.weight, self.targets, backend="chunked")
        self.behavior = (logprobs + 0.2 * normal(size.tokens).float()).clamp(max=-1e-4)
        self.advantages = normal(size.tokens).float()
        self.hidden.requires_grad_(True)
        self.weight.requires_grad_(True)

    def forget_gradients(self) -> None:
        """As an optimizer's zero_grad does."""
        self.hidden.grad = self.weight.grad = None

    def loss(self, logprobs: torch.Tensor) -> torch.Tensor:
        """DRPO's, from log π of the targets ``[N]``."""
        batch = drpo.TokenBatch(logprobs, self.behavior, self.advantages, validate=False)
        return drpo.aggregate(self.objective(batch).loss, batch)


def floor(problem: Problem) -> Step:
    """Three matrix products."""

    def step() -> None:
        hidden, weight = problem.hidden, problem.weight
        with torch.no_grad():
            logits = hidden @ weight.T
            hidden.grad, weight.grad = logits @ weight, logits.T @ hidden

    return step


def _naive_loss(problem: Problem, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    logprobs = (hidden @ weight.T).float().log_softmax(-1).gather(1, problem.targets.unsqueeze(1)).squeeze(1)
    return problem.loss(logprobs)


def naive(problem: Problem) -> Step:
    """Whole logits, log-softmax, autograd."""
    return lambda: _naive_loss(problem, problem.hidden, problem.weight).backward()


def compiled_naive(problem: Problem) -> Step:
    """The same function under torch.compile, for this size alone."""
    loss = torch.compile(lambda hidden, weight: _naive_loss(problem, hidden, weight), dynamic=False, fullgraph=True)
    return lambda: loss(problem.hidden, problem.weight).backward()


def token_logprobs(backend: str) -> Callable[[Problem], Step]:
    """`drpo.token_logprobs`, then the objective."""

    def make(problem: Problem) -> Step:
        def step() -> None:
            logprobs, _ = drpo.token_logprobs(problem.hidden, problem.weight, problem.targets, backend=backend)
            problem.loss(logprobs).backward()

        return step

    return make


def fused(objective: str) -> Callable[[Problem], Step]:
    """`drpo.fused_loss`: one pass for an objective that is token-local, two for another."""

    def make(problem: Problem) -> Step:
        chosen = drpo.make_objective(objective)

        def step() -> None:
            drpo.fused_loss(
                problem.hidden,
                problem.weight,
                problem.targets,
                chosen,
                behavior_logprobs=problem.behavior,
                advantages=problem.advantages,
            ).loss.backward()

        return step

    return make


def some_support(targets: torch.Tensor, vocabulary: int, size: int) -> drpo.Support:
    """For each of ``targets`` ``[N]`` that token and ``size`` − 1 others, one from each stretch of the vocabulary."""
    stride = vocabulary // size
    generator = torch.Generator().manual_seed(1)
    places = torch.randint(stride, (len(targets), size), generator=generator, dtype=torch.int32)
    ids = places.add_(torch.arange(0, stride * size, stride, dtype=torch.int32)).to(targets.device)
    stretch = (targets // stride).clamp(max=size - 1)
    ids.scatter_(1, stretch.unsqueeze(1), targets.unsqueeze(1).to(torch.int32))
    return drpo.Support(ids.flatten(), torch.arange(len(targets) + 1) * size)


def fused_over(problem: Problem, support: drpo.Support) -> Step:
    """`drpo.fused_loss` over ``support``."""
    return lambda: drpo.fused_loss(
        problem.hidden,
        problem.weight,
        problem.targets,
        problem.objective,
        behavior_logprobs=problem.behavior,
        advantages=problem.advantages,
        support=support,
    ).loss.backward()


def restricted(size: int) -> Callable[[Problem], Step]:
    """`drpo.fused_loss` over supports of ``size`` tokens."""
    return lambda problem: fused_over(problem, some_support(problem.targets, problem.size.vocabulary, size))


def trl(problem: Problem) -> Step:
    """The fused LM head that TRL's GRPOTrainer gives its model (log-probabilities and entropy), then our objective."""
    from trl.kernels import ChunkedLogProbFunction  # pyright: ignore[reportMissingImports]
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE as CHUNK  # pyright: ignore[reportMissingImports]

    def step() -> None:
        logprobs, *_ = ChunkedLogProbFunction.apply(
            problem.hidden, problem.weight, None, problem.targets, 1.0, CHUNK, None, 1.0, ("log_probs", "entropy")
        )
        problem.loss(logprobs).backward()

    return step


def liger(problem: Problem) -> Step:
    """Liger-Kernel's fused linear GRPO loss as it comes, over sequences; it compiles itself on a GPU."""
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss  # pyright: ignore[reportMissingImports]

    loss = LigerFusedLinearGRPOLoss(beta=0.0, use_ref_model=False, compiled=problem.size.device != "cpu")
    length = problem.size.length
    tokens = problem.targets.view(-1, length)

    def step() -> None:
        value, _ = loss(
            problem.hidden.view(*tokens.shape, -1),
            problem.weight,
            tokens,
            torch.ones_like(tokens),
            problem.advantages.view(-1, length)[:, 0],
            old_per_token_logps=problem.behavior.view(-1, length),
        )
        value.backward()

    return step


#: Variant → what makes its step. Two-pass is shown on GSPO, whose tokens share their sequence's ratio.
LOSSES: dict[str, Callable[[Problem], Step]] = {
    "floor": floor,
    "fused_loss": fused("drpo"),
    "fused_loss two-pass": fused("gspo"),
    "token_logprobs auto": token_logprobs("auto"),
    "token_logprobs triton": token_logprobs("triton"),
    "token_logprobs chunked": token_logprobs("chunked"),
    "naive": naive,
    "naive compiled": compiled_naive,
    "TRL fused head": trl,
    "Liger GRPO": liger,
}
#: Ids of a nucleus.
NUCLEI = (5, 50, 500, 5_000)
#: Variant → what makes its step, over supports.
RESTRICTED: dict[str, Callable[[Problem], Step]] = {f"nuclei of {size:,}": restricted(size) for size in NUCLEI}
#: All of them.
STEPS = LOSSES | RESTRICTED


def losses(device: str, compiled: bool) -> tuple[list[str], dict[str, str]]:
    """The variants that run here, and why others do not.

    ``auto`` and ``triton`` are variants of their own on a GPU alone: elsewhere ``auto`` is one of the others.
    """
    from drpo.kernels import BACKENDS

    cpu = not device.startswith("cuda")
    skipped = {
        "TRL fused head": missing("trl", install("trl")),
        "Liger GRPO": missing("liger_kernel", install("bench")),
        "token_logprobs triton": missing("triton", "pip install triton")
        if "triton" in BACKENDS
        else "this version of drpo has no such backend",
        "naive compiled": _no_compiler() if cpu else None,
    }
    left_out = {"token_logprobs auto", "token_logprobs triton"} if cpu else set()
    if not compiled:
        left_out.add("naive compiled")
    reasons = {name: reason for name, reason in skipped.items() if reason and name not in left_out}
    return [name for name in LOSSES if name not in reasons and name not in left_out], reasons


def _no_compiler() -> str | None:
    compiler = os.environ.get("CXX", "g++")
    return None if shutil.which(compiler) else f"torch.compile needs a C++ compiler on a CPU; there is no {compiler}"
