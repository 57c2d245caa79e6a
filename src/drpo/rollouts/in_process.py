"""The sampler that runs the trained model itself, in the same process.

Shapes: ``P`` prompts, ``R`` rows still generating, ``L`` prompt positions, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch

from drpo.errors import DataError
from drpo.rollouts.decoding import CompiledDecoding, CompiledForward, Decoding, Forward
from drpo.rollouts.sampler import Request, Response, SamplingParameters

#: Responses generated at once, at most.
MAX_ROWS = 256


class InProcessSampler:
    """Samples from a transformers causal LM with a KV cache.

    Each prompt is prefilled once for all of its responses, and finished responses leave the batch. A response's
    randomness comes from its request's seed alone, whatever else is in the batch.

    Args:
        model: any causal LM of transformers; sampled in the mode (train/eval) and precision it is in.
        stop_ids: token ids that end a response.
        max_rows: the largest number of responses generated at once.
        compiled: decode through torch.compile, on a GPU as CUDA graphs, with all shapes fixed: worth it on a GPU and
            for many batches alike. Finished responses then stay in the batch. On a CPU it is slower.

    Raises:
        ConfigError: ``compiled``, and a layer of the model does not simply attend to all positions.
    """

    def __init__(self, model: Any, stop_ids: Collection[int], max_rows: int = MAX_ROWS, compiled: bool = False):
        self.model = model
        self.stop_ids = sorted(stop_ids)
        self.max_rows = max_rows
        self._forward = Forward(model)
        self._compiled = CompiledForward(self._forward) if compiled else None

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
        logits, decoding = self._prefill(requests, budget)
        done = torch.zeros(len(uniforms), dtype=torch.bool, device=device)
        for step in range(budget):
            distribution = (logits.float() / parameters.temperature).log_softmax(-1)
            chosen = inverse_cdf(distribution, uniforms[:, step])
            drawn.record(chosen, distribution)
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

    def _prefill(self, requests: Sequence[Request], budget: int) -> tuple[torch.Tensor, Decoding | CompiledDecoding]:
        """Logits ``[R, V]`` after each prompt, one row a response, and what makes the next ones."""
        width = max(len(request.prompt_ids) for request in requests)
        ids = torch.zeros(len(requests), width, dtype=torch.int64)
        mask = torch.ones(len(requests), width, dtype=torch.bool)
        for row, request in enumerate(requests):
            start = width - len(request.prompt_ids)
            ids[row, start:] = torch.tensor(request.prompt_ids)
            mask[row, :start] = False
        counts = torch.tensor([request.count for request in requests])
        rows = torch.arange(len(requests)).repeat_interleave(counts).to(self.model.device)
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        out = self._forward(ids, mask, (mask.cumsum(1) - 1).clamp(min=0), None)
        if self._compiled is not None:
            decoding = self._compiled.start(out.past_key_values, mask, rows, budget)
        else:
            decoding = Decoding(self._forward, out.past_key_values, mask, rows, budget)
        return out.logits[:, -1][rows], decoding


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
