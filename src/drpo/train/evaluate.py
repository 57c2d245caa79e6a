"""Sampled accuracy on held-out problems."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drpo.model.policy import Policy
from drpo.rollouts import Sampler, SamplingParameters
from drpo.tasks.base import Example
from drpo.tasks.grading.grader import Grader
from drpo.train.pass_rates import pass_rates
from drpo.train.rollout import Sample, failed_rewards, sample_and_grade, timed_out
from drpo.train.seeds import derive_seed


def evaluate(
    policy: Policy,
    sampler: Sampler,
    grader: Grader,
    examples: Sequence[Example],
    samples_each: int,
    parameters: SamplingParameters,
    seed: int,
) -> tuple[dict[str, Any], list[Sample]]:
    """Sample ``samples_each`` responses to each held-out example, always with the same seeds, and grade them.

    Returns:
        the metrics (``accuracy`` is the share of all graded responses with reward 1; ``avg_at_k`` and ``pass_at_k``
        are means over problems with intervals, :func:`drpo.train.pass_rates.pass_rates`), and the samples.

    Raises:
        TaskError: more than half of the rewards failed.
    """
    seeds = [derive_seed(seed, "evaluation", row) for row in range(len(examples))]
    samples, sampling, grading = sample_and_grade(policy, sampler, grader, examples, seeds, samples_each, parameters)
    failures = failed_rewards(samples)
    rewards = [sample.grade.reward for sample in samples if sample.grade.reward is not None]
    counts = counts_by_problem(samples, samples_each)
    correct = sum(right for _, right in counts)
    return {
        "accuracy": correct / len(rewards),
        "correct": correct,
        "samples": len(rewards),
        "examples": len(examples),
        "failed_rewards": len(failures),
        "timed_out_rewards": len(timed_out(samples)),
        **pass_rates(counts, samples_each),
        "reward": sum(rewards) / len(rewards),
        "response_length": sum(len(sample.response.token_ids) for sample in samples) / len(samples),
        "truncated_share": sum(sample.response.stop_reason == "length" for sample in samples) / len(samples),
        "timing": {"seconds": sampling + grading},
    }, samples


def counts_by_problem(samples: Sequence[Sample], samples_each: int) -> list[tuple[int, int]]:
    """How many of each problem's ``samples_each`` responses were graded, and how many of those are right (reward 1)."""
    counts = []
    for start in range(0, len(samples), samples_each):
        group = samples[start : start + samples_each]
        rewards = [sample.grade.reward for sample in group if sample.grade.reward is not None]
        counts.append((len(rewards), sum(reward >= 1 for reward in rewards)))
    return counts
