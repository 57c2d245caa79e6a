"""One rollout batch: sample, grade, compare within groups.

Shapes: ``R`` responses of a step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from drpo.advantages import group_advantages
from drpo.errors import ConfigError, TaskError
from drpo.model.policy import Policy
from drpo.rollouts import Request, Response, Sampler, SamplingParameters
from drpo.rollouts.sampler import reports_experts
from drpo.tasks.base import Example
from drpo.tasks.grading.grader import Grade, Grader
from drpo.train.seeds import derive_seed
from drpo.train.settings import RolloutSettings


@dataclass(frozen=True, slots=True)
class Sample:
    """One graded response to one example.

    ``proximal_logprobs`` (nats, one a response token) are the trainer's own at the weights that sampled, if the
    objective reads them.
    """

    example: Example
    prompt_ids: Sequence[int]
    response: Response
    text: str
    grade: Grade
    proximal_logprobs: Sequence[float] | None = None

    def record(self) -> dict[str, Any]:
        """What a rollout file holds of it."""
        return {
            "prompt": self.example.prompt,
            "answer": self.example.answer,
            "text": self.text,
            "reward": self.grade.reward,
            "failure": self.grade.failure,
            "tokens": len(self.response.token_ids),
            "stop_reason": self.response.stop_reason,
            **({} if self.grade.timeout is None else {"timeout": self.grade.timeout}),
        }


@dataclass(frozen=True, slots=True)
class Rollout:
    """The responses of a step, with an advantage and a group (the number of its example) each, and their seconds.

    ``samples``, ``advantages`` and ``groups`` hold the responses whose grading succeeded; ``failures`` the reasons of
    the others, which take no part in training. The weights that sampled were those of ``lag`` steps before this one,
    after ``updates`` updates. ``taken`` is how many places of the task's stream of training examples it took, those
    left out among them.
    """

    samples: list[Sample]
    advantages: list[float]
    groups: list[int]
    failures: list[str]
    sampling_seconds: float
    grading_seconds: float
    lag: int = 0
    updates: int = 0
    taken: int = 0


def sample_and_grade(
    policy: Policy,
    sampler: Sampler,
    grader: Grader,
    examples: Sequence[Example],
    seeds: Sequence[int],
    count: int,
    parameters: SamplingParameters,
) -> tuple[list[Sample], float, float]:
    """``count`` graded responses to each example, in order; then the seconds of sampling and of grading."""
    started = time.perf_counter()
    prompts = [policy.encode(example.prompt, example.chat, example.turns) for example in examples]
    requests = [Request(ids, count, seed) for ids, seed in zip(prompts, seeds, strict=True)]
    groups = sampler.sample(requests, parameters)
    sampled = time.perf_counter()
    rows = [
        (example, ids, response)
        for example, ids, group in zip(examples, prompts, groups, strict=True)
        for response in group
    ]
    texts = [policy.decode(response.token_ids) for _, _, response in rows]
    grades = grader.grade([example for example, _, _ in rows], texts)
    samples = [Sample(*row, text, grade) for row, text, grade in zip(rows, texts, grades, strict=True)]
    return samples, sampled - started, time.perf_counter() - sampled


def roll_out(
    policy: Policy, sampler: Sampler, grader: Grader, examples: Sequence[Example], settings: RolloutSettings, step: int
) -> Rollout:
    """Sample, grade and compare the responses of ``step``.

    Args:
        policy: encodes and decodes.
        sampler: gives the responses.
        grader: gives the rewards.
        examples: the problems, each with a group of responses.
        settings: of every rollout batch.
        step: the number of the batch, which decides its seeds.

    Raises:
        TaskError: more than half of the rewards failed. ConfigError: sampling is truncated, and the sampler does not
            report the tokens that it drew from.
    """
    seeds = [derive_seed(settings.seed, "rollout", step, row) for row in range(len(examples))]
    samples, sampling, grading = sample_and_grade(
        policy,
        sampler,
        grader,
        examples,
        seeds,
        settings.group_size,
        replace(settings.sampling, report_experts=reports_experts(sampler)),
    )
    if settings.sampling.is_truncated and settings.sampling.report_support:
        _require_supports(samples, sampler)
    failures = failed_rewards(samples)
    graded = [(row // settings.group_size, s) for row, s in enumerate(samples) if s.grade.reward is not None]
    rewards = torch.tensor([sample.grade.reward for _, sample in graded], dtype=torch.float64)
    groups = [group for group, _ in graded]
    advantages = group_advantages(rewards, torch.tensor(groups), settings.advantages).tolist()
    return Rollout([sample for _, sample in graded], advantages, groups, failures, sampling, grading)


def _require_supports(samples: Sequence[Sample], sampler: Sampler) -> None:
    """Raise a ConfigError unless every response says what its tokens were drawn from."""
    missing = sum(sample.response.support is None for sample in samples)
    if missing:
        raise ConfigError(
            f"{type(sampler).__name__} did not report the tokens it drew from for {missing} of {len(samples)} "
            "responses, over which log π has to be renormalized under top_p, top_k and min_p. Use sampler=in_process, "
            "or leave them out."
        )


def timed_out(samples: Sequence[Sample]) -> list[str]:
    """Why responses of ``samples`` are wrong that took too long to grade, one reason a response."""
    return [sample.grade.timeout for sample in samples if sample.grade.timeout is not None]


def failed_rewards(samples: Sequence[Sample]) -> list[str]:
    """Why rewards of ``samples`` failed, one reason a failure.

    Raises:
        TaskError: more than half of them failed.
    """
    failures = [sample.grade.failure or "" for sample in samples if sample.grade.reward is None]
    if 2 * len(failures) > len(samples):
        common = max(set(failures), key=failures.count)
        raise TaskError(
            f"{len(failures)} of {len(samples)} rewards failed, most often with: {common}. Fix the task's reward(), or "
            "raise grading_time_limit if it needs longer; failed rewards are never counted as 0."
        )
    return failures
