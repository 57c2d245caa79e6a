"""Every data set of the reasoning-gym library as a task. The library is imported when one is made."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import os
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from drpo.errors import ConfigError, DrpoWarning, TaskError, suggest
from drpo.installation import install
from drpo.tasks.base import Example
from drpo.tasks.kinds.procedural import ProceduralTask
from drpo.tasks.kinds.reasoning_gym_config import build_config, given, reason

#: Data sets that read word lists, boards or fonts when built (milliseconds to half a second): they are built
#: once and a copy gets each example's seed. The others are built anew for every example, as some draw from
#: their seed while being built. A test compares the two ways for each of these.
COSTLY_TO_BUILD = frozenset(
    {
        "arc_agi",
        "caesar_cipher",
        "codeio",
        "emoji_mystery",
        "figlet_font",
        "group_anagrams",
        "letter_counting",
        "letter_jumble",
        "n_queens",
        "rush_hour",
        "sentence_reordering",
        "spell_backward",
        "word_ladder",
        "word_sequence_reversal",
        "word_sorting",
    }
)

#: Data sets whose prompts depend on the order of sets of strings, which differs from process to process.
HASH_ORDERED = frozenset({"isomorphic_strings", "polynomial_multiplication", "ransom_note"})

#: Where an entry without an answer of its own (many are right) keeps one.
_EXAMPLE_ANSWERS = ("example_answer", "example_correct_answer", "possible_answer")


class ReasoningGymTask(ProceduralTask):
    """One data set of reasoning-gym with the library's own scoring.

    The example of a seed is item 0 of the data set that ``reasoning_gym.create_dataset(dataset, seed=seed,
    size=1, **parameters)`` makes. ``Example.answer`` is a right answer, or "" where the library gives none;
    ``data`` holds the rest of the entry, with which any process can grade it.

    Args:
        dataset: a name of the library's registry.
        parameters: fields of the data set's configuration, except ``seed`` and ``size``.

    Raises:
        ConfigError: the library is not installed, or refuses the name or a parameter.
    """

    def __init__(self, dataset: str, /, **parameters: Any):
        super().__init__(f"reasoning_gym:{dataset}")
        self._dataset = dataset
        self._parameters = parameters
        datasets = _library().DATASETS
        if dataset not in datasets:
            raise ConfigError(f"reasoning_gym has no data set {dataset!r}.{suggest(dataset, datasets)}")
        self._class, config_class = datasets[dataset]
        self._config = build_config(self.name, config_class, parameters)
        # Grades, and lends its word lists to examples where those are costly to read.
        self._built = self._build()
        if dataset in HASH_ORDERED and os.environ.get("PYTHONHASHSEED", "random") == "random":
            warnings.warn(
                f"{self.name} makes different prompts in every process, because the library iterates over sets of "
                f"strings: a run cannot be repeated exactly. Set PYTHONHASHSEED=0 in the environment.",
                DrpoWarning,
                stacklevel=2,
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self._dataset, self._parameters)

    def draw(self, seed: int) -> Example:
        try:
            with _own_randomness(seed):
                entry = self._seeded(seed)[0]
        except Exception as error:
            raise TaskError(f"{self.name} could not make the example of seed {seed}: {reason(error)}") from error
        data = {key: value for key, value in entry.items() if key != "question"}
        return Example(prompt=entry["question"], answer=_right_answer(entry), data=data)

    def reward(self, example: Example, text: str) -> float:
        """The library's score of what the last <answer>…</answer> holds, or of the whole response."""
        answer = _library().extract_answer(text)
        entry = {"question": example.prompt, **example.data}
        score = self._built.score_answer(text.strip() if answer is None else answer, entry)
        # In this order a NaN stays one, for the grader to report.
        return min(max(float(score), 0.0), 1.0)

    def _build(self) -> Any:
        try:
            with _own_randomness(0):
                return self._class(self._config)
        except Exception as error:
            raise ConfigError(f"{self.name} refuses {given(self._parameters)}: {reason(error)}") from error

    def _seeded(self, seed: int) -> Any:
        """The data set with this seed."""
        config = copy.copy(self._config)
        config.seed = seed
        if self._dataset not in COSTLY_TO_BUILD:
            return self._class(config)
        dataset = copy.copy(self._built)
        dataset.config, dataset.seed = config, seed
        return dataset


def _again(kind: type[ReasoningGymTask], dataset: str, parameters: Mapping[str, Any]) -> ReasoningGymTask:
    """The same task in another process; what the first one warned of has been said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DrpoWarning)
        return kind(dataset, **parameters)


def dataset_names() -> list[str]:
    """All data sets of the installed library.

    Raises:
        ConfigError: it is not installed.
    """
    return sorted(_library().DATASETS)


class _Library(NamedTuple):
    DATASETS: Mapping[str, tuple[Any, type]]
    extract_answer: Callable[[str], str | None]


@functools.cache
def _library() -> _Library:
    try:
        from reasoning_gym.factory import DATASETS
        from reasoning_gym.utils import extract_answer
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "reasoning_gym"
        state = "is not installed" if missing else f"is installed but cannot be imported ({error})"
        raise ConfigError(
            f"The task needs the reasoning-gym library, which {state}. Run: {install('train')}"
        ) from error
    return _Library(DATASETS, extract_answer)


def _right_answer(entry: Mapping[str, Any]) -> str:
    candidates = [entry["answer"], *(entry["metadata"].get(key) for key in _EXAMPLE_ANSWERS)]
    answer = next((candidate for candidate in candidates if candidate is not None), "")
    return answer if isinstance(answer, str) else json.dumps(answer)


@contextlib.contextmanager
def _own_randomness(seed: int) -> Iterator[None]:
    """Generators that use the global random states get a seeded one, and the caller's stay as they were.

    What they print (a few leave progress dots behind) would spoil the output of a command.
    """
    import numpy as np  # here, so that importing drpo.tasks stays quick

    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
