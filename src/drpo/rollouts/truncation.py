"""Top-k, min-p and top-p: which tokens of a distribution may be drawn.

Each rule keeps the tokens whose logit reaches a bound, so that tokens with equal logits are kept or left out together,
whatever their ids are. The order is that of vLLM: the logits are divided by the temperature first; min-p and top-k look
at the whole distribution, and top-p at what both leave, renormalized
(https://docs.vllm.ai/en/latest/api/vllm/v1/sample/sampler/: temperature, min_p, top_k, top_p; since the probability of
the most likely token bounds min-p, min-p and top-k give the same set in either order). vLLM keeps tokens that tie with
the k-th, too; of tokens that tie at the edge of the nucleus it may keep some, and this module all.

Shapes: ``R`` rows, ``V`` vocabulary.
"""

from __future__ import annotations

import math

import torch

from drpo.rollouts.sampler import SamplingParameters

#: Most likely tokens that the nucleus is looked for in, before the whole vocabulary is sorted.
HEAD = 1024


def kept_tokens(logits: torch.Tensor, parameters: SamplingParameters) -> torch.Tensor:
    """``[R, V]`` bool: the tokens that are drawn from, at least one a row.

    Args:
        logits: ``[R, V]`` float32, divided by the temperature.
        parameters: whose ``top_k``, ``min_p`` and ``top_p`` decide.
    """
    bound = torch.full_like(logits[:, :1], -torch.inf)
    if 0 < parameters.top_k < logits.shape[1]:
        bound = logits.topk(parameters.top_k, dim=1).values[:, -1:]
    if parameters.min_p > 0:
        bound = bound.maximum(logits.amax(1, keepdim=True) + math.log(parameters.min_p))
    if parameters.top_p < 1:
        bound = bound.maximum(_nucleus_bound(logits.masked_fill(logits < bound, -torch.inf), parameters.top_p))
    return (logits >= bound) & (logits > -torch.inf)


def _nucleus_bound(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """``[R, 1]``: the smallest logit of the fewest most likely tokens that have the mass ``top_p`` together."""
    vocabulary = logits.shape[1]
    normalizer = logits.double().logsumexp(1, keepdim=True)
    for width in (min(HEAD, vocabulary), vocabulary):
        values = logits.topk(width, dim=1).values
        reached = (values.double() - normalizer).exp().cumsum(1) >= top_p
        if width == vocabulary or bool(reached[:, -1].all()):
            break
    # Rounding may leave the whole mass below top_p: then every token is kept.
    last = torch.where(reached.any(1), reached.int().argmax(1), vocabulary - 1)
    return values.gather(1, last.unsqueeze(1))
