"""How often a policy solves each of many problems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from drpo.errors import TaskError
from drpo.model.policy import Policy
from drpo.rollouts import Sampler, SamplingParameters
from drpo.tasks import Task
from drpo.tasks.base import Example
from drpo.tasks.grading.grader import Grader
from drpo.train.evaluate import counts_by_problem
from drpo.train.rollout import failed_rewards, sample_and_grade
from drpo.train.seeds import derive_seed


def training_problems(task: Task, name: str) -> list[Example]:
    """The training problems of a task that has finitely many.

    Raises:
        TaskError: it makes its problems up without end.
    """
    examples = getattr(task, "training_examples", None)
    if examples is None:
        raise TaskError(
            f"task {name} has no list of training problems to choose from. Use task=math or task=jsonl "
            "with task.path=FILE, or give your own class a method training_examples()."
        )
    return examples()


def solve_rates(
    policy: Policy,
    sampler: Sampler,
    grader: Grader,
    examples: Sequence[Example],
    samples_each: int,
    parameters: SamplingParameters,
    seed: int,
    at_once: int,
) -> Iterator[list[tuple[Example, int, int]]]:
    """Each example with the number of its graded responses and of the right ones; ``at_once`` examples at a time.

    Raises:
        TaskError: more than half of the rewards of ``at_once`` examples failed.
    """
    for first in range(0, len(examples), at_once):
        batch = examples[first : first + at_once]
        seeds = [derive_seed(seed, "filter", first + row) for row in range(len(batch))]
        samples, _, _ = sample_and_grade(policy, sampler, grader, batch, seeds, samples_each, parameters)
        failed_rewards(samples)
        counts = counts_by_problem(samples, samples_each)
        yield [(example, *found) for example, found in zip(batch, counts, strict=True)]


def filtered_record(example: Example, graded: int, correct: int) -> dict[str, Any]:
    """The line that the tasks ``math`` and ``jsonl`` read as this problem."""
    answers = list(example.answers)
    turns = example.data.get("turns", list(example.turns))
    return {
        "prompt": turns or example.data.get("problem", example.prompt),
        "answer": answers if len(answers) > 1 else example.answer,
        "pass_rate": correct / graded,
        "samples": graded,
    }
