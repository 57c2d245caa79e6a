"""Sampling and counting, problem by problem, with a real (tiny) model."""

from __future__ import annotations

from pathlib import Path

import torch

from drpo.model.policy import load_policy
from drpo.rollouts import InProcessSampler, SamplingParameters
from drpo.tasks import Example, Grader, make_task
from drpo.train.rollout import sample_and_grade
from drpo.train.solve_rates import filtered_record, solve_rates

PARAMETERS = SamplingParameters(temperature=1.0, max_new_tokens=3)


def test_solve_rates_do_not_depend_on_what_is_sampled_together(copyist: Path) -> None:
    policy = load_policy(str(copyist), torch.device("cpu"))
    sampler = InProcessSampler(policy.model, policy.stop_ids)
    examples = [Example(letters, letters) for letters in ("ab", "cd", "ba", "dd", "ac")]
    with Grader(make_task("copy", length=2)) as grader:
        batches = [
            list(solve_rates(policy, sampler, grader, examples, 10, PARAMETERS, seed=3, at_once=at_once))
            for at_once in (2, 5)
        ]
    assert [len(batch) for batch in batches[0]] == [2, 2, 1]
    assert [counted for batch in batches[0] for counted in batch] == batches[1][0]
    assert [example for example, _, _ in batches[1][0]] == examples
    assert all(graded == 10 for _, graded, _ in batches[1][0])
    assert len({correct for _, _, correct in batches[1][0]}) > 1


def test_plain_prompts_stay_plain(copyist: Path) -> None:
    policy = load_policy(str(copyist), torch.device("cpu"))
    examples = [Example("ab", "ab", chat=chat) for chat in (True, False)]
    with Grader(make_task("copy", length=2)) as grader:
        sampler = InProcessSampler(policy.model, policy.stop_ids)
        samples, _, _ = sample_and_grade(policy, sampler, grader, examples, [1, 2], 1, PARAMETERS)
    assert [policy.decode(sample.prompt_ids) for sample in samples] == ["ab\n", "ab"]


def test_a_filtered_line_holds_the_problem_without_its_instructions() -> None:
    example = Example("What is 2 + 2? Put it in a box.", "4", {"problem": "What is 2 + 2?"}, chat=False)
    assert filtered_record(example, 8, 6) == {
        "prompt": "What is 2 + 2?",
        "answer": "4",
        "pass_rate": 0.75,
        "samples": 8,
    }
    assert filtered_record(Example("2+2", "4"), 4, 1)["prompt"] == "2+2"
