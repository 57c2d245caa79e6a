import itertools
import pickle
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import ConfigError
from drpo.tasks import make_task
from drpo.tasks.builtin.word_lists import HE, SHE, THINGS
from drpo.tasks.builtin.word_problems import WordProblemsTask
from drpo.tasks.split import is_heldout

PARAMETERS = st.tuples(st.integers(1, 3), st.integers(0, 4), st.integers(1, 99), st.integers(1, 99))


@given(st.integers(0, 2**31 - 1), PARAMETERS)
def test_the_answer_is_what_the_story_adds_up_to(seed: int, parameters: tuple[int, int, int, int]) -> None:
    low, further, start, change = parameters
    task = WordProblemsTask(min_steps=low, max_steps=low + further, largest_start=start, largest_change=change)
    example = task.draw(seed)
    data = example.data
    assert [int(number) for number in re.findall(r"\d+", example.prompt)] == [data["start"], *map(abs, data["changes"])]
    totals = list(itertools.accumulate(data["changes"], initial=data["start"]))
    assert min(totals) >= 0 and example.answer == str(totals[-1])
    assert 1 <= data["start"] <= start and all(1 <= abs(c) <= change for c in data["changes"])
    assert low <= len(data["changes"]) <= low + further
    assert data["name"] in (SHE if data["pronoun"] == "she" else HE) and data["things"] in THINGS
    assert example.prompt.startswith(f"{data['name']} has {data['start']} {data['things']}. ")


@given(st.integers(), st.integers(0, 10**9))
def test_the_sides_share_no_prompt_and_a_seed_gives_one_problem(seed: int, index: int) -> None:
    task = WordProblemsTask()
    example = task.training_example(seed, index)
    assert not is_heldout(example.prompt)
    assert example == WordProblemsTask().training_example(seed, index)
    assert all(is_heldout(held.prompt) for held in task.heldout_examples(5))


@given(st.integers(0, 2**31 - 1), st.integers(-3, 200))
def test_only_the_right_number_is_rewarded(seed: int, other: int) -> None:
    task = pickle.loads(pickle.dumps(WordProblemsTask()))
    example = task.draw(seed)
    right = int(example.answer)
    for text in ("<answer>{}</answer>", "9 plus 1 is 10. <answer>7</answer> No: <answer> {}.0 </answer> Done.", "{}"):
        assert task.reward(example, text.format(right)) == 1.0
        assert task.reward(example, text.format(other)) == float(other == right)
    assert task.reward(example, f"It is {right}, I think.") == 0.0 == task.reward(example, "")


def test_gains_and_losses_are_told_apart_and_all_words_occur() -> None:
    task = make_task("word_problems", min_steps=1, max_steps=1)
    gains, losses, names, things = set(), set(), set(), set()
    for seed in random.Random(0).sample(range(2**31), 8000):
        example = task.training_example(seed, 0)
        verb = re.findall(r"\b(?:she|he|She|He) ([a-z ]+) \d", example.prompt)[0]
        (gains if example.data["changes"][0] > 0 else losses).add(verb)
        names.add(example.data["name"])
        things.add(example.data["things"])
    assert not gains & losses and len(gains) == len(losses) == 12
    assert names == {*SHE, *HE} and things == {*THINGS}
    assert len(THINGS) == len(set(THINGS)) and not {*SHE} & {*HE}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"min_steps": 0}, "min_steps is a whole number ≥ 1; got 0"),
        ({"largest_start": 2.0}, "largest_start is a whole number ≥ 1; got 2.0"),
        ({"largest_change": True}, "largest_change is a whole number ≥ 1; got True"),
        ({"min_steps": 4}, "min_steps=4 exceeds max_steps=3"),
        ({"min_step": 4}, "min_steps"),
    ],
)
def test_refuses(parameters: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task("word_problems", **parameters)
