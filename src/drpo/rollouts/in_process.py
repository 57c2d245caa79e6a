"""The sampler that runs the trained model itself, in the same process.

Shapes: ``P`` prompts, ``R`` rows still generating, ``L`` prompt positions, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from drpo.errors import DataError
from drpo.rollouts.sampler import Request, Response, SamplingParameters

#: Finished rows leave the batch once they are at least this share of it: dropping costs a copy of the KV cache.
DROP_SHARE = 1 / 8


class InProcessSampler:
    """Samples from a transformers causal LM with a KV cache.

    Each prompt is prefilled once for all of its responses, and finished responses leave the batch. A response's
    randomness comes from its request's seed alone, whatever else is in the batch.

    Args:
        model: any causal LM of transformers; sampled in the mode (train/eval) and precision it is in.
        stop_ids: token ids that end a response.
        max_rows: the largest number of responses generated at once.
    """

    def __init__(self, model: Any, stop_ids: Collection[int], max_rows: int = 256):
        self.model = model
        self.stop_ids = sorted(stop_ids)
        self.max_rows = max_rows
        config = model.config.get_text_config()
        # A mixture of experts would work out its balancing loss, with a mask that does not fit one token at a time.
        self._options = {"output_router_logits": False} if getattr(config, "output_router_logits", False) else {}

    def sample(self, requests: Sequence[Request], parameters: SamplingParameters) -> list[list[Response]]:
        """See :class:`drpo.rollouts.Sampler`.

        Raises:
            DataError: prompt and response do not fit into the model's positions.
        """
        self._check_length(requests, parameters)
        responses: list[list[Response]] = []
        for part in _within(requests, self.max_rows):
            flat = self._generate(part, parameters)
            for request in part:
                responses.append([next(flat) for _ in range(request.count)])
        return responses

    def _check_length(self, requests: Sequence[Request], parameters: SamplingParameters) -> None:
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        longest = max((len(request.prompt_ids) for request in requests), default=0)
        if limit is not None and longest + parameters.max_new_tokens > limit:
            raise DataError(
                f"a prompt of {longest} tokens and max_new_tokens={parameters.max_new_tokens} exceed the model's "
                f"{limit} positions. Lower max_new_tokens to {max(limit - longest, 0)}, or use shorter prompts."
            )

    @torch.inference_mode()
    def _generate(self, requests: Sequence[Request], parameters: SamplingParameters):
        device = self.model.device
        rows = sum(request.count for request in requests)
        budget = parameters.max_new_tokens
        tokens = torch.zeros(rows, budget, dtype=torch.int64, device=device)
        logprobs = torch.zeros(rows, budget, dtype=torch.float32, device=device)
        lengths = torch.full((rows,), budget, device=device)
        stopped = torch.zeros(rows, dtype=torch.bool, device=device)
        stop_ids = torch.tensor(self.stop_ids, device=device)
        most_likely = TopK(rows, parameters) if parameters.report_topk else None
        uniforms = torch.cat([_uniforms(request, budget) for request in requests]).to(device)

        logits, cache, mask = self._prefill(requests)
        active = torch.arange(rows, device=device)
        for position in range(budget):
            scaled = (logits.float() / parameters.temperature).log_softmax(-1)
            chosen = inverse_cdf(scaled, uniforms[active, position])
            tokens[active, position] = chosen
            logprobs[active, position] = scaled.gather(1, chosen.unsqueeze(1)).squeeze(1)
            if most_likely is not None:
                most_likely.record(active, position, scaled)
            ends = torch.isin(chosen, stop_ids) & ~stopped[active]
            lengths[active[ends]] = position + 1
            stopped[active[ends]] = True
            going = ~stopped[active]
            left = int(going.sum())
            if left == 0 or position == budget - 1:
                break
            if len(active) - left >= DROP_SHARE * len(active):
                kept = going.nonzero().squeeze(1)
                active, chosen, mask = active[kept], chosen[kept], mask[kept]
                cache.reorder_cache(kept)
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            logits = self._forward(chosen.unsqueeze(1), mask, mask.sum(1, keepdim=True) - 1, cache).logits[:, -1]
        return _responses(tokens.tolist(), logprobs.tolist(), lengths.tolist(), stopped.tolist(), most_likely)

    def _prefill(self, requests: Sequence[Request]) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Logits ``[R, V]`` after each prompt, its KV cache, and the mask ``[R, L]``, one row a response."""
        device = self.model.device
        width = max(len(request.prompt_ids) for request in requests)
        ids = torch.zeros(len(requests), width, dtype=torch.int64, device=device)
        mask = torch.zeros_like(ids)
        for row, request in enumerate(requests):
            ids[row, width - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
            mask[row, width - len(request.prompt_ids) :] = 1
        out = self._forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), None)
        counts = torch.tensor([request.count for request in requests], device=device)
        prompt_of_row = torch.arange(len(requests), device=device).repeat_interleave(counts)
        cache = out.past_key_values
        cache.reorder_cache(prompt_of_row)
        return out.logits[:, -1][prompt_of_row], cache, mask[prompt_of_row]

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any) -> Any:
        return self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1, **self._options,
        )


def inverse_cdf(logprobs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The token ``[R]`` that each uniform ``[R]`` in [0, 1) selects from the distribution ``logprobs`` ``[R, V]``.

    In float64, so that a token of probability 1e-9 is still drawn once in 1e9, and one of probability 0 never.
    """
    cdf = logprobs.double().exp().cumsum(-1)
    target = (uniforms * cdf[:, -1]).unsqueeze(1)
    return torch.searchsorted(cdf, target, right=True).squeeze(1).clamp(max=logprobs.shape[1] - 1)


def _uniforms(request: Request, budget: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(request.seed)
    return torch.rand(request.count, budget, dtype=torch.float64, generator=generator)


def _within(requests: Sequence[Request], max_rows: int):
    """Consecutive requests in parts of at most ``max_rows`` responses (a larger request goes alone)."""
    part: list[Request] = []
    rows = 0
    for request in requests:
        if part and rows + request.count > max_rows:
            yield part
            part, rows = [], 0
        part.append(request)
        rows += request.count
    if part:
        yield part


class TopK:
    """The most likely tokens at every position of every row, recorded as they are computed."""

    def __init__(self, rows: int, parameters: SamplingParameters):
        self.k = parameters.report_topk
        self.shape = rows, parameters.max_new_tokens
        self.ids = self.logprobs = torch.zeros(0)

    def record(self, rows: torch.Tensor, position: int, logprobs: torch.Tensor) -> None:
        """Keep the top of ``logprobs`` ``[R, V]`` at ``position`` of ``rows`` ``[R]``."""
        top = logprobs.topk(min(self.k, logprobs.shape[1]), dim=1)
        if not self.ids.numel():
            self.logprobs = logprobs.new_zeros(*self.shape, top.values.shape[1])
            self.ids = torch.zeros_like(self.logprobs, dtype=torch.int64)
        self.ids[rows, position], self.logprobs[rows, position] = top.indices, top.values


def _responses(tokens: list, logprobs: list, lengths: list, stopped: list, most_likely: TopK | None):
    topk_ids = topk_logprobs = None
    for row, length in enumerate(lengths):
        reason = "stop" if stopped[row] else "length"
        if most_likely is not None:
            topk_ids = most_likely.ids[row, :length].tolist()
            topk_logprobs = most_likely.logprobs[row, :length].tolist()
        yield Response(tokens[row][:length], logprobs[row][:length], reason, topk_ids, topk_logprobs)
