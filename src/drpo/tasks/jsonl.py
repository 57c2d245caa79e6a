"""A user's own problems: a file of {"prompt": …, "answer": …} lines, graded by exact match."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError, DataError
from drpo.tasks.answers import extract_answer, normalise_answer
from drpo.tasks.base import Example
from drpo.tasks.finite import FiniteTask, check_fraction
from drpo.tasks.records import json_type, jsonl_records
from drpo.tasks.split import heldout_prompts

_FORM = 'Each line is one JSON object such as {"prompt": "2 + 3 =", "answer": "5"}.'


class JsonlTask(FiniteTask):
    """Problems from a JSONL file.

    A line's ``prompt`` is a string, its ``answer`` a string or a number; other keys are passed over, as are
    empty lines. The distinct prompts with the smallest hashes are held out, all lines of a prompt on one
    side. Training goes through the lines of its side in a new order every epoch. A response is right (1.0,
    else 0.0) if what its last <answer>…</answer> holds, or all of it without such tags, equals the answer
    after normalising (:func:`drpo.tasks.answers.normalise_answer`).

    Args:
        path: the file, UTF-8; relative to the working directory.
        heldout_fraction: of the distinct prompts, in (0, 1); rounded up, but one always stays for training.

    Raises:
        ConfigError: a parameter is not allowed.
        DataError: the file or one of its lines is not as described; the message names the line.
    """

    def __init__(self, *, path: str | os.PathLike[str], heldout_fraction: float = 0.1):
        if not isinstance(path, str | os.PathLike) or not os.fspath(path):
            raise ConfigError(f"jsonl: path must name a file, got {path!r}")
        self.heldout_fraction = check_fraction("jsonl", heldout_fraction)
        self.path = Path(path).expanduser().absolute()
        self.load()

    def reward(self, example: Example, text: str) -> float:
        """1.0 if the response gives the answer, else 0.0."""
        return float(normalise_answer(extract_answer(text)) == normalise_answer(example.answer))

    def read(self) -> tuple[list[Example], list[Example]]:
        """The training lines in the file's order, and the held-out problems: one a prompt, its first line, by rising
        hash."""
        examples = [_example(record, where) for where, record in jsonl_records(self.path, _FORM)]
        first_lines: dict[str, Example] = {}
        for example in examples:
            first_lines.setdefault(example.prompt, example)
        if not examples:
            raise DataError(f"{self.path} holds no problem. {_FORM}")
        if len(first_lines) == 1:
            raise DataError(f"{self.path} has one distinct prompt, which leaves nothing to hold out for "
                            "evaluation. Give it at least two; a hundred or more make a useful evaluation.")
        heldout = heldout_prompts(first_lines, self.heldout_fraction)
        kept_out = set(heldout)
        training = [example for example in examples if example.prompt not in kept_out]
        return training, [first_lines[prompt] for prompt in heldout]


def _example(record: dict[str, Any], where: str) -> Example:
    """One line, checked. Numbers keep the digits that the file gives them."""
    missing = [key for key in ("prompt", "answer") if key not in record]
    if missing:
        raise DataError(f"{where}: no {' and no '.join(map(repr, missing))}; its keys are "
                        f"{', '.join(map(repr, record)) or '(none)'}. {_FORM}")
    prompt, answer = record["prompt"], record["answer"]
    if not isinstance(prompt, str):
        raise DataError(f"{where}: 'prompt' must be a string, got {json_type(prompt)}. {_FORM}")
    if not prompt.strip():
        raise DataError(f"{where}: 'prompt' is empty. Fill it in or remove the line.")
    if isinstance(answer, bool) or not isinstance(answer, str | int | Decimal):
        raise DataError(f"{where}: 'answer' must be a string or a number, got {json_type(answer)}. {_FORM}")
    answer = format(answer, "f") if isinstance(answer, Decimal) else str(answer)
    if not normalise_answer(answer):
        raise DataError(f"{where}: 'answer' is {answer!r}, of which normalising leaves nothing, so that an "
                        "empty response would be right. Fill it in or remove the line.")
    return Example(prompt=prompt, answer=answer)
