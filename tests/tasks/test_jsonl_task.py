import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drpo.errors import ConfigError, DataError
from drpo.tasks import Example, make_task
from drpo.tasks.kinds.jsonl import JsonlTask


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Write lines (text, or objects to be encoded) to a file and give its path."""

    def write_lines(*lines: Any) -> Path:
        file = tmp_path / "problems.jsonl"
        text = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
        file.write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
        return file

    return write_lines


def problem(number: int) -> dict[str, Any]:
    return {"prompt": f"{number} + {number} =", "answer": 2 * number}


@pytest.fixture
def hundred(write: Any) -> Path:
    return write(*map(problem, range(100)))


def test_a_tenth_of_the_prompts_is_held_out(hundred: Path) -> None:
    task = JsonlTask(path=hundred)
    heldout = {example.prompt for example in task.heldout_examples(1000)}
    trained = {task.training_example(0, i).prompt for i in range(90)}
    assert len(heldout) == 10 and len(trained) == 90 and not heldout & trained
    assert task.heldout_examples(3) == task.heldout_examples(10)[:3]


def test_the_split_does_not_depend_on_the_order_of_lines(hundred: Path, write: Any) -> None:
    before = JsonlTask(path=hundred).heldout_examples(10)
    assert JsonlTask(path=write(*map(problem, reversed(range(100))))).heldout_examples(10) == before


@given(st.integers(), st.integers(0, 10**6))
def test_no_training_prompt_is_held_out(tmp_path_factory: Any, seed: int, index: int) -> None:
    file = tmp_path_factory.getbasetemp() / "thirty.jsonl"
    if not file.exists():
        file.write_text("".join(json.dumps(problem(i % 30)) + "\n" for i in range(60)))
    task = JsonlTask(path=file, heldout_fraction=0.2)
    assert task.training_example(seed, index).prompt not in {e.prompt for e in task.heldout_examples(30)}


def test_every_epoch_has_every_training_line_once_in_an_order_of_its_own(hundred: Path) -> None:
    task = JsonlTask(path=hundred)
    first = [task.training_example(0, i).prompt for i in range(90)]
    second = [task.training_example(0, i).prompt for i in range(90, 180)]
    other_seed = [task.training_example(1, i).prompt for i in range(90)]
    assert sorted(first) == sorted(second) == sorted(other_seed)
    assert len({tuple(first), tuple(second), tuple(other_seed)}) == 3
    assert JsonlTask(path=hundred).training_example(0, 95).prompt == second[5]


def test_all_lines_of_a_prompt_lie_on_one_side(write: Any) -> None:
    task = JsonlTask(path=write(*[problem(i % 20) for i in range(60)]), heldout_fraction=0.25)
    heldout = [example.prompt for example in task.heldout_examples(100)]
    trained = [task.training_example(0, i).prompt for i in range(45)]
    assert len(heldout) == len(set(heldout)) == 5
    assert sorted(trained) == sorted(3 * [f"{i} + {i} =" for i in range(20) if f"{i} + {i} =" not in heldout])


def test_one_prompt_stays_for_training(write: Any) -> None:
    task = JsonlTask(path=write(problem(1), problem(2)), heldout_fraction=0.99)
    assert len(task.heldout_examples(5)) == 1


def test_numbers_keep_their_digits(write: Any) -> None:
    file = write(
        '{"prompt": "a", "answer": 0.10}',
        '{"prompt": "b", "answer": 1E-7}',
        '{"prompt": "c", "answer": 12345678901234567890}',
        '{"prompt": "d", "answer": "½"}',
    )
    task = JsonlTask(path=file, heldout_fraction=0.5)
    examples = [*task.heldout_examples(2), task.training_example(0, 0), task.training_example(0, 1)]
    assert {e.prompt: e.answer for e in examples} == {
        "a": "0.10",
        "b": "0.0000001",
        "c": "12345678901234567890",
        "d": "½",
    }


def test_reward_is_exact_match_of_the_extracted_answer(hundred: Path) -> None:
    task = JsonlTask(path=hundred)
    example = Example(prompt="500 + 500 =", answer="1000")
    assert task.reward(example, "<think>so 999?</think> <answer>1,000.0</answer>") == 1.0
    assert task.reward(example, " 1000. ") == 1.0
    assert task.reward(example, "It is 1000") == 0.0
    assert task.reward(example, "") == 0.0


def test_other_keys_empty_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "from an editor.jsonl"
    first, last = b'{"prompt": "a", "answer": "1", "level": 3}', b'{"prompt": "b", "answer": "2"}'
    file.write_bytes(b"\xef\xbb\xbf" + first + b"\r\n\r\n" + last)
    task = JsonlTask(path=str(file))
    assert {task.training_example(0, 0).prompt, task.heldout_examples(1)[0].prompt} == {"a", "b"}


def test_a_copy_in_another_process_grades_without_the_file(hundred: Path) -> None:
    task = JsonlTask(path=hundred)
    state = pickle.dumps(task)
    copy = pickle.loads(state)
    assert len(state) < 1000
    assert copy.heldout_examples(5) == task.heldout_examples(5)
    copy = pickle.loads(state)
    hundred.unlink()
    assert copy.reward(Example(prompt="", answer="2"), "2") == 1.0


GOOD = {"prompt": "p", "answer": "a"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((GOOD, "{oops"), r"problems\.jsonl, line 2: not JSON \(.* at column 2\)\. Each line is"),
        ((GOOD, "", "[1]"), r"line 3: a JSON object is needed, got an array"),
        ((GOOD, "null"), r"line 2: a JSON object is needed, got null"),
        ((GOOD, {"question": "q", "answer": 1}), r"line 2: no column 'prompt'; its columns are 'question', 'answer'"),
        ((GOOD, {}), r"line 2: no column 'prompt'; its columns are \(none\)"),
        ((GOOD, {"prompt": 3, "answer": 1}), r"line 2: 'prompt' must be a string or chat messages .*, got a number"),
        ((GOOD, {"prompt": "  ", "answer": 1}), r"line 2: 'prompt' is empty\. Fill it in"),
        ((GOOD, {"prompt": "q", "answer": True}), r"line 2: 'answer' must be .*, got a boolean"),
        ((GOOD, {"prompt": "q", "answer": [["1"]]}), r"line 2: 'answer' must be .*, got an array"),
        ((GOOD, {"prompt": "q", "answer": []}), r"line 2: 'answer' is an array without any answer"),
        ((GOOD, {"prompt": "q", "answer": ["a", None]}), r"line 2: 'answer' must be .*, got null"),
        ((GOOD, '{"prompt": "q\\ud83d", "answer": "1"}'), r"line 2: 'prompt' holds half of a surrogate pair"),
        ((GOOD, '{"prompt": "q", "answer": "\\udc00"}'), r"line 2: 'answer' holds half of a surrogate pair"),
        ((GOOD, "[" * 100_000), r"line 2: (nested too deep|not JSON)"),
        ((GOOD, {"prompt": "q", "answer": None}), r"line 2: 'answer' must be .*, got null"),
        ((GOOD, {"prompt": "q", "answer": " . "}), r"line 2: 'answer' is ' . '"),
        ((GOOD, '{"prompt": "q", "answer": NaN}'), r"line 2: 'answer' is nan, which no response can equal"),
        ((GOOD, '{"prompt": "q", "answer": ' + "1" * 5000 + "}"), r"line 2: 'answer' .* more than 1000 digits"),
        ((GOOD, '{"prompt": "q", "answer": 1e999999}'), r"line 2: 'answer' .* more than 1000 digits"),
        ((), r"problems\.jsonl holds no problem\. Each line is"),
        (("", "  "), r"problems\.jsonl holds no problem"),
        ((GOOD, GOOD), r"one distinct prompt, which leaves nothing to hold out .* Give it at least two"),
    ],
)
def test_malformed_files(write: Any, lines: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        JsonlTask(path=write(*lines))


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    file = tmp_path / "latin.jsonl"
    file.write_bytes(b'{"prompt": "a", "answer": "1"}\n{"prompt": "caf\xe9", "answer": "1"}\n')
    with pytest.raises(DataError, match=r"latin\.jsonl, line 2: not UTF-8 \(byte 0xe9\)\. Save"):
        JsonlTask(path=file)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"absent\.jsonl does not exist.*{re.escape(os.getcwd())}"):
        JsonlTask(path=tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match="is a directory and no saved data set"):
        JsonlTask(path=tmp_path)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "needs the parameter path. It takes: path, heldout_fraction, prompt_column"),
        ({"path": 3}, "path must name a file, or several in a list; got 3"),
        ({"path": ""}, "path must name a file, or several in a list; got ''"),
        ({"path": "x", "heldout_fraction": 0}, "between 0 and 1, got 0"),
        ({"path": "x", "heldout_fraction": 1.0}, "between 0 and 1, got 1.0"),
        ({"path": "x", "heldout_fraction": float("nan")}, "between 0 and 1, got nan"),
        ({"path": "x", "heldout_fraction": "0.1"}, "must be a number, got '0.1'"),
        ({"path": "x", "prompt_column": 3}, "prompt_column must be the name of a column, got 3"),
        ({"path": "x", "answer_column": ""}, "answer_column must be the name of a column, got ''"),
        ({"path": "x", "file": "y"}, "has no parameter 'file'"),
    ],
)
def test_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task("jsonl", **parameters)


def test_negative_places_are_refused(hundred: Path) -> None:
    task = JsonlTask(path=hundred)
    with pytest.raises(ConfigError, match="got -1"):
        task.training_example(0, -1)
    with pytest.raises(ConfigError, match="got -1"):
        task.heldout_examples(-1)
