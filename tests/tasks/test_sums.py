import pickle

import pytest

from drpo.errors import ConfigError
from drpo.tasks import make_task
from drpo.tasks.base import Example
from drpo.tasks.split import prompt_hash


def test_each_sum_is_on_one_side_whatever_the_seed() -> None:
    task = make_task("sums", largest=20)
    heldout = task.heldout_examples(1000)
    training = {task.training_example(3, index).prompt for index in range(336)}
    assert len(heldout) == 64 and len(training) == 336 and not training & {example.prompt for example in heldout}
    assert {example.prompt for example in heldout} | training == {
        f"What is {a} + {b}?" for a in range(1, 21) for b in range(1, 21)
    }
    assert [example.prompt for example in heldout] == sorted((e.prompt for e in heldout), key=prompt_hash)


def test_the_answer_is_the_sum() -> None:
    examples = make_task("sums", largest=3, heldout_fraction=0.5).heldout_examples(9)
    for example in examples:
        a, b = example.prompt.removeprefix("What is ").removesuffix("?").split(" + ")
        assert example.answer == str(int(a) + int(b)) and example.chat
    assert len(examples) == 5


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("7", 1.0),
        ("3 + 4 = 7", 1.0),
        ("The sum of 3 and 4 is **7**.", 1.0),
        ("3 + 4 = 8\n\nNo: 7.0", 1.0),
        ("3 + 4", 0.0),  # says nothing that the question does not: a formula of the right value is no answer
        ("What is 3 + 4? It is 7 because 3", 0.0),
        ("seven", 0.0),
        ("17", 0.0),
        ("", 0.0),
    ],
)
def test_the_last_number_is_graded(text: str, reward: float) -> None:
    task = pickle.loads(pickle.dumps(make_task("sums")))
    assert task.reward(Example("What is 3 + 4?", "7"), text) == reward


@pytest.mark.parametrize("bad", [{"largest": 1}, {"largest": True}, {"largest": "9"}, {"heldout_fraction": 1.0}])
def test_what_is_not_allowed(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        make_task("sums", **bad)
