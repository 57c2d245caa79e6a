"""Where the time of a step goes: clocks around the functions that do the work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

#: What is timed: label, owner and name of the function.
Timed = tuple[str, Any, str]


class Clocks:
    """Seconds by label; an inner function's are taken from the outer one's, so that they add up.

    Args:
        synchronize: waits for what a function queued on a device.
    """

    def __init__(self, synchronize: Callable[[], None] = lambda: None) -> None:
        self.seconds: dict[str, float] = {}
        self.inner = [0.0]
        self.synchronize = synchronize

    def put_around(self, functions: Iterable[Timed]) -> None:
        """Replace each of ``functions`` by itself, timed, for the rest of the process."""
        for label, owner, name in functions:
            setattr(owner, name, self.around(label, getattr(owner, name)))

    def around(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, timed."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            self.inner.append(0.0)
            self.synchronize()
            started = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self.synchronize()
                spent = time.perf_counter() - started
                self.seconds[label] = self.seconds.get(label, 0.0) + spent - self.inner.pop()
                self.inner[-1] += spent

        return timed

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by label."""
        taken, self.seconds = self.seconds, {}
        return taken


def of_trainer() -> list[Timed]:
    """The functions of our trainer that take the time of a step."""
    import torch

    from drpo.model import forward, policy
    from drpo.model.decoding import decoder
    from drpo.rollouts import in_process
    from drpo.tasks.grading.grader import Grader
    from drpo.train import gradient, update

    return [
        ("sampling: model, prompts", in_process, "prefill"),
        ("sampling: model, one token after another", decoder.Decoding, "next_logits"),
        ("sampling: drawing and bookkeeping", in_process.InProcessSampler, "sample"),
        ("decoding text and grading", Grader, "grade"),
        ("update: model, forward", policy.Policy, "response_states"),
        ("update: model, forward", forward.Prompts, "__init__"),
        ("update: LM head, loss and their gradients", gradient, "fused_loss"),
        ("update: model, backward", torch.Tensor, "backward"),
        ("update: model, backward", forward.Prompts, "backward"),
        ("update: gradient norm", torch.nn.utils, "clip_grad_norm_"),
        ("update: optimizer", torch.optim.AdamW, "step"),
        ("update: metrics", update, "token_metrics"),
        ("update: batching", update, "accumulate_gradient"),
    ]


def of_trl() -> list[Timed]:
    """Likewise of TRL's GRPOTrainer."""
    import torch
    from accelerate import Accelerator
    from trl import GRPOTrainer  # pyright: ignore[reportMissingImports, reportPrivateImportUsage]

    return [
        ("sampling", GRPOTrainer, "_generate_single_turn"),
        ("forward", GRPOTrainer, "compute_loss"),
        ("backward", Accelerator, "backward"),
        ("optimizer", Accelerator, "clip_grad_norm_"),
        ("optimizer", torch.optim.AdamW, "step"),
    ]


def four_parts(seconds: dict[str, float]) -> dict[str, float]:
    """Figures of a step from the seconds of :func:`of_trainer` or :func:`of_trl`.

    Our LM head makes its loss and its part of the gradients in one call, which counts as backward.
    """
    parts = {
        "sampling": "sampling",
        "update: model, forward": "forward",
        "update: LM head": "backward",
        "update: model, backward": "backward",
        "update: gradient norm": "optimizer",
        "update: optimizer": "optimizer",
        "forward": "forward",
        "backward": "backward",
        "optimizer": "optimizer",
    }
    found = {f"{part}_seconds": 0.0 for part in ("sampling", "forward", "backward", "optimizer")}
    for label, spent in seconds.items():
        part = next((part for start, part in parts.items() if label.startswith(start)), None)
        if part is not None:
            found[f"{part}_seconds"] += spent
    return found
