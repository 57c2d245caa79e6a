"""The sampler that runs the trained model itself, in the same process.

Shapes: ``P`` prompts, ``R`` rows still generating, ``L`` prompt positions, ``V`` vocabulary, ``M`` routers, ``K``
experts a token.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from drpo.errors import ConfigError
from drpo.model.decoding.decoder import CompiledForward, Forward, prefill
from drpo.model.decoding.ways import sampling_choice
from drpo.model.rope_regimes import RopeRegimes
from drpo.model.routers import Recording, Routers
from drpo.rollouts.sampler import Request, Response, SamplingParameters, check_length
from drpo.rollouts.truncation import kept_tokens
from drpo.support import OUTSIDE, Support


class InProcessSampler:
    """Samples from a transformers causal LM with a KV cache.

    Each prompt is prefilled once for all of its responses, and finished responses leave the batch. A response's
    randomness comes from its request's seed alone, whatever else is in the batch. Before the first batch a few tokens
    are decoded in the fastest way and compared with plain forward passes: where they differ a slower one is taken
    (:mod:`drpo.model.decoding.ways`).

    Args:
        model: any causal LM of transformers; sampled in the mode (train/eval) and precision it is in.
        stop_ids: token ids that end a response.
        max_rows: the largest number of responses generated at once.
        compiled: decode through torch.compile, on a GPU as CUDA graphs, with all shapes fixed: worth it on a GPU and
            for many batches alike. Finished responses then stay in the batch. On a CPU it is slower.

    Raises:
        ConfigError: ``compiled``, and a layer of the model does not simply attend to all positions; or the model is no
            causal LM over token ids.
    """

    def __init__(self, model: Any, stop_ids: Collection[int], max_rows: int = 256, compiled: bool = False):
        self.model = model
        self.stop_ids = sorted(stop_ids)
        self.max_rows = max_rows
        self._forward = Forward(model)
        self._forward.way = sampling_choice(model).way
        self._regimes = RopeRegimes.of(model)
        self._compiled = CompiledForward(self._forward) if compiled else None
        self._routers = Routers(model)

    @property
    def reports_experts(self) -> bool:
        """Whether ``report_experts`` may be asked for."""
        return self._routers.problem is None and self._compiled is None and self._forward.way != "no cache"

    def sample(self, requests: Sequence[Request], parameters: SamplingParameters) -> list[list[Response]]:
        """See :class:`drpo.rollouts.Sampler`.

        Raises:
            DataError: prompt and response do not fit into the model's positions, or cross the length where its rope
                scaling changes.
            ConfigError: experts are asked for, and ``reports_experts`` is False.
        """
        if parameters.report_experts and not self.reports_experts:
            reason = self._routers.problem or "a compiled forward pass does not show what its routers choose"
            raise ConfigError(f"report_experts is not possible: {reason}.")
        check_length(
            requests, parameters, getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        )
        self._regimes.check({len(request.prompt_ids) for request in requests}, parameters.max_new_tokens)
        responses: dict[int, list[Response]] = {}
        for part in self._parts(requests):
            with self._routers.recording() if parameters.report_experts else nullcontext() as routes:
                flat = self._generate([requests[row] for row in part], parameters, routes)
            for row in part:
                responses[row] = [next(flat) for _ in range(requests[row].count)]
        return [responses[row] for row in range(len(requests))]

    def _parts(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        """Rows of ``requests`` that may be generated together, at most ``max_rows`` responses (a larger request goes
        alone)."""
        groups: dict[tuple[bool, int], list[int]] = {}
        for row, request in enumerate(requests):
            length = len(request.prompt_ids)
            key = self._regimes.side(length), 0 if self._forward.pads else length
            groups.setdefault(key, []).append(row)
        for group in groups.values():
            yield from _within(group, [requests[row].count for row in group], self.max_rows)

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Nothing: the model is the one that is trained."""

    def close(self) -> None:
        """Nothing: there is no other process, and memory goes with the sampler."""

    @torch.inference_mode()
    def _generate(
        self, requests: Sequence[Request], parameters: SamplingParameters, routes: Recording | None
    ) -> Iterator[Response]:
        budget, device = parameters.max_new_tokens, self.model.device
        stop_ids = torch.tensor(self.stop_ids, device=device)
        uniforms = torch.cat([_uniforms(request, budget) for request in requests]).to(device)
        drawn = Drawn(requests, parameters, device, routes)
        prompts, counts = [request.prompt_ids for request in requests], [request.count for request in requests]
        logits, decoding = prefill(self._forward, prompts, counts, budget, self._compiled)
        done = torch.zeros(len(uniforms), dtype=torch.bool, device=device)
        for step in range(budget):
            chosen, distribution, kept_ids = draw(logits, uniforms[:, step], parameters)
            drawn.record(chosen, distribution, kept_ids)
            done |= (chosen.unsqueeze(1) == stop_ids).any(1)
            left = len(done) - int(done.sum())
            if left == 0 or step == budget - 1:
                break
            kept = decoding.drop(done, left)
            if kept is not None:
                chosen, done, uniforms = chosen[kept], done[kept], uniforms[kept]
                drawn.keep(kept)
            logits = decoding.next_logits(chosen)
        return drawn.responses(stop_ids)


def draw(
    logits: torch.Tensor, uniforms: torch.Tensor, parameters: SamplingParameters
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Draw a token for each row of ``logits`` ``[R, V]`` with the ``uniforms`` ``[R]`` in [0, 1).

    Returns:
        The tokens ``[R]``; the log-probabilities ``[R, V]`` that they were drawn from, −inf outside the support; and
        the support as a mask ``[R, V]``, or None if the parameters truncate nothing.
    """
    scaled = logits.float() / parameters.temperature
    kept = kept_tokens(scaled, parameters) if parameters.is_truncated else None
    distribution = (scaled if kept is None else scaled.masked_fill(~kept, -torch.inf)).log_softmax(-1)
    return inverse_cdf(distribution, uniforms), distribution, kept


def inverse_cdf(logprobs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The token ``[R]`` that each uniform ``[R]`` in [0, 1) selects from the distribution ``logprobs`` ``[R, V]``.

    In float64, so that a token of probability 1e-9 is still drawn once in 1e9, and one of probability 0 never.
    """
    cdf = logprobs.exp().cumsum(-1, dtype=torch.float64)
    target = (uniforms * cdf[:, -1]).unsqueeze(1)
    return torch.searchsorted(cdf, target, right=True).squeeze(1).clamp(max=logprobs.shape[1] - 1)


def _uniforms(request: Request, budget: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(request.seed)
    return torch.rand(request.count, budget, dtype=torch.float64, generator=generator)


def _within(rows: Sequence[int], counts: Sequence[int], max_rows: int) -> Iterator[list[int]]:
    """Consecutive ``rows`` in parts of at most ``max_rows`` responses; a larger one goes alone."""
    part: list[int] = []
    total = 0
    for row, count in zip(rows, counts, strict=True):
        if part and total + count > max_rows:
            yield part
            part, total = [], 0
        part.append(row)
        total += count
    if part:
        yield part


class Drawn:
    """The tokens drawn so far, step by step, of the rows that were there.

    ``routes``, if given, holds the experts of the forward pass before each step.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        parameters: SamplingParameters,
        device: torch.device,
        routes: Recording | None = None,
    ):
        self.requests, self.routes, self.k = requests, routes, parameters.report_topk
        self.supports: list[Support] | None = [] if parameters.is_truncated and parameters.report_support else None
        self.shape = (sum(request.count for request in requests), parameters.max_new_tokens)
        self.rows = torch.arange(self.shape[0], device=device)
        self.steps: list[tuple[torch.Tensor, ...]] = []
        self.prompt_experts: list[torch.Tensor] = []

    def record(self, chosen: torch.Tensor, distribution: torch.Tensor, kept_ids: torch.Tensor | None = None) -> None:
        """Keep the tokens ``chosen`` ``[R]`` from the log-probabilities ``distribution`` ``[R, V]``, which truncation
        cut down to ``kept_ids`` ``[R, V]`` (None: to nothing less than the vocabulary)."""
        logprobs = distribution.gather(1, chosen.unsqueeze(1)).squeeze(1)
        top = distribution.topk(min(self.k, distribution.shape[1]), dim=1) if self.k else ()
        top = (top[1], top[0] if kept_ids is None else top[0].clamp(min=OUTSIDE)) if top else ()
        experts = () if self.routes is None else (self._take_experts(self.routes),)
        self.steps.append((self.rows, chosen, logprobs, *top, *experts))
        if self.supports is not None and kept_ids is not None:
            self.supports.append(Support.from_mask(kept_ids).to("cpu"))

    def _take_experts(self, routes: Recording) -> torch.Tensor:
        """``[R, M, K]``: what the positions went through that these tokens were drawn after."""
        found = routes.take()
        if self.steps:
            return found
        padded = found.view(len(self.requests), -1, *found.shape[1:])
        for request, experts in zip(self.requests, padded, strict=True):
            self.prompt_experts += [experts[-len(request.prompt_ids) : -1].cpu()] * request.count
        counts = torch.tensor([request.count for request in self.requests], device=found.device)
        return padded[:, -1].repeat_interleave(counts, 0)

    def keep(self, kept: torch.Tensor) -> None:
        """From now on only the rows ``kept`` of the present ones, in that order."""
        self.rows = self.rows[kept]

    def responses(self, stop_ids: torch.Tensor) -> Iterator[Response]:
        """Each row up to its first stop token, in the first order."""
        rows, tokens, *others = (torch.cat(parts) for parts in zip(*self.steps, strict=True))
        counts = torch.tensor([len(step[0]) for step in self.steps])
        at = rows, torch.arange(len(counts)).repeat_interleave(counts).to(rows.device)

        def table(values: torch.Tensor) -> torch.Tensor:
            return values.new_zeros(*self.shape, *values.shape[1:]).index_put(at, values)

        # −1: no token; where rows ended at different steps.
        ended = torch.isin(table(tokens + 1) - 1, stop_ids)
        lengths = torch.where(ended.any(1), ended.int().argmax(1) + 1, self.shape[1]).tolist()
        experts = None if self.routes is None else table(others.pop()).cpu()
        lists = [table(values).tolist() for values in (tokens, *others)]
        supports = self._by_response(table(torch.arange(len(tokens), device=tokens.device)).cpu(), lengths)
        for row, (length, stopped, *columns) in enumerate(zip(lengths, ended.any(1).tolist(), *lists, strict=True)):
            token_ids, logprobs, *top = (column[:length] for column in columns)
            routed = None if experts is None else torch.cat([self.prompt_experts[row], experts[row, :length]])
            yield Response(
                token_ids, logprobs, "stop" if stopped else "length", *top, support=next(supports), experts=routed
            )

    def _by_response(self, places: torch.Tensor, lengths: list[int]) -> Iterator[Support | None]:
        """The supports of each response's tokens, which are at ``places`` ``[R, T]`` among all that were recorded."""
        if self.supports is None:
            yield from [None] * len(lengths)
            return
        order = torch.cat([row[:length] for row, length in zip(places, lengths, strict=True)])
        every, start = Support.concatenate(self.supports)[order], 0
        for length in lengths:
            part = every[start : start + length]
            yield Support(part.ids.clone(), part.offsets)
            start += length
