"""Tasks by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drpo.errors import ConfigError, suggest
from drpo.tasks.base import Task
from drpo.tasks.builtin.copy import CopyTask
from drpo.tasks.builtin.sums import SumsTask
from drpo.tasks.builtin.word_problems import WordProblemsTask
from drpo.tasks.kinds.jsonl import JsonlTask
from drpo.tasks.kinds.math import MathTask
from drpo.tasks.kinds.reasoning_gym import ReasoningGymTask, dataset_names
from drpo.tasks.kinds.user import load_user_task
from drpo.tasks.parameters import check_parameters
from drpo.tasks.records.files import DATA_SUFFIXES

#: The tasks that are a class of this package; each says in ``form`` what it is, for help texts.
TASKS: dict[str, Any] = {
    "copy": CopyTask,
    "jsonl": JsonlTask,
    "math": MathTask,
    "sums": SumsTask,
    "word_problems": WordProblemsTask,
}

#: Every form a task's name can take, for help texts.
FORMS: dict[str, str] = {
    **{name: cls.form for name, cls in TASKS.items()},
    "reasoning_gym:<dataset>": "a data set of the reasoning-gym library, with its parameters and its scoring",
    "python:<module>:<Class>": "your own class on the import path, with the methods of drpo.tasks.Task",
}

_SOME_DATASETS = ("chain_sum", "countdown", "gsm_symbolic", "spell_backward", "zebra_puzzles")


def make_task(name: str, /, **parameters: Any) -> Task:
    """The task that ``name`` stands for, e.g. ``make_task("reasoning_gym:chain_sum", max_terms=3)``.

    Raises:
        ConfigError: the name or a parameter is not allowed, or what the task needs is not installed.
        DataError: the file of a ``jsonl`` or ``math`` task is malformed.
    """
    kind, _, rest = name.partition(":")
    if kind == "python":
        return load_user_task(rest, parameters)
    if kind == "reasoning_gym":
        if not rest:
            raise ConfigError(
                "task 'reasoning_gym' needs a data set: reasoning_gym:<dataset>, for instance "
                f"{', '.join(f'reasoning_gym:{dataset}' for dataset in _SOME_DATASETS)}. "
                "drpo.tasks.dataset_names() lists all."
            )
        return ReasoningGymTask(rest, **parameters)
    if name not in TASKS:
        raise ConfigError(f"unknown task {name!r}.{_meant_dataset(name)}{suggest(name, FORMS)}")
    check_parameters(name, TASKS[name], parameters)
    return TASKS[name](**parameters)


def _meant_dataset(name: str) -> str:
    """A hint for those who name a data set without saying whose, or a data file."""
    if any(suffix in DATA_SUFFIXES for suffix in Path(name).suffixes[-2:]):
        return f" That is a data file: task=jsonl task.path={name:.200}, or task=math for mathematics."
    try:
        known = name in dataset_names()
    except ConfigError:  # without the library there is nothing to hint at
        known = False
    return f" The data set of that name is reasoning_gym:{name}." if known else ""
