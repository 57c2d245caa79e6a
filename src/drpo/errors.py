"""Errors a user can cause or meet. Each is also the standard exception it specialises."""

import difflib
import re
from collections.abc import Iterable

#: Characters of a message: without a space between them, and in one line. What goes beyond is cut out of the middle.
LONGEST_WORD, LONGEST_LINE = 300, 2000
_LONG = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")


class DrpoError(Exception):
    """Base of every error that `drpo` raises on purpose; the command line prints it without a traceback.

    A message may name any value that was given: its text is shortened here, for all of them.
    """

    def __str__(self) -> str:
        lines = (
            _LONG.sub(lambda word: _middle_cut(word[0], LONGEST_WORD), line) for line in super().__str__().split("\n")
        )
        return "\n".join(_middle_cut(line, LONGEST_LINE) for line in lines)


class ConfigError(DrpoError, ValueError):
    """A setting, parameter or name is not allowed."""


class DataError(DrpoError, ValueError):
    """Input data (tensors, records, files) is malformed."""


class CheckpointError(DrpoError, RuntimeError):
    """A run directory or checkpoint cannot be read or written."""


class WriteError(CheckpointError):
    """The disk refuses a write (full, not writable); the same command goes on once it does not."""


class SchemaError(DrpoError, RuntimeError):
    """A file was written by a newer version of drpo, in a form that this one does not know.

    Not a DataError: the file is whole, and nothing that repairs or passes over damaged files may touch it.
    """


class TaskError(DrpoError, RuntimeError):
    """A task cannot provide examples or grade them."""


class TrainingError(DrpoError, RuntimeError):
    """Training cannot go on: a value of the update is not finite."""


class MismatchError(DrpoError, RuntimeError):
    """The behavior log-probabilities are not those of the policy being trained."""


class SamplerError(DrpoError, RuntimeError):
    """A rollout engine cannot start, or keeps failing."""


class TrackingError(DrpoError, RuntimeError):
    """A tracker cannot start."""


class DrpoWarning(UserWarning):
    """A setting that works but does not do what its name suggests."""


def _middle_cut(text: str, limit: int) -> str:
    """``text``, or its two ends with the number of characters between them, about ``limit`` in all."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    return f"{text[:head]}…[{len(text) - limit} characters]…{text[-tail:]}"


def suggest(name: object, known: Iterable[str]) -> str:
    """The tail of an "unknown …" message: the nearest known name, if any, and all that are known."""
    names = sorted(known)
    folded, asked = {known.lower(): known for known in names}, str(name).lower()
    near = difflib.get_close_matches(asked, folded)
    # Letters in the wrong order are likelier than wrong letters: dpro is drpo rather than mdpo.
    nearest = max(near, key=lambda known: sorted(known) == sorted(asked), default=None)
    hint = f" Did you mean {folded[nearest]!r}?" if nearest else ""
    return f"{hint} Known: {', '.join(names) or '(none)'}."
