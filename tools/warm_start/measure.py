"""What a saved base can do, and how it samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from drpo.model.policy import Policy, load_policy
from drpo.rollouts import InProcessSampler, SamplingParameters
from drpo.tasks import make_task
from drpo.tasks.grading.grader import Grader
from drpo.train.evaluate import evaluate
from drpo.train.rollout import Sample
from tools.warm_start.spec import WarmStart

#: A token is of the tail if its probability was at most this when it was sampled.
TAIL = 0.01
#: Sampled so cold, a base nearly always says what it holds likeliest.
COLD = 0.1


def measure(directory: Path, spec: WarmStart, problems: int = 256, samples_each: int = 4) -> dict[str, Any]:
    """Held-out accuracy of the saved base and the tail of its tokens, sampled as training samples it.

    Returns:
        ``heldout``, the evaluation's record; ``cold_accuracy``, at temperature 0.1; ``tail_share``: of the sampled
        tokens, those with μ ≤ 0.01; for experts, ``expert_load``.
    """
    task = make_task(spec.task, **spec.task_parameters)
    policy = load_policy(str(directory), torch.device("cpu"))
    sampler = InProcessSampler(policy.model, policy.stop_ids)
    parameters = SamplingParameters(max_new_tokens=spec.max_new_tokens)
    cold = dataclasses.replace(parameters, temperature=COLD)
    with Grader(task) as grader:
        examples = task.heldout_examples(problems)
        record, samples = evaluate(policy, sampler, grader, examples, samples_each, parameters, spec.seed)
        likeliest, _ = evaluate(policy, sampler, grader, examples, 1, cold, spec.seed)
    measured = {"heldout": record, "cold_accuracy": likeliest["accuracy"], "tail_share": tail_share(samples)}
    if getattr(policy.model.config, "num_experts", 0):
        measured["expert_load"] = expert_load(policy, samples[::samples_each])
    return measured


def tail_share(samples: Sequence[Sample]) -> float:
    """The share of the sampled tokens that had a probability of at most 0.01."""
    logprobs = [value for sample in samples for value in sample.response.behavior_logprobs]
    return sum(value <= math.log(TAIL) for value in logprobs) / len(logprobs)


@torch.inference_mode()
def expert_load(policy: Policy, samples: Sequence[Sample]) -> list[list[float]]:
    """For each layer, the share of the tokens' choices that falls on each expert; the shares of a layer add up to 1."""
    config = policy.model.config
    counts = torch.zeros(config.num_hidden_layers, config.num_experts)
    for sample in samples:
        ids = torch.tensor([[*sample.prompt_ids, *sample.response.token_ids]])
        out = policy.model.base_model(input_ids=ids, use_cache=False, output_router_logits=True)
        for layer, logits in enumerate(out.router_logits):
            chosen = logits.topk(config.num_experts_per_tok, dim=-1).indices.flatten()
            counts[layer] += torch.bincount(chosen, minlength=config.num_experts)
    return [[round(share, 4) for share in row] for row in (counts / counts.sum(1, keepdim=True)).tolist()]
