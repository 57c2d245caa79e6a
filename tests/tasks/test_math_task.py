"""The math task on real files: layouts, sides, prompts, refusals."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from drpo.errors import ConfigError, DataError
from drpo.tasks import make_task
from drpo.tasks.kinds.math import INSTRUCTION, MathTask

pytest.importorskip("math_verify", reason="pip install -e '.[math]'")

DAPO_PROMPT = (
    "Solve the following math problem step by step. The last line is Answer: $Answer.\n\n{}\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)


def dapo(number: int) -> dict[str, Any]:
    turns = [{"role": "user", "content": DAPO_PROMPT.format(f"What is ${number} + {number}$?\nThink.")}]
    return {
        "data_source": "math_dapo",
        "prompt": turns,
        "ability": "MATH",
        "reward_model": {"ground_truth": str(2 * number), "style": "rule"},
        "extra_info": {"index": f"i{number}"},
    }


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_parquet(path: Path, *records: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="pip install -e '.[math]'")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(records)), path)
    return path


WRITERS = {"jsonl": write, "parquet": write_parquet}
SUM = "What is $7 + 7$?"

LAYOUTS: dict[str, tuple[Any, tuple[str, str]]] = {
    "dapo": (dapo, ("What is $7 + 7$?\nThink.", "14")),
    "dapo, as text": (lambda n: {"prompt": f"Say {n}", "reward_model": {"ground_truth": n}}, ("Say 7", "7")),
    "gsm8k": (
        lambda n: {"question": f"{n} eggs?", "answer": f"He has <<{n}*1={n}>>{n}.\n#### {n},000"},
        ("7 eggs?", "7000"),
    ),
    "aime": (lambda n: {"id": n, "problem": f" {n}+{n} ", "solution": "s", "answer": 2 * n}, ("7+7", "14")),
    "aime_2024": (lambda n: {"ID": n, "Problem": f"{n}+{n}", "Solution": "s", "Answer": 2 * n}, ("7+7", "14")),
    "math-500": (
        lambda n: {"problem": f"{n}/2", "solution": "s", "answer": rf"\frac{{{n}}}{{2}}", "level": 3},
        ("7/2", r"\frac{7}{2}"),
    ),
    "plain": (lambda n: {"prompt": f"{n}+0.5", "answer": n + 0.5}, ("7+0.5", "7.5")),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, kind: str, layout: str) -> None:
    record, expected = LAYOUTS[layout]
    task = MathTask(path=WRITERS[kind](tmp_path / f"a.{kind}", *map(record, range(10))), prompt_style="bare")
    examples = [*task.training_examples(), *task.heldout_examples(10)]
    assert len(examples) == 10 and len(task.heldout_examples(10)) == 1
    assert expected in {(example.prompt, example.answer) for example in examples}


def test_parquet_is_known_by_its_first_bytes_too(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "data.bin", *map(dapo, range(4)))
    assert len(MathTask(path=str(file)).training_examples()) == 3


def test_a_system_turn_stands_before_the_problem(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SUM}]
    records = [{"prompt": turns, "reward_model": {"ground_truth": "14"}}, dapo(1)]
    task = MathTask(path=write(tmp_path / "a.jsonl", *records), prompt_style="bare")
    prompts = {example.prompt for example in [*task.training_examples(), *task.heldout_examples(9)]}
    assert prompts == {f"Be brief.\n\n{SUM}", "What is $1 + 1$?\nThink."}


def test_a_layout_can_be_forced(tmp_path: Path) -> None:
    both = [{"prompt": f"p{i}", "question": f"q{i}", "answer": f"#### {i}"} for i in range(4)]
    file = write(tmp_path / "a.jsonl", *both)
    assert MathTask(path=file).training_examples()[0].answer in "0123"
    plain = MathTask(path=file, layout="plain", prompt_style="bare").training_examples()[0]
    assert plain.prompt.startswith("p") and plain.answer.startswith("####")


def test_prompt_styles(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *[{"prompt": SUM, "answer": 14}, {"prompt": "other", "answer": 1}])

    def prompt(style: str) -> tuple[str, bool]:
        task = MathTask(path=file, prompt_style=style)
        (found,) = [e for e in [*task.training_examples(), *task.heldout_examples(2)] if e.data["problem"] == SUM]
        return found.prompt, found.chat

    assert r"\boxed{}" in INSTRUCTION
    assert prompt("instruct") == (f"{SUM}\n\n{INSTRUCTION}", True)
    assert prompt("base") == (f"Problem:\n{SUM}\n\n{INSTRUCTION}\n\nSolution:", False)
    assert prompt("bare") == (SUM, True)


def test_what_a_base_model_writes_behind_its_solution_is_not_graded(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", {"prompt": SUM, "answer": 14}, {"prompt": "other", "answer": 1})
    text = "It is \\boxed{14}.\n\nProblem:\nWhat is 1 + 1?\n\nSolution: \\boxed{2}"
    rewards = {}
    for style in ("base", "instruct"):
        task = MathTask(path=file, prompt_style=style)
        (example,) = [e for e in [*task.training_examples(), *task.heldout_examples(2)] if e.answer == "14"]
        rewards[style] = task.reward(example, text)
    assert rewards == {"base": 1.0, "instruct": 0.0}


def test_problems_count_once_and_heldout_ones_never_train(tmp_path: Path) -> None:
    records = [{"prompt": f"problem  {i % 6}\n", "answer": i} for i in range(18)]
    heldout = [
        {"problem": "problem 2", "answer": "2"},
        {"problem": "another", "answer": "0"},
        {"problem": " problem\n5", "answer": "5"},
        {"problem": "another", "answer": "1"},
    ]
    task = MathTask(path=write(tmp_path / "a.jsonl", *records), heldout_path=write(tmp_path / "b.jsonl", *heldout))
    assert [e.data["problem"] for e in task.training_examples()] == [f"problem  {i}" for i in (0, 1, 3, 4)]
    assert [(e.data["problem"], e.answer) for e in task.heldout_examples(9)] == [
        ("problem 2", "2"),
        ("another", "0"),
        ("problem\n5", "5"),
    ]
    prompts = {task.training_example(3, i).data["problem"] for i in range(4)}
    assert prompts == {f"problem  {i}" for i in (0, 1, 3, 4)}


def test_several_files_of_different_layouts(tmp_path: Path) -> None:
    first = write(tmp_path / "2024.jsonl", {"Problem": "a", "Answer": 1})
    second = write_parquet(tmp_path / "2025.parquet", {"problem": "b", "answer": "2"})
    training = write(tmp_path / "train.jsonl", *map(dapo, range(5)))
    task = MathTask(path=[str(training)], heldout_path=[str(first), str(second)])
    assert [(e.data["problem"], e.answer) for e in task.heldout_examples(9)] == [("a", "1"), ("b", "2")]
    assert len(task.training_examples()) == 5


def test_a_copy_in_another_process_grades_without_the_files(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *map(dapo, range(5)))
    task = make_task("math", path=str(file))
    example, state = task.training_example(0, 0), pickle.dumps(task)
    file.unlink()
    assert len(state) < 1500
    assert pickle.loads(state).reward(example, f"\\boxed{{{example.answer}}}") == 1.0


def test_a_data_set_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library, on a folder in the place of a hub's name."""
    pytest.importorskip("datasets", reason="pip install datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "gsm8k"
    folder.mkdir()
    record = LAYOUTS["gsm8k"][0]
    write(folder / "train.jsonl", *map(record, range(6)))
    write(folder / "test.jsonl", *map(record, range(4, 8)))
    task = MathTask(dataset=str(folder), heldout_split="test")
    assert [e.data["problem"] for e in task.training_examples()] == [f"{i} eggs?" for i in range(4)]
    assert [e.answer for e in task.heldout_examples(9)] == ["4000", "5000", "6000", "7000"]
    with pytest.raises(DataError, match=r"split='dev'\) failed with ValueError: .*dev.* Check dataset, subset and"):
        MathTask(dataset=str(folder), split="dev")


GOOD = {"prompt": "p", "answer": "1"}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            ({"text": "x", "value": 1},),
            r"a\.jsonl, line 1: the columns 'text', 'value' fit no layout\. "
            r".*task\.answer_column\. Known: dapo: .*gsm8k: .*aime: .*aime_2024: .*plain: ",
        ),
        ((GOOD, {"prompt": "p"}), r"line 2: no column 'answer'; its columns are 'prompt'"),
        ((GOOD, {"prompt": "q", "answer": None}), r"line 2: 'answer' must be a string or a number, .*, got null"),
        ((GOOD, {"prompt": "q", "answer": True}), r"line 2: 'answer' must be a string or a number, .*, got a boolean"),
        ((GOOD, {"prompt": ["q"], "answer": 1}), r"line 2: 'prompt' must be a string or chat messages"),
        ((GOOD, {"prompt": " ", "answer": 1}), r"line 2: 'prompt' is empty"),
        (
            ({"question": "q", "answer": "#### 42"}, {"question": "p", "answer": "42"}),
            r"line 2: 'answer' must end with",
        ),
        ((GOOD, {"prompt": "q", "answer": "NaN"}), r"line 2: 'answer' is NaN, which no response can equal"),
        (({"prompt": "p", "reward_model": {}},), r"'reward_model' must be an object with a 'ground_truth', got an obj"),
        (
            ({"prompt": [{"role": "assistant", "content": "p"}], "reward_model": {"ground_truth": 1}},),
            r"'prompt' must be chat messages that end .*; got roles \['assistant'\]",
        ),
        (({"prompt": [], "reward_model": {"ground_truth": 1}},), r"'prompt' must be .*chat messages .*without any"),
        ((GOOD,), r"a\.jsonl has 1 distinct problems, too few to hold some out .*heldout_path=FILE"),
        ((), r"a\.jsonl has 0 distinct problems"),
        (("not an object",), r"line 1: a JSON object is needed, got a string"),
    ],
)
def test_malformed_files(tmp_path: Path, records: tuple[Any, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        MathTask(path=write(tmp_path / "a.jsonl", *records))


def test_files_that_are_not_there_or_not_parquet(tmp_path: Path) -> None:
    for name in ("absent.jsonl", "absent.parquet"):
        with pytest.raises(DataError, match=f"{name} does not exist"):
            MathTask(path=tmp_path / name)
    file = tmp_path / "text.parquet"
    file.write_text(json.dumps(GOOD))
    with pytest.raises(DataError, match=r"text\.parquet cannot be read as Parquet: .* must not be named \.parquet"):
        MathTask(path=file)


def test_a_heldout_file_may_not_take_everything(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", *map(dapo, range(5)))
    with pytest.raises(DataError, match="leaves no training problem: 5 distinct ones were read, and 5 held-out"):
        MathTask(path=file, heldout_path=file)
    with pytest.raises(DataError, match="leaves no held-out problem"):
        MathTask(path=file, heldout_path=write(tmp_path / "b.jsonl"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"needs either path .* or dataset .*; got neither"),
        ({"path": "a", "dataset": "b"}, "got both"),
        ({"path": 3}, "path must name a file, or several in a list; got 3"),
        ({"path": []}, r"path must name a file, or several in a list; got \[\]"),
        ({"path": "a", "split": "train"}, "split would be ignored: it belongs to dataset"),
        ({"path": "a", "heldout_split": "test"}, "heldout_split would be ignored"),
        ({"dataset": "a", "subset": 3}, "subset must be a name, got 3"),
        ({"path": "a", "heldout_path": "b", "heldout_fraction": 0.1}, "heldout_path and heldout_fraction"),
        ({"path": "a", "heldout_layout": "aime"}, "heldout_layout would be ignored"),
        ({"path": "a", "layout": "gsm8"}, "unknown layout 'gsm8'. Did you mean 'gsm8k'?"),
        ({"path": "a", "heldout_fraction": 1}, "between 0 and 1, got 1"),
        ({"path": "a", "prompt_style": "chat"}, "unknown prompt_style 'chat'. Known: bare, base, instruct"),
        ({"path": "a", "require_box": "yes"}, "require_box must be true or false, got 'yes'"),
        ({"path": "a", "memory_gib": 0.1}, "memory_gib is the memory .* 0.5 or more .*; got 0.1"),
        ({"path": "a", "file": "b"}, "task 'math' has no parameter 'file'"),
    ],
)
def test_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task("math", **parameters)


def test_without_math_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"math-verify library, which is not installed.*pip install -e '\.\[math\]'"):
        make_task("math", path="a")
