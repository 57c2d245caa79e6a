"""A user's own problems: a file of {"prompt": …, "answer": …} lines, graded by exact match."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from drpo.errors import ConfigError, DataError
from drpo.tasks.answers import extract_answer, normalise_answer
from drpo.tasks.base import Example
from drpo.tasks.split import heldout_prompts, item_seed


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant)
_FORM = 'Each line is one JSON object such as {"prompt": "2 + 3 =", "answer": "5"}.'


class JsonlTask:
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
        if isinstance(heldout_fraction, bool) or not isinstance(heldout_fraction, int | float):
            raise ConfigError(f"jsonl: heldout_fraction must be a number, got {heldout_fraction!r}")
        if not 0 < heldout_fraction < 1:
            raise ConfigError(f"jsonl: heldout_fraction must be between 0 and 1, got {heldout_fraction}")
        self.path = Path(path).expanduser().absolute()
        self.heldout_fraction = float(heldout_fraction)
        self._sides: tuple[list[Example], list[Example]] | None = self._read()
        self._order: tuple[tuple[int, int], list[int]] | None = None

    def training_example(self, seed: int, index: int) -> Example:
        """Index n·epoch + i is the i-th of the n training lines in that epoch's order.

        Raises:
            ConfigError: the index is negative.
        """
        if index < 0:
            raise ConfigError(f"index of a training example: got {index}, must be 0 or more")
        training, _ = self._loaded()
        epoch, place = divmod(index, len(training))
        return training[self._epoch_order(seed, epoch, len(training))[place]]

    def heldout_examples(self, count: int) -> list[Example]:
        """The first ``count`` held-out problems: one a prompt, its first line, by rising hash.

        Raises:
            ConfigError: the count is negative.
        """
        if count < 0:
            raise ConfigError(f"count of held-out examples: got {count}, must be 0 or more")
        return self._loaded()[1][:count]

    def reward(self, example: Example, text: str) -> float:
        """1.0 if the response gives the answer, else 0.0."""
        return float(normalise_answer(extract_answer(text)) == normalise_answer(example.answer))

    def __getstate__(self) -> dict[str, Any]:
        """Without the examples: grading does not need them, and a copy that does reads the file again."""
        return {**self.__dict__, "_sides": None, "_order": None}

    def _loaded(self) -> tuple[list[Example], list[Example]]:
        if self._sides is None:
            self._sides = self._read()
        return self._sides

    def _read(self) -> tuple[list[Example], list[Example]]:
        """The training lines in the file's order, and the held-out problems."""
        examples = list(_read_examples(self.path))
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

    def _epoch_order(self, seed: int, epoch: int, size: int) -> list[int]:
        if self._order is None or self._order[0] != (seed, epoch):
            rng = random.Random(item_seed("epoch", seed, epoch))
            # Not shuffle(): random() alone is promised to stay the same in later Pythons.
            keys = [rng.random() for _ in range(size)]
            self._order = (seed, epoch), sorted(range(size), key=keys.__getitem__)
        return self._order[1]


def _read_examples(path: Path) -> Iterator[Example]:
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield _example(line, f"{path}, line {number}")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist. Give `path` relative to the working directory "
                        f"({Path.cwd()}) or from the root.") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a directory; `path` must name one JSONL file.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. Make it readable.") from error


def _example(line: bytes, where: str) -> Example:
    """One line, checked. Numbers keep the digits that the file gives them."""
    try:
        # A byte-order mark, as some editors put before the first line, is not part of it.
        text = line.decode("utf-8-sig")
        record = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 (byte {line[error.start]:#04x}). Save the file as "
                        "UTF-8.") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno}). {_FORM}") from error
    except ValueError as error:  # an infinity, a NaN, or more digits than Python converts
        raise DataError(f"{where}: not a number that can be compared ({error}). Write it as a "
                        "string.") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: a JSON object is needed, got {_json_type(record)}. {_FORM}")
    missing = [key for key in ("prompt", "answer") if key not in record]
    if missing:
        raise DataError(f"{where}: no {' and no '.join(map(repr, missing))}; its keys are "
                        f"{', '.join(map(repr, record)) or '(none)'}. {_FORM}")
    prompt, answer = record["prompt"], record["answer"]
    if not isinstance(prompt, str):
        raise DataError(f"{where}: 'prompt' must be a string, got {_json_type(prompt)}. {_FORM}")
    if not prompt.strip():
        raise DataError(f"{where}: 'prompt' is empty. Fill it in or remove the line.")
    if isinstance(answer, bool) or not isinstance(answer, str | int | Decimal):
        raise DataError(f"{where}: 'answer' must be a string or a number, got {_json_type(answer)}. {_FORM}")
    answer = format(answer, "f") if isinstance(answer, Decimal) else str(answer)
    if not normalise_answer(answer):
        raise DataError(f"{where}: 'answer' is {answer!r}, of which normalising leaves nothing, so that an "
                        "empty response would be right. Fill it in or remove the line.")
    return Example(prompt=prompt, answer=answer)


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
