"""The sampler that runs the trained model itself, in the same process.

Shapes: ``P`` prompts, ``R`` rows still generating, ``L`` prompt positions, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch

from drpo.errors import DataError
from drpo.rollouts.cache import PreallocatedLayer, keep_rows, spread_rows
from drpo.rollouts.sampler import Request, Response, SamplingParameters

#: Finished rows leave the batch once they are at least this share of it: dropping costs a copy of the KV cache.
DROP_SHARE = 1 / 16


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
    def _generate(self, requests: Sequence[Request], parameters: SamplingParameters) -> Iterator[Response]:
        budget, device = parameters.max_new_tokens, self.model.device
        stop_ids = torch.tensor(self.stop_ids, device=device)
        uniforms = torch.cat([_uniforms(request, budget) for request in requests]).to(device)
        drawn = Drawn(len(uniforms), parameters, device)
        logits, cache, mask = self._prefill(requests, budget)
        filled, positions = mask.shape[1] - budget, mask.sum(1, keepdim=True) - budget
        if self._takes_additive_masks(cache):
            mask = logits.new_zeros(mask.shape).masked_fill_(~mask, torch.finfo(logits.dtype).min)[:, None, None]
        done = torch.zeros(len(uniforms), dtype=torch.bool, device=device)
        for step in range(budget):
            distribution = (logits.float() / parameters.temperature).log_softmax(-1)
            chosen = inverse_cdf(distribution, uniforms[:, step])
            drawn.record(chosen, distribution)
            done |= (chosen.unsqueeze(1) == stop_ids).any(1)
            left = len(done) - int(done.sum())
            if left == 0 or step == budget - 1:
                break
            if len(done) - left >= DROP_SHARE * len(done):
                kept = keep_rows(cache, done, left)
                chosen, done, mask, positions, uniforms = (
                    values[kept] for values in (chosen, done, mask, positions, uniforms)
                )
                drawn.keep(kept)
            seen = mask[..., : filled + step + 1]
            logits = self._forward(chosen.unsqueeze(1), seen, positions + step, cache).logits[:, -1]
        return drawn.responses(stop_ids)

    def _prefill(self, requests: Sequence[Request], budget: int) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Logits ``[R, V]`` after each prompt, its KV cache, and the mask ``[R, L]``, which has the positions to come
        as well; one row a response."""
        device = self.model.device
        width = max(len(request.prompt_ids) for request in requests)
        ids = torch.zeros(len(requests), width, dtype=torch.int64)
        mask = torch.ones(len(requests), width + budget, dtype=torch.bool)
        for row, request in enumerate(requests):
            start = width - len(request.prompt_ids)
            ids[row, start:] = torch.tensor(request.prompt_ids)
            mask[row, :start] = False
        ids, mask = ids.to(device), mask.to(device)
        prompt = mask[:, :width]
        out = self._forward(ids, prompt, (prompt.cumsum(1) - 1).clamp(min=0), None)
        counts = torch.tensor([request.count for request in requests], device=device)
        prompt_of_row = torch.arange(len(requests), device=device).repeat_interleave(counts)
        cache = out.past_key_values
        spread_rows(cache, prompt_of_row, width + budget)
        return out.logits[:, -1][prompt_of_row], cache, mask[prompt_of_row]

    def _takes_additive_masks(self, cache: Any) -> bool:
        """Whether a decoding step may be given the mask ``[R, 1, 1, L]`` that attention adds, which spares the model
        making it anew for every token: where all layers see all positions, and nothing else is made from the mask."""
        config = self.model.config.get_text_config()
        return (
            config._attn_implementation in ("sdpa", "eager")
            and getattr(config, "rope_parameters", None) is not None
            and all(isinstance(layer, PreallocatedLayer) for layer in cache.layers)
        )

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any) -> Any:
        return self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1, **self._options,
        )


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


class Drawn:
    """The tokens drawn so far, step by step, of the rows that were there."""

    def __init__(self, rows: int, parameters: SamplingParameters, device: torch.device):
        self.shape, self.k = (rows, parameters.max_new_tokens), parameters.report_topk
        self.rows = torch.arange(rows, device=device)
        self.steps: list[tuple[torch.Tensor, ...]] = []

    def record(self, chosen: torch.Tensor, distribution: torch.Tensor) -> None:
        """Keep the tokens ``chosen`` ``[R]`` from the log-probabilities ``distribution`` ``[R, V]``."""
        logprobs = distribution.gather(1, chosen.unsqueeze(1)).squeeze(1)
        top = distribution.topk(min(self.k, distribution.shape[1]), dim=1) if self.k else ()
        self.steps.append((self.rows, chosen, logprobs, *reversed(tuple(top))))

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
        lists = [table(values).tolist() for values in (tokens, *others)]
        for length, stopped, *columns in zip(lengths, ended.any(1).tolist(), *lists, strict=True):
            token_ids, logprobs, *top = (column[:length] for column in columns)
            yield Response(token_ids, logprobs, "stop" if stopped else "length", *top)
