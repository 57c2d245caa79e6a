"""The layouts that problems come in, and how a record of each gives its problem and its answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from drpo.errors import ConfigError, DataError, suggest
from drpo.tasks.records.fields import Prompt, Turn, answers_of, checked, field, prompt_of
from drpo.tasks.records.files import json_type

# DAPO-Math asks for a line "Answer: …" around every problem, which contradicts the box that we grade.
_DAPO_BEFORE = re.compile(r"\ASolve the following math problem[^\n]*Answer:[^\n]*\n\s*")
_DAPO_AFTER = re.compile(r"\n\s*Remember to put your answer[^\n]*Answer:[^\n]*\Z")


class Problem(NamedTuple):
    """A problem without any instruction, its answers, any of which is right, and its conversation if there is one."""

    text: str
    answers: tuple[str, ...]
    turns: tuple[Turn, ...] = ()


class Layout(NamedTuple):
    """What a layout looks like, and how to read it. ``columns``: (of the problem, of the answer)."""

    columns: tuple[str, str]
    description: str
    problem: Callable[[Any], Prompt]
    answers: Callable[[Any], tuple[str, ...]]

    def read(self, record: Mapping[str, Any], where: str) -> Problem:
        """The problem of a record, as it stands there.

        Raises:
            DataError: it lacks one of the columns, or holds something else in it.
        """
        prompt = self._converted(record, 0, where, self.problem)
        answers = self._converted(record, 1, where, self.answers)
        last = prompt.turns[-1]["content"] if prompt.turns else prompt.text
        for column, text in ((self.columns[0], last), *((self.columns[1], answer) for answer in answers)):
            if not text.strip():
                raise DataError(f"{where}: {column!r} is empty. Fill it in or remove the record.")
        return Problem(prompt.text, answers, prompt.turns)

    def _converted(self, record: Mapping[str, Any], place: int, where: str, convert: Callable[[Any], Any]) -> Any:
        column = self.columns[place]
        try:
            return convert(field(record, column, where))
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{where}: {column!r} {error}.") from None


def find_layout(name: str | None, record: Mapping[str, Any] | None, where: str) -> Layout:
    """The layout of that name, or the first that the first record of a source fits.

    Raises:
        ConfigError: there is no layout of that name.
        DataError: no layout fits.
    """
    if name is not None:
        if name not in LAYOUTS:
            raise ConfigError(f"math: unknown layout {name!r}.{suggest(name, LAYOUTS)}")
        return LAYOUTS[name]
    record = {} if record is None else record
    for key, layout in LAYOUTS.items():
        if set(layout.columns) <= set(record) and (key != "gsm8k" or _has_mark(record["answer"])):
            return layout
    known = "; ".join(f"{key}: {layout.description}" for key, layout in LAYOUTS.items())
    raise DataError(
        f"{where}: the columns {', '.join(map(repr, record)) or '(none)'} fit no layout. Name those of "
        f"problem and answer with task.prompt_column and task.answer_column. Known: {known}."
    )


def named_columns(
    prompt: str | None, answer: str | None, record: Mapping[str, Any], where: str, unwrap: bool = False
) -> Layout:
    """The layout of columns that a user names. One that is not named is the first of a layout that the record has.

    Args:
        prompt: name of the column of problems; dots for what is inside of a column.
        answer: name of the column of answers, likewise.
        record: the first of its source.
        where: it stands.
        unwrap: take off what DAPO-Math wraps around a problem.

    Raises:
        DataError: one is not named, and the record has none of a layout.
    """
    columns = []
    for place, named in enumerate((prompt, answer)):
        known = [layout.columns[place] for layout in (LAYOUTS["plain"], *LAYOUTS.values())]
        found = named or next((column for column in known if column in record), None)
        if found is None:
            key = ("prompt_column", "answer_column")[place]
            raise DataError(
                f"{where}: none of the columns {', '.join(map(repr, record)) or '(none)'} is known as "
                f"{('a prompt', 'an answer')[place]}. Name it with task.{key}."
            )
        columns.append(found)
    return Layout(
        (columns[0], columns[1]), "columns named by the user", _unwrapped if unwrap else prompt_of, _any_answers
    )


def _has_mark(value: Any) -> bool:
    return isinstance(value, str) and "####" in value


def _after_mark(value: Any) -> tuple[str, ...]:
    if not isinstance(value, str):
        raise ValueError(f"must be a string, got {json_type(value)}")
    _, mark, answer = value.rpartition("####")
    if not mark:
        raise ValueError("must end with '#### ' and the answer, as GSM8K's do and the first record's does")
    return (checked(answer).strip().replace(",", ""),)


def _unwrapped(value: Any) -> Prompt:
    """The prompt, without what DAPO-Math wraps around a problem."""
    prompt = prompt_of(value)
    if prompt.turns:
        return prompt
    return Prompt(_DAPO_AFTER.sub("", _DAPO_BEFORE.sub("", prompt.text.strip())))


def _ground_truth(value: Any) -> tuple[str, ...]:
    if not isinstance(value, Mapping) or "ground_truth" not in value:
        raise ValueError(f"must be an object with a 'ground_truth', got {json_type(value)}")
    return answers_of(value["ground_truth"])


def _any_answers(value: Any) -> tuple[str, ...]:
    """Of a column that a user names: an object with a ``ground_truth``, a text with a mark, or answers."""
    if isinstance(value, Mapping):
        return _ground_truth(value)
    return _after_mark(value) if _has_mark(value) else answers_of(value)


def _plain(problem: str, answer: str, description: str = "") -> Layout:
    return Layout((problem, answer), description or f"{problem} and {answer}", prompt_of, answers_of)


#: By name, in the order in which they are tried; a record has further columns of any name.
LAYOUTS: dict[str, Layout] = {
    "dapo": Layout(
        ("prompt", "reward_model"),
        "prompt (chat messages) and reward_model.ground_truth, as DAPO-Math-17k and verl's other files",
        _unwrapped,
        _ground_truth,
    ),
    "gsm8k": Layout(("question", "answer"), "question and answer, which ends with '#### 42'", prompt_of, _after_mark),
    "question": _plain("question", "answer", "question and answer, without '####'"),
    "aime": _plain("problem", "answer", "problem and answer, as AIME and MATH-500"),
    "aime_2024": _plain("Problem", "Answer"),
    "plain": _plain("prompt", "answer"),
    "messages": _plain("messages", "answer", "messages (a chat) and answer"),
    "rlvr": _plain("messages", "ground_truth", "messages (a chat) and ground_truth, as RLVR's"),
    "ground_truth": _plain("prompt", "ground_truth"),
    "final_answer": _plain("question", "final_answer"),
    "expected_answer": _plain("problem", "expected_answer"),
    "label": _plain("prompt", "label"),
}
