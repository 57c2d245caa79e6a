import json
import os
import pickle
import random
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("reasoning_gym", reason="pip install -e '.[train]'")

import reasoning_gym
from reasoning_gym.factory import DATASETS

from drpo.errors import ConfigError, DrpoWarning, TaskError
from drpo.tasks import Example, dataset_names, make_task
from drpo.tasks.kinds import reasoning_gym as module
from drpo.tasks.kinds.reasoning_gym import COSTLY_TO_BUILD, HASH_ORDERED, ReasoningGymTask
from drpo.tasks.split import is_heldout

pytestmark = pytest.mark.slow

NEEDS_PARAMETERS = {
    "composite": {
        "datasets": [
            {"name": "chain_sum", "weight": 1, "config": {"max_terms": 3}},
            {"name": "gcd", "weight": 2.0, "config": {}},
        ]
    }
}
#: The library gives no right answer for these, only a way to score one.
WITHOUT_AN_ANSWER = {"boxnet", "rush_hour"}
#: Metadata of some of their problems holds fractions.
NOT_JSON = {"gsm_symbolic"}


def task_of(dataset: str) -> ReasoningGymTask:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DrpoWarning)
        return ReasoningGymTask(dataset, **NEEDS_PARAMETERS.get(dataset, {}))


@pytest.mark.parametrize("dataset", sorted(DATASETS))
def test_every_data_set_makes_and_grades_examples(dataset: str, capfd: pytest.CaptureFixture[str]) -> None:
    task = task_of(dataset)
    example = task.training_example(1, 2)
    assert example.prompt and not is_heldout(example.prompt)
    assert isinstance(example.answer, str) and capfd.readouterr().out == ""
    if dataset not in NOT_JSON:
        json.dumps(dict(example.data))
    elsewhere, sent = pickle.loads(pickle.dumps((task, example)))
    assert sent == example
    right = float(dataset not in WITHOUT_AN_ANSWER)
    assert elsewhere.reward(sent, f"I say <answer>{sent.answer}</answer>.") == right


@pytest.mark.parametrize("dataset", sorted(COSTLY_TO_BUILD))
def test_lending_a_built_data_set_a_seed_is_building_it_with_that_seed(dataset: str) -> None:
    task = task_of(dataset)
    for seed in (12, 3456789):
        built = DATASETS[dataset][0](DATASETS[dataset][1](seed=seed, size=1))
        random.seed(seed)  # codeio draws from the global state
        np.random.seed(seed)
        assert task.draw(seed).prompt == built[0]["question"]


def test_an_example_is_item_0_of_the_library_s_data_set_with_that_seed() -> None:
    entry = reasoning_gym.create_dataset("chain_sum", seed=5, size=1, max_terms=3)[0]
    example = make_task("reasoning_gym:chain_sum", max_terms=3).draw(5)  # type: ignore[attr-defined]
    assert (example.prompt, example.answer) == (entry["question"], entry["answer"])
    assert example.data == {"answer": entry["answer"], "metadata": entry["metadata"]}


@pytest.mark.parametrize("dataset", ["acre", "chain_sum", "gsm_symbolic", "list_functions", "pool_matrix"])
def test_random_access_does_not_depend_on_order(dataset: str) -> None:
    indices = range(6)
    forwards = [task_of(dataset).training_example(0, i).prompt for i in indices]
    task = task_of(dataset)
    assert [task.training_example(0, i).prompt for i in reversed(indices)] == forwards[::-1]


def test_examples_are_the_same_in_every_process() -> None:
    program = (
        "from drpo.tasks import make_task\n"
        "for name in ('chain_sum', 'codeio', 'list_functions', 'gsm_symbolic'):\n"
        "    task = make_task(f'reasoning_gym:{name}')\n"
        "    print([task.training_example(0, i).prompt for i in range(5)])\n"
        "    print([example.prompt for example in task.heldout_examples(2)])"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1] != ""


def test_the_global_random_states_stay_as_they_were() -> None:
    task = task_of("pool_matrix")
    before, numpy_before = random.getstate(), np.random.get_state()
    task.training_example(0, 0)
    assert random.getstate() == before
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), numpy_before, strict=True))


def test_held_out_examples_are_distinct_and_as_many_as_there_are() -> None:
    assert len({e.prompt for e in task_of("chain_sum").heldout_examples(100)}) == 100
    few = make_task("reasoning_gym:chain_sum", min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    heldout = few.heldout_examples(1000)
    assert 10 < len(heldout) < 50  # of 200 problems
    assert not {e.prompt for e in heldout} & {few.training_example(0, i).prompt for i in range(2000)}


def test_a_single_problem_cannot_be_split() -> None:
    only = make_task("reasoning_gym:count_primes", min_n=2, max_n=2)
    with pytest.raises(TaskError, match=r"reasoning_gym:count_primes has no (held-out|training) prompt"):
        only.heldout_examples(1)
        only.training_example(0, 0)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<answer>12</answer>", 1.0),
        ("<answer>3</answer> rather <answer> +012.0 </answer>", 1.0),
        ("  12 ", 1.0),
        ("= 12", 0.5),  # the library's partial credit: the answer is half of the text
        ("13", 0.0),
        ("", 0.0),
    ],
)
def test_reward_is_the_library_s_score_of_the_extracted_answer(text: str, reward: float) -> None:
    example = Example(prompt="10 + 2 =", answer="12", data={"answer": "12", "metadata": {}})
    assert task_of("chain_sum").reward(example, text) == reward


@pytest.mark.parametrize(("score", "reward"), [(1.5, 1.0), (-1, 0.0), (1, 1.0)])
def test_scores_are_clipped(monkeypatch: pytest.MonkeyPatch, score: float, reward: float) -> None:
    task = task_of("chain_sum")
    monkeypatch.setattr(task._built, "score_answer", lambda answer, entry: score, raising=False)
    assert task.reward(task.draw(0), "1") == reward


def test_a_score_that_is_no_number_is_not_taken_for_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of("chain_sum")
    monkeypatch.setattr(task._built, "score_answer", lambda answer, entry: float("nan"), raising=False)
    assert np.isnan(task.reward(task.draw(0), "1"))


def test_the_answer_of_an_open_problem_is_an_example_of_one() -> None:
    assert json.loads(task_of("graph_color").draw(0).answer)


@pytest.mark.parametrize("dataset", sorted(HASH_ORDERED))
def test_prompts_that_change_from_process_to_process(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    with pytest.warns(DrpoWarning, match="Set PYTHONHASHSEED=0"):
        ReasoningGymTask(dataset)
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    ReasoningGymTask(dataset)


@pytest.mark.parametrize(
    ("dataset", "parameters"),
    [
        ("word_sorting", {"transformation": "uppercase"}),
        ("word_sorting", {"transformation": "UPPERCASE"}),
        ("time_intervals", {"min_time": "08:00", "max_time": "18:30", "max_date": "2024-12-31"}),
        ("arc_1d", {}),
        ("rearc", {"diff_ub": 0.3, "board_format_opts": {"row_delimiter": ";"}}),
        ("countdown", {"operators": ["+", "-"]}),
        ("aiw", {"task_types": ["siblings", "friends"], "task_type_weights": [0.5, 0.5]}),
        ("binary_matrix", {"p_zero": 1}),
    ],
)
def test_parameters_as_yaml_writes_them(dataset: str, parameters: dict[str, Any]) -> None:
    assert make_task(f"reasoning_gym:{dataset}", **parameters).training_example(0, 0).prompt


@pytest.mark.parametrize(
    ("dataset", "parameters", "message"),
    [
        ("chain_some", {}, "has no data set 'chain_some'. Did you mean 'chain_sum'?"),
        ("chain_sum", {"max_term": 3}, "has no parameter 'max_term'. Did you mean 'max_terms'?"),
        (
            "chain_sum",
            {"min_terms": 5, "max_terms": 2},
            "reasoning_gym:chain_sum refuses min_terms=5, max_terms=2: max_terms must be >= min_terms",
        ),
        ("gsm_symbolic", {"difficulty": 2.0}, "refuses difficulty=2.0: AssertionError at `assert 1.0 <= "),
        ("chain_sum", {"seed": 1}, "seed cannot be set: the task seeds every example itself"),
        ("chain_sum", {"size": 1}, "size cannot be set: the task generates as many examples as are asked"),
        ("chain_sum", {"min_terms": "3"}, "min_terms must be a whole number, like its default 2; got '3'"),
        ("chain_sum", {"min_terms": 2.5}, "min_terms must be a whole number"),
        ("chain_sum", {"allow_negation": 1}, "must be true or false, like its default False; got 1"),
        ("binary_matrix", {"p_zero": "half"}, "must be a number, like its default 0.25; got 'half'"),
        ("word_sorting", {"transformation": "bold"}, "transformation: unknown value 'bold'"),
        ("time_intervals", {"min_time": "8h"}, "min_time: a time such as 18:30 is needed, got '8h'"),
        ("time_intervals", {"min_date": "May"}, "min_date: a date such as 2024-12-31 is needed, got 'May'"),
        ("rearc", {"board_format_opts": {"row": ";"}}, "unknown key 'row'. Known: alphabet"),
        ("composite", {}, "refuses to have no parameter: Must specify at least one dataset"),
        ("composite", {"datasets": [{"name": "gcd", "weight": 1}]}, "Its keys are name, weight, config"),
        ("composite", {"datasets": [{"name": "gcd", "weight": 1, "config": {"seed": 3}}]}, "seed cannot be"),
        ("composite", {"datasets": [{"name": "gdc", "weight": 1, "config": {}}]}, "'gdc' not registered"),
    ],
)
def test_bad_parameters(dataset: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_task(f"reasoning_gym:{dataset}", **parameters)
    assert message in str(caught.value)


def test_parameters_that_only_generation_refuses() -> None:
    task = make_task("reasoning_gym:aiw", task_types=["siblings"])  # but three weights
    with pytest.raises(TaskError, match=r"could not make the example of seed .*number of weights"):
        task.training_example(0, 0)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "reasoning_gym"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    module._library.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"which is not installed\. Run: pip install -e '\.\[train\]'"):
            make_task("reasoning_gym:chain_sum")
        with pytest.raises(ConfigError, match="unknown task 'chain_sum'"):
            make_task("chain_sum")
    finally:
        module._library.cache_clear()


def test_all_names() -> None:
    assert dataset_names() == sorted(DATASETS)
