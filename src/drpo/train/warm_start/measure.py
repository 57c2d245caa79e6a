"""What a saved base can do, and how it samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from drpo.rollouts import InProcessSampler, SamplingParameters
from drpo.tasks import make_task
from drpo.tasks.grading import Grader
from drpo.train.evaluate import evaluate
from drpo.train.policy import load_policy
from drpo.train.warm_start.spec import WarmStart

#: A token is of the tail if its probability was at most this when it was sampled.
TAIL = 0.01


def measure(directory: Path, spec: WarmStart, problems: int = 256, samples_each: int = 4) -> dict[str, Any]:
    """Held-out accuracy of the saved base and the tail of its tokens, sampled as training samples it.

    Returns:
        the evaluation's record, and ``tail_share``: of the sampled tokens, those with μ ≤ 0.01.
    """
    task = make_task(spec.task, **spec.task_parameters)
    policy = load_policy(str(directory), torch.device("cpu"))
    sampler = InProcessSampler(policy.model, policy.stop_ids)
    parameters = SamplingParameters(max_new_tokens=spec.max_new_tokens)
    with Grader(task) as grader:
        examples = task.heldout_examples(problems)
        record, samples = evaluate(policy, sampler, grader, examples, samples_each, parameters, spec.seed)
    logprobs = [value for sample in samples for value in sample.response.behavior_logprobs]
    rare = sum(value <= math.log(TAIL) for value in logprobs)
    return {**record, "tail_share": rare / len(logprobs)}
