"""Which prompts fit: the model's positions hold a prompt and its response, and one that is longer is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from drpo.errors import ConfigError, DataError, TaskError
from drpo.model.prompts import PromptEncoder
from drpo.tasks import Task
from drpo.tasks.base import Example
from drpo.train.config import TrainConfig

#: Training prompts in a row that may be left out before that is an error.
MAX_LEFT_OUT = 1000


@dataclass(frozen=True, slots=True)
class PromptRoom:
    """``positions`` of the model (None: as many as one likes), of which a response may take ``response``."""

    positions: int | None
    response: int

    @classmethod
    def of(cls, model_config: Any, config: TrainConfig) -> PromptRoom:
        """The room of a run of ``config`` with a model of that transformers configuration.

        Raises:
            ConfigError: there is none.
        """
        limits = [getattr(model_config.get_text_config(), "max_position_embeddings", None)]
        limits.append(config.make_sampler_options().positions)
        positions = min((limit for limit in limits if limit is not None), default=None)
        if positions is not None and config.max_new_tokens >= positions:
            raise ConfigError(
                f"max_new_tokens={config.max_new_tokens} leaves no room for a prompt in the model's "
                f"{positions} positions. Set it to less than {positions}, by as many as prompts need."
            )
        return cls(positions, config.max_new_tokens)

    @property
    def longest(self) -> int | None:
        """Tokens of the longest prompt that fits; None: any."""
        return None if self.positions is None else self.positions - self.response

    def holds(self, length: int) -> bool:
        """Whether a prompt of ``length`` tokens fits."""
        return self.longest is None or length <= self.longest

    def __str__(self) -> str:
        return (
            f"the model's {self.positions} positions less max_new_tokens={self.response} leave room for {self.longest}"
        )


@dataclass(frozen=True, slots=True)
class Fitting:
    """Examples whose prompts fit, the length of the longest of them, and the lengths of those that do not."""

    examples: list[Example]
    longest: int
    left_out: list[int]

    def note(self, side: str, room: PromptRoom) -> str | None:
        """What was left out, in one line."""
        if not self.left_out:
            return None
        every = len(self.examples) + len(self.left_out)
        return (
            f"{len(self.left_out)} of {every} {side} prompts left out as too long: the longest has "
            f"{max(self.left_out)} tokens, and {room}"
        )


@dataclass(frozen=True, slots=True)
class PromptCheck:
    """What a look through a task's prompts found: the room for one, the held-out side, and the training side where it
    has finitely many problems (``longest`` is then not filled in)."""

    room: PromptRoom
    heldout: Fitting
    training: Fitting | None

    def notes(self) -> list[str]:
        """A line for each side of which something was left out."""
        sides = [("held-out", self.heldout), *([("training", self.training)] if self.training else [])]
        return [note for side, found in sides if (note := found.note(side, self.room)) is not None]


def check_prompts(
    encoder: PromptEncoder, model_config: Any, task: Task, heldout: Sequence[Example], config: TrainConfig
) -> PromptCheck:
    """Look through the prompts of a task before the run.

    Args:
        encoder: of the policy.
        model_config: its transformers configuration.
        task: its training side is looked through if it has a method ``training_examples``.
        heldout: the held-out examples of the run.
        config: of the run.

    Raises:
        ConfigError: no prompt of a side fits, or a setting of the chat template is not allowed.
        DataError: a prompt cannot be encoded. TaskError: there is no held-out example.
    """
    room = PromptRoom.of(model_config, config)
    if not heldout:
        raise TaskError(
            f"task {config.task.name} gives no held-out example, so that nothing can be evaluated. Give it "
            "at least one."
        )
    listed = getattr(task, "training_examples", None)
    training = None if listed is None else _look_through(encoder, listed(), room)
    return PromptCheck(room, fitting(encoder, heldout, "held-out", room), training)


def fitting(encoder: PromptEncoder, examples: Sequence[Example], side: str, room: PromptRoom) -> Fitting:
    """The ``examples`` whose prompts fit.

    Args:
        encoder: of the policy.
        examples: of one side.
        side: "training" or "held-out", for messages.
        room: of a prompt.

    Raises:
        ConfigError: none fits. DataError: a prompt cannot be encoded.
    """
    kept, left_out, longest = [], [], 0
    for example in examples:
        length = len(encoder.encode(example.prompt, example.chat, example.turns))
        if room.holds(length):
            kept.append(example)
            longest = max(longest, length)
        else:
            left_out.append(length)
    if examples and not kept:
        raise _none_fits(side, left_out, room)
    return Fitting(kept, longest, left_out)


def _look_through(encoder: PromptEncoder, examples: Sequence[Example], room: PromptRoom) -> Fitting:
    """As :func:`fitting`, for many: where the model has a row for every token, a prompt with fewer bytes than there is
    room for tokens is taken to fit. One that does not after all is left out when its turn comes."""
    suspects = list(examples)
    if encoder.covers_tokenizer and examples:
        around = len(encoder.encode("a", examples[0].chat))
        suspects = [e for e in examples if e.turns or not room.holds(len(e.prompt.encode(errors="replace")) + around)]
    lengths = [len(encoder.encode(e.prompt, e.chat, e.turns)) for e in suspects]
    left_out = [length for length in lengths if not room.holds(length)]
    if examples and len(left_out) == len(examples):
        raise _none_fits("training", left_out, room)
    too_long = {id(e) for e, length in zip(suspects, lengths, strict=True) if not room.holds(length)}
    return Fitting([e for e in examples if id(e) not in too_long], 0, left_out)


def _none_fits(side: str, lengths: Sequence[int], room: PromptRoom) -> ConfigError:
    assert room.positions is not None
    lower = room.positions - min(lengths)
    fix = f"Lower max_new_tokens to {lower} or less, use" if lower >= 1 else "Use"
    return ConfigError(
        f"no {side} prompt fits: the shortest of {len(lengths)} has {min(lengths)} tokens, and {room}. "
        f"{fix} shorter prompts, or a model with more positions."
    )


@dataclass(frozen=True, slots=True)
class TrainingStream:
    """The training examples of a run, those whose prompts do not fit passed over: always the same ones for the same
    place in the stream, so that a resumed run goes on with the next."""

    task: Task
    encoder: PromptEncoder
    room: PromptRoom
    seed: int

    def take(self, first: int, count: int) -> tuple[list[Example], int, list[str]]:
        """``count`` examples from index ``first`` on.

        Returns:
            the examples, how many indices they took, and why some were left out.

        Raises:
            TaskError: too many in a row do not fit.
        """
        examples: list[Example] = []
        reasons: list[str] = []
        index, in_a_row = first, 0
        while len(examples) < count:
            example = self.task.training_example(self.seed, index)
            index += 1
            reason = self._reason(example)
            if reason is None:
                examples.append(example)
                in_a_row = 0
                continue
            reasons.append(reason)
            in_a_row += 1
            if in_a_row == MAX_LEFT_OUT:
                raise TaskError(
                    f"{MAX_LEFT_OUT} training prompts in a row cannot be used, the last one because of "
                    f"{reason}. Use shorter prompts, or a model with more positions."
                )
        return examples, index - first, reasons

    def _reason(self, example: Example) -> str | None:
        try:
            length = len(self.encoder.encode(example.prompt, example.chat, example.turns))
        except DataError as error:
            return str(error)
        return None if self.room.holds(length) else f"{length} tokens, where {self.room}"
