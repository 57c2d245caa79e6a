import itertools
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import ConfigError, TaskError
from drpo.tasks import Example
from drpo.tasks.builtin.copy import CopyTask
from drpo.tasks.kinds.procedural import MAX_FAILED_DRAWS, ProceduralTask
from drpo.tasks.split import is_heldout


class FromSeeds(ProceduralTask):
    """Prompts are numbers below ``prompts``; a share of the seeds fails."""

    def __init__(self, prompts: int, fails_one_in: int = 0):
        super().__init__("numbers")
        self.prompts = prompts
        self.fails_one_in = fails_one_in
        self.draws = 0

    def draw(self, seed: int) -> Example:
        self.draws += 1
        if self.fails_one_in and seed % self.fails_one_in == 0:
            raise TaskError("this seed gives nothing")
        return Example(prompt=f"number {seed % self.prompts}", answer="")

    def reward(self, example: Example, text: str) -> float:
        return 0.0


@given(st.integers(), st.integers(0, 10**9), st.integers(0, 40))
def test_no_training_prompt_is_held_out(seed: int, index: int, count: int) -> None:
    task = CopyTask()
    heldout = {example.prompt for example in task.heldout_examples(count)}
    assert task.training_example(seed, index).prompt not in heldout


def test_a_place_of_the_stream_depends_on_nothing_else() -> None:
    forwards = [CopyTask().training_example(3, i) for i in range(50)]
    task = CopyTask()
    task.heldout_examples(5)
    backwards = [task.training_example(3, i) for i in reversed(range(50))]
    assert forwards == backwards[::-1]
    assert forwards != [task.training_example(4, i) for i in range(50)]


def test_held_out_examples_are_distinct_and_always_the_same() -> None:
    task = FromSeeds(10**6)
    many = task.heldout_examples(60)
    assert len({example.prompt for example in many}) == 60
    assert task.heldout_examples(20) == many[:20] == FromSeeds(10**6).heldout_examples(20)


def test_held_out_examples_are_drawn_once() -> None:
    task = FromSeeds(1000)
    task.heldout_examples(10)
    drawn = task.draws
    task.heldout_examples(10)
    task.heldout_examples(4)
    assert task.draws == drawn


def test_a_small_space_gives_all_it_holds() -> None:
    every = {"".join(letters) for letters in itertools.product("abcd", repeat=3)}
    heldout = [example.prompt for example in CopyTask().heldout_examples(1000)]
    assert sorted(heldout) == sorted(filter(is_heldout, every))
    trained = {CopyTask().training_example(0, i).prompt for i in range(1000)}
    assert trained == every - set(heldout)


def test_an_empty_side_is_an_error() -> None:
    alone = FromSeeds(1)
    assert alone.heldout_examples(0) == []
    with pytest.raises(TaskError, match="numbers has no held-out prompt: 1000 draws gave none"):
        alone.heldout_examples(1)

    class HeldOutOnly(FromSeeds):
        def draw(self, seed: int) -> Example:
            return Example(prompt=next(f"p{i}" for i in range(100) if is_heldout(f"p{i}")), answer="")

    with pytest.raises(TaskError, match="has no training prompt"):
        HeldOutOnly(1).training_example(0, 0)


def test_a_draw_that_fails_is_passed_over() -> None:
    task = FromSeeds(10**6, fails_one_in=2)
    assert len({task.training_example(0, i).prompt for i in range(30)}) == 30


def test_a_generator_that_always_fails_is_an_error() -> None:
    task = FromSeeds(10**6, fails_one_in=1)
    with pytest.raises(TaskError, match="this seed gives nothing"):
        task.training_example(0, 0)
    assert task.draws == MAX_FAILED_DRAWS


def test_negative_places_are_refused() -> None:
    with pytest.raises(ConfigError, match="got -1"):
        CopyTask().training_example(0, -1)
    with pytest.raises(ConfigError, match="got -2"):
        CopyTask().heldout_examples(-2)


def test_copy_rewards_letters_in_their_places() -> None:
    task = pickle.loads(pickle.dumps(CopyTask(length=4, alphabet="xyz")))
    example = task.training_example(0, 0)
    assert example.prompt == example.answer and len(example.prompt) == 4 and set(example.prompt) <= set("xyz")
    answer = Example(prompt="abca", answer="abca")
    assert task.reward(answer, " abca\n") == 1.0
    assert task.reward(answer, "abcd") == 0.75
    assert task.reward(answer, "abcaabca") == 0.5
    assert task.reward(answer, "") == 0.0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"length": 0}, "whole number ≥ 1; got 0"),
        ({"length": 2.0}, "whole number ≥ 1; got 2.0"),
        ({"length": True}, "whole number ≥ 1; got True"),
        ({"alphabet": "a"}, "two or more different letters"),
        ({"alphabet": "aba"}, "each once; got 'aba'"),
        ({"alphabet": "a b"}, "white space"),
        ({"alphabet": ["a", "b"]}, "two or more different letters"),
    ],
)
def test_copy_refuses(parameters: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CopyTask(**parameters)
