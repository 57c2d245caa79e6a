"""Which experts a mixture of experts sends its tokens to: recording the choice, and making a forward pass repeat it.

Shapes: ``N`` tokens of a forward pass (rows × positions), ``M`` layers with a router, ``K`` experts a token, ``E``
experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

#: Attributes by which transformers' configurations give the number of experts.
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


class Routers:
    """The routers of a causal LM of transformers, in the order of its layers.

    Any architecture will do whose router is a module that calls ``topk`` once on its scores ``[N, E]`` and returns
    (logits, weights, experts): Qwen2-MoE, Qwen3-MoE, Qwen3-Next, Qwen3.5-MoE, Mixtral, OLMoE, GPT-OSS, DeepSeek-V3, …
    Whether it does is tried out on a few tokens.

    Args:
        model: whole in this process.

    ``problem`` says why the model's routing can be neither recorded nor replayed; None where it can. ``count`` is M.
    """

    def __init__(self, model: Any):
        self.modules = [module for module in model.modules() if _looks_like_a_router(module)]
        self.count = len(self.modules)
        self._replayed: torch.Tensor | None = None
        self.problem = self._find_problem(model)

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Forward passes inside leave the experts they chose in what this gives."""
        recording = Recording(self.modules)
        with ExitStack() as stack:
            for index, module in enumerate(self.modules):
                stack.callback(module.register_forward_hook(partial(recording.note, index)).remove)
            yield recording

    @contextmanager
    def replaying(self, experts: torch.Tensor) -> Iterator[None]:
        """Forward passes inside choose ``experts`` ``[N, M, K]`` (integers; −1: the router's own choice).

        The weights of the experts are what the router makes of its own scores for them, so that the gradient reaches
        it. Where a backward pass computes activations again, see :meth:`replay_when_recomputing`.
        """
        before, self._replayed = self._replayed, experts
        with ExitStack() as stack:
            stack.callback(setattr, self, "_replayed", before)
            for module, given in zip(self.modules, experts.to(torch.int64).unbind(1), strict=True):
                stack.enter_context(_forward_replaced(module, _replaying_forward(module, given)))
            yield

    def replay_when_recomputing(self, model: Any) -> None:
        """Have the gradient checkpointing of ``model``, if it is on, replay in the backward pass what the forward pass
        replayed: by then :meth:`replaying` is over."""
        for module in model.modules():
            if getattr(module, "gradient_checkpointing", False):
                checkpoint = module._gradient_checkpointing_func
                module._gradient_checkpointing_func = partial(checkpoint, context_fn=self._checkpoint_contexts)

    def _checkpoint_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For the forward pass, and for its recomputation."""
        return nullcontext(), nullcontext() if self._replayed is None else self.replaying(self._replayed)

    def _find_problem(self, model: Any) -> str | None:
        config, name = model.config.get_text_config(), type(model).__name__
        if not self.modules:
            counts = [getattr(config, key, None) or 0 for key in COUNTS]
            if max(counts) <= 1:
                return f"{name} is dense: it has no routers"
            return (
                f"{name} routes tokens to experts in a way that cannot be recorded: it has no router module with "
                "top_k and num_experts"
            )
        shapes = {(module.top_k, module.num_experts) for module in self.modules}
        if len(shapes) > 1:
            return f"the layers of {name} differ in experts or experts a token ({sorted(shapes)})"
        if not self._obeys(model):
            return (
                f"{type(self.modules[0]).__name__} of {name} does not choose by one topk over its experts, or does "
                "not return (logits, weights, experts)"
            )
        return None

    @torch.no_grad()
    def _obeys(self, model: Any) -> bool:
        """Whether a forward pass takes the experts it is given."""
        ids = torch.arange(3, device=model.device).unsqueeze(0)
        first = self.modules[0]
        wanted = torch.arange(3 * self.count * first.top_k, device=model.device) * 7 % first.num_experts
        wanted = wanted.view(3, self.count, first.top_k)
        with self.replaying(wanted), self.recording() as recording:
            model.base_model(input_ids=ids, use_cache=False)
        return len(recording.chosen) == self.count and torch.equal(recording.take().long(), wanted)


class Recording:
    """The experts that the last forward pass chose."""

    def __init__(self, modules: Sequence[Any]):
        self.chosen: dict[int, torch.Tensor] = {}
        self.dtype = torch.uint8 if all(module.num_experts <= 256 for module in modules) else torch.int16

    def note(self, index: int, module: Any, args: Any, output: Any) -> None:
        """A forward hook: what the ``index``-th router returned."""
        if isinstance(output, tuple) and len(output) == 3:
            self.chosen[index] = output[2]

    def take(self) -> torch.Tensor:
        """``[N, M, K]``, uint8 (int16 for more than 256 experts)."""
        return torch.stack([self.chosen.pop(index).to(self.dtype) for index in sorted(self.chosen)], 1)


class _Choosing(TorchFunctionMode):
    """Where a router takes the top K of its scores, it gets the experts ``given`` ``[N, K]`` and their scores."""

    def __init__(self, num_experts: int, given: torch.Tensor):
        super().__init__()
        self.num_experts, self.given = num_experts, given

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if func not in (torch.topk, torch.Tensor.topk):
            return found
        scores = args[0] if args else kwargs["input"]
        # Routers that first choose groups of experts take the top of those as well.
        if scores.shape != (len(self.given), self.num_experts) or found.indices.shape != self.given.shape:
            return found
        experts = torch.where(self.given < 0, found.indices, self.given)
        return torch.return_types.topk((scores.gather(1, experts), experts))  # pyright: ignore[reportAttributeAccessIssue]


def _replaying_forward(module: Any, given: torch.Tensor) -> Any:
    forward = module.forward

    def replay(*args: Any, **kwargs: Any) -> Any:
        with _Choosing(module.num_experts, given):
            return forward(*args, **kwargs)

    return replay


@contextmanager
def _forward_replaced(module: Any, forward: Any) -> Iterator[None]:
    own = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


def _looks_like_a_router(module: Any) -> bool:
    return "Router" in type(module).__name__ and hasattr(module, "top_k") and hasattr(module, "num_experts")
