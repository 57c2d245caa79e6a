"""A user's own problems: records with a prompt and an answer, graded by exact match."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError, DataError
from drpo.tasks.base import Example
from drpo.tasks.grading.answers import extract_answer, normalize_answer
from drpo.tasks.kinds.finite import FiniteTask, check_fraction
from drpo.tasks.records.files import file_records
from drpo.tasks.records.layouts import Layout, find_layout, named_columns
from drpo.tasks.split import heldout_prompts

_FORM = 'Each line is one JSON object such as {"prompt": "2 + 3 =", "answer": "5"}.'

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class JsonlTask(FiniteTask):
    """Problems from a file: JSONL, a JSON array, CSV, Parquet, Arrow, compressed or not, or a saved data set.

    A record's prompt is a string or chat messages, its answer a string, a number or a list of those, any of which is
    right; other columns are passed over. The distinct prompts with the smallest hashes are held out, all records of a
    prompt on one side. Training goes through the records of its side in a new order every epoch. A response is right
    (1.0, else 0.0) if what its last <answer>…</answer> holds, or all of it without such tags, equals an answer after
    normalizing (:func:`drpo.tasks.grading.answers.normalize_answer`).

    Args:
        path: the file, or several; relative to the working directory.
        heldout_fraction: of the distinct prompts, in (0, 1); rounded up, but one always stays for training.
        prompt_column: of the prompt, dots for what is inside of a column; without it and ``answer_column``, "prompt"
            and "answer", or the columns of the first layout that fits (``LAYOUTS``).
        answer_column: of the answer.

    Raises:
        ConfigError: a parameter is not allowed.
        DataError: the file or one of its records is not as described; the message names the line.
    """

    form = (
        "your own problems, a file of prompts and answers (JSONL, JSON, CSV, Parquet, …), exact match (path, "
        "prompt_column, answer_column, heldout_fraction)"
    )

    def __init__(
        self,
        *,
        path: Paths,
        heldout_fraction: float = 0.1,
        prompt_column: str | None = None,
        answer_column: str | None = None,
    ):
        self.heldout_fraction = check_fraction("jsonl", heldout_fraction)
        self.prompt_column = check_column("jsonl", "prompt_column", prompt_column)
        self.answer_column = check_column("jsonl", "answer_column", answer_column)
        self.paths = file_paths("jsonl", "path", path)
        self.load()

    def reward(self, example: Example, text: str) -> float:
        """1.0 if the response gives an answer, else 0.0."""
        given = normalize_answer(extract_answer(text))
        return float(any(given == normalize_answer(answer) for answer in example.answers))

    def read(self) -> tuple[list[Example], list[Example]]:
        """The training records in the file's order, and the held-out problems: one a prompt, its first record, by
        rising hash."""
        source = ", ".join(map(str, self.paths))
        examples = [example for path in self.paths for example in self._examples(path)]
        if not examples:
            raise DataError(f"{source} holds no problem. {_FORM}")
        first_lines: dict[str, Example] = {}
        for example in examples:
            first_lines.setdefault(example.prompt, example)
        if len(first_lines) == 1:
            raise DataError(
                f"{source} has one distinct prompt, which leaves nothing to hold out for "
                "evaluation. Give it at least two; a hundred or more make a useful evaluation."
            )
        heldout = heldout_prompts(first_lines, self.heldout_fraction)
        kept_out = set(heldout)
        training = [example for example in examples if example.prompt not in kept_out]
        return training, [first_lines[prompt] for prompt in heldout]

    def _examples(self, path: Path) -> Iterator[Example]:
        """The records of one file, whose first one decides about its layout."""
        records = file_records(path, _FORM)
        first = next(records, None)
        if first is None:
            return
        layout = self._layout(*first)
        for where, record in itertools.chain([first], records):
            yield _example(layout, record, where)

    def _layout(self, where: str, record: Any) -> Layout:
        """That of the columns that were named, else the plain one, else the first that fits."""
        if self.prompt_column or self.answer_column:
            return named_columns(self.prompt_column, self.answer_column, record, where)
        is_plain = "prompt" in record and "answer" in record
        return find_layout("plain" if is_plain else None, record, where)


def file_paths(task: str, key: str, value: Any) -> list[Path]:
    """The files that a parameter names.

    Raises:
        ConfigError: it names none.
    """
    values = [value] if isinstance(value, str | os.PathLike) else value
    if (
        not isinstance(values, list | tuple)
        or not values
        or not all(isinstance(item, str | os.PathLike) and os.fspath(item) for item in values)
    ):
        raise ConfigError(f"{task}: {key} must name a file, or several in a list; got {value!r}")
    return [Path(item).expanduser().absolute() for item in values]


def check_column(task: str, key: str, value: Any) -> str | None:
    """The name of a column, or None.

    Raises:
        ConfigError: it is something else.
    """
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(f"{task}: {key} must be the name of a column, got {value!r}")
    return value


def _example(layout: Layout, record: Any, where: str) -> Example:
    """One record, checked."""
    problem = layout.read(record, where)
    for answer in problem.answers:
        if not normalize_answer(answer):
            raise DataError(
                f"{where}: {layout.columns[1]!r} is {answer!r}, which is empty after normalization, so that an empty "
                f"response would be right. Fill it in or remove the record."
            )
    return Example.with_answers(problem.text, problem.answers, turns=problem.turns)
