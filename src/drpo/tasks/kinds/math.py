"""Mathematical problems from files or data sets, graded by math-verify."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from drpo.errors import ConfigError, DataError, suggest
from drpo.tasks.base import Example
from drpo.tasks.grading.math import grade as math_grading
from drpo.tasks.kinds.finite import FiniteTask, check_fraction
from drpo.tasks.kinds.jsonl import Paths, check_column, file_paths
from drpo.tasks.records.fields import number_text, with_last
from drpo.tasks.records.files import Record, dataset_records, file_records
from drpo.tasks.records.layouts import LAYOUTS, Layout, Problem, find_layout, named_columns
from drpo.tasks.split import heldout_prompts

INSTRUCTION = r"Think it through step by step, then give the final answer in \boxed{}."
_NEXT = "\nProblem:"
_SCIENTIFIC = re.compile(r"[-+]?\d+(\.\d+)?[eE][-+]?\d{1,6}")

#: How a problem becomes a prompt; {problem} and {instruction} are filled in.
PROMPT_STYLES: dict[str, tuple[str, bool]] = {
    "instruct": ("{problem}\n\n{instruction}", True),
    "base": ("Problem:\n{problem}\n\n{instruction}\n\nSolution:", False),
    "bare": ("{problem}", True),
}
_FORM = 'A line of JSONL is one object such as {"prompt": "2 + 3 = ?", "answer": "5"}.'


class MathTask(FiniteTask):
    r"""Problems whose answers are mathematics. docs/tasks.md describes layouts, prompts and failures.

    Problems that read the same but for white space count once, as the first of them stands. A response is right (1.0,
    else 0.0) if what its last ``\boxed{…}`` holds equals the answer (:mod:`drpo.tasks.grading.math.answers`).

    Args:
        path: files, one or several (:func:`drpo.tasks.records.files.file_records`); or else ``dataset``.
        dataset: a name (or folder) for ``datasets.load_dataset``, with its ``subset`` and ``split`` ("train").
        layout: of ``path`` or ``dataset``, a key of ``LAYOUTS``; without it, the columns decide.
        prompt_column: instead of ``layout``: the column of the problem, dots for what is inside of a column.
        answer_column: likewise, of the answer.
        heldout_path: files of the held-out problems; what they share with the training ones leaves training.
        heldout_split: the split of ``dataset`` that is held out; instead of ``heldout_path``.
        heldout_layout: of the held-out problems, as ``layout``.
        heldout_fraction: without a held-out source, the share in (0, 1) of the problems with the smallest hashes that
            is held out; 0.1 if not given.
        prompt_style: "instruct" (the problem and a request for a box, as a user's turn), "base" (plain text for a model
            that only continues text; what it writes behind a further "Problem:" is not graded), "bare" (the problem).
        require_box: False: a response without a box may be right as well (:func:`drpo.tasks.grading.math.grade.grade`).
        memory_gib: address space that a grading process may have.

    Raises:
        ConfigError: a parameter is not allowed, or a library is not installed.
        DataError: a source cannot be read, fits no layout, or has no problem left to train on.
    """

    form = (
        "problems as DAPO-Math, GSM8K and AIME lay them out, in the same files, graded by math-verify (path, "
        "prompt_column, answer_column, heldout_path, dataset, prompt_style, …)"
    )

    def __init__(
        self,
        *,
        path: Paths | None = None,
        dataset: str | None = None,
        subset: str | None = None,
        split: str | None = None,
        layout: str | None = None,
        prompt_column: str | None = None,
        answer_column: str | None = None,
        heldout_path: Paths | None = None,
        heldout_split: str | None = None,
        heldout_layout: str | None = None,
        heldout_fraction: float | None = None,
        prompt_style: str = "instruct",
        require_box: bool = True,
        memory_gib: float = 2.0,
    ):
        math_grading.require_math_verify()
        self._dataset, self._subset, self._split = dataset, subset, split or "train"
        self._heldout_split = heldout_split
        self._layout, self._heldout_layout = layout, heldout_layout
        self._columns = (
            check_column("math", "prompt_column", prompt_column),
            check_column("math", "answer_column", answer_column),
        )
        self._check_sources(path, split, heldout_path, heldout_fraction)
        self.paths = [] if path is None else file_paths("math", "path", path)
        self.heldout_paths = [] if heldout_path is None else file_paths("math", "heldout_path", heldout_path)
        self.heldout_fraction = check_fraction("math", 0.1 if heldout_fraction is None else heldout_fraction)
        if prompt_style not in PROMPT_STYLES:
            raise ConfigError(
                f"math: unknown prompt_style {prompt_style!r}.{suggest(str(prompt_style), PROMPT_STYLES)}"
            )
        if not isinstance(require_box, bool):
            raise ConfigError(f"math: require_box must be true or false, got {require_box!r}")
        if isinstance(memory_gib, bool) or not isinstance(memory_gib, int | float) or not memory_gib >= 0.5:
            raise ConfigError(
                f"math: memory_gib is the memory of a grading process in GiB, 0.5 or more (sympy needs "
                f"some); got {memory_gib!r}"
            )
        self.prompt_style, self.require_box, self.memory_gib = prompt_style, require_box, memory_gib
        self.load()

    def prepare_grading(self) -> None:
        """In a grading process: bound its memory, and load math-verify."""
        math_grading.prepare(self.memory_gib)

    def prepare_example(self, example: Example) -> None:
        """In a grading process: read the right answers, so that what takes long after it is the response."""
        for answer in example.answers:
            math_grading.read_right_answer(answer)

    def answer_kind(self, text: str) -> str | None:
        """What answers that take long to grade have in common (:func:`drpo.tasks.grading.math.grade.answer_kind`)."""
        return math_grading.answer_kind(text)

    def reward(self, example: Example, text: str) -> float:
        """1.0 if the response gives the answer, else 0.0.

        Raises:
            DataError, MemoryError, RecursionError: it cannot be told (:func:`drpo.tasks.grading.math.grade.grade`).
        """
        if self.prompt_style == "base":
            text = text.partition(_NEXT)[0]
        return float(any(math_grading.grade(text, answer, self.require_box) for answer in example.answers))

    def read(self) -> tuple[list[Example], list[Example]]:
        """The two sides, each problem once. Held-out ones in their source's order, or by rising hash."""
        problems = _distinct(self._training_records(), self._layout, self._columns)
        if self.heldout_paths or self._heldout_split:
            columns = (None, None) if self._heldout_layout is not None else self._columns
            heldout = _distinct(self._heldout_records(), self._heldout_layout, columns)
        else:
            if len(problems) < 2:
                raise DataError(
                    f"{self._source()} has {len(problems)} distinct problems, too few to hold some out for "
                    "evaluation. Give more, or held-out ones of their own (heldout_path=FILE)."
                )
            heldout = {key: problems[key] for key in heldout_prompts(problems, self.heldout_fraction)}
        training = [self._example(problem) for key, problem in problems.items() if key not in heldout]
        if not training or not heldout:
            side = "training" if heldout else "held-out"
            raise DataError(
                f"{self._source()} leaves no {side} problem: {len(problems)} distinct ones were read, and "
                f"{len(heldout)} held-out ones, which never train. Give other files."
            )
        return training, [self._example(problem) for problem in heldout.values()]

    def _training_records(self) -> Iterator[Iterable[Record]]:
        if self._dataset is not None:
            yield dataset_records(self._dataset, self._subset, self._split)
        yield from (file_records(path, _FORM) for path in self.paths)

    def _heldout_records(self) -> Iterator[Iterable[Record]]:
        if self._dataset is not None and self._heldout_split is not None:
            yield dataset_records(self._dataset, self._subset, self._heldout_split)
        yield from (file_records(path, _FORM) for path in self.heldout_paths)

    def _example(self, problem: Problem) -> Example:
        form, chat = PROMPT_STYLES[self.prompt_style]

        def asked(text: str) -> str:
            return form.format(problem=text, instruction=INSTRUCTION)

        turns = with_last(problem.turns, asked(problem.turns[-1]["content"])) if problem.turns and chat else ()
        data: dict[str, Any] = {"problem": problem.text}
        if problem.turns:
            data["turns"] = list(problem.turns)
        return Example.with_answers(asked(problem.text), problem.answers, data=data, chat=chat, turns=turns)

    def _source(self) -> str:
        return f"dataset {self._dataset}" if self._dataset is not None else ", ".join(map(str, self.paths))

    def _check_sources(self, path: Any, split: Any, heldout_path: Any, heldout_fraction: Any) -> None:
        if (path is None) == (self._dataset is None):
            raise ConfigError(
                "task 'math' needs either path (a file) or dataset (a name for "
                f"datasets.load_dataset); got {'neither' if path is None else 'both'}"
            )
        texts = {
            "dataset": self._dataset,
            "subset": self._subset,
            "split": split,
            "heldout_split": self._heldout_split,
            "layout": self._layout,
            "heldout_layout": self._heldout_layout,
        }
        for key, value in texts.items():
            if value is not None and (not isinstance(value, str) or not value):
                raise ConfigError(f"math: {key} must be a name, got {value!r}")
        for key in ("subset", "split", "heldout_split"):
            if texts[key] is not None and self._dataset is None:
                raise ConfigError(f"math: {key} would be ignored: it belongs to dataset, but path is given")
        self._check_heldout(heldout_path, heldout_fraction)
        for layout in (self._layout, self._heldout_layout):
            if layout is not None:
                find_layout(layout, None, "")
        if self._layout is not None and any(self._columns):
            raise ConfigError("math: layout would be ignored beside prompt_column or answer_column. Give one of them")

    def _check_heldout(self, heldout_path: Any, heldout_fraction: Any) -> None:
        heldout = {
            "heldout_path": heldout_path,
            "heldout_split": self._heldout_split,
            "heldout_fraction": heldout_fraction,
        }
        given = [key for key, value in heldout.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"math: {' and '.join(given)} both choose the held-out problems. Give one of them")
        if self._heldout_layout is not None and given not in (["heldout_path"], ["heldout_split"]):
            raise ConfigError(
                "math: heldout_layout would be ignored: the held-out problems come from the training source. Use layout"
            )


def _distinct(
    sources: Iterable[Iterable[Record]], layout: str | None, columns: tuple[str | None, str | None]
) -> dict[str, Problem]:
    """The problems by their text with white space evened out; the first of those that are the same."""
    problems: dict[str, Problem] = {}
    for source in sources:
        records = iter(source)
        first = next(records, None)
        if first is None:
            continue
        where, record = first
        chosen = (
            named_columns(*columns, record, where, unwrap=True) if any(columns) else find_layout(layout, record, where)
        )
        for where, record in itertools.chain([first], records):
            problem = _stripped(chosen.read(record, where), chosen, where)
            problems.setdefault(" ".join(problem.text.split()), problem)
    return problems


def _stripped(problem: Problem, layout: Layout, where: str) -> Problem:
    """The problem without white space around its texts; numbers in scientific notation written out."""
    answers = []
    for answer in problem.answers:
        text = answer.strip()
        if text.lower() in ("nan", "inf", "-inf"):
            raise DataError(
                f"{where}: {layout.columns[1]!r} is {text}, which no response can equal. Fill it in or "
                "remove the record."
            )
        try:
            answers.append(number_text(Decimal(text)) if _SCIENTIFIC.fullmatch(text) else text)
        except ValueError as error:
            raise DataError(f"{where}: {layout.columns[1]!r} {error}.") from None
    return Problem(problem.text.strip(), tuple(answers), problem.turns)


__all__ = ["LAYOUTS", "PROMPT_STYLES", "MathTask"]
