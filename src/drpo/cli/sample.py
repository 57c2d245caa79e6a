"""`drpo sample`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.text import Text

from drpo.cli.evaluate import fitting_examples, load_source, resolve_source
from drpo.cli.printing import PlainConsole, write_json
from drpo.errors import ConfigError, DataError
from drpo.files import read_jsonl
from drpo.run_directory import RunDirectory, numbered_files
from drpo.schema import numbered
from drpo.tasks import Example, make_task
from drpo.tasks.grading.grader import Grade, Grader
from drpo.tasks.own_prompt import typed_example
from drpo.train.checkpoint_choice import run_of_checkpoint
from drpo.train.config import TrainConfig
from drpo.train.samplers import make_sampler
from drpo.train.threads import computing_threads
from drpo.train.try_prompts import Answer, Token, answers

#: Below these probabilities a token is underlined, and bold and underlined.
LOW, VERY_LOW = 0.5, 0.1
#: Tokens that are named below an answer.
NAMED = 5


def run_sample(
    source: str,
    prompts: Sequence[str],
    answer: str | None,
    count: int,
    settings: list[str],
    step: str | None,
    as_json: bool,
) -> None:
    """Print answers to prompts, with the probability of each token.

    Args:
        source: a run, one of its checkpoints, or a model.
        prompts: as typed; ``-`` stands for those of standard input.
        answer: the right one, to grade with.
        count: answers to each prompt.
        settings: ``key=value`` changes.
        step: which checkpoint of a run.
        as_json: print one JSON object.
    """
    notes = PlainConsole(stderr=True)
    config, model = resolve_source(source, settings, notes, step)
    examples = [
        typed_example(config.task.name, config.task.parameters, text, right if right is not None else answer)
        for text, right in _prompts(prompts)
    ]
    policy = load_source(config, model, settings, notes)
    if (trained := _training_prompt(source)) and not as_json:
        notes.say(f"note: prompts of this run look like {trained[:200]!r}")
    fitting = fitting_examples(policy, config, examples, "typed")
    with computing_threads(config.threads), closing(make_sampler(config, policy)) as sampler:
        found = answers(policy, sampler, fitting, count, config.sampling(), config.seed)
    graded = [(e, a, g) for e, a, g in zip(fitting, found, _grades(config, fitting, found), strict=True)]
    if as_json:
        shown = [_plain(example, group, grades) for example, group, grades in graded]
        cut = {"top_p": config.top_p, "top_k": config.top_k, "min_p": config.min_p}
        settings_used = {"temperature": config.temperature, **cut, "seed": config.seed}
        write_json(numbered("sample", {"model": model, **settings_used, "prompts": shown}), indent=2)
        return
    console = PlainConsole()
    console.say(f"{model}, {config.sampling().described}, seed {config.seed}")
    for example, group, grades in graded:
        console.print(Text.assemble("\n", ("prompt  ", "bold"), example.prompt), soft_wrap=True)
        for place, (one, grade) in enumerate(zip(group, grades, strict=True), start=1):
            _show(console, place, one, grade)


def _prompts(given: Sequence[str]) -> Iterable[tuple[str, str | None]]:
    """Prompts with their answers, where known. Without any, or for ``-``: a line of standard input each, plain or as
    {"prompt", "answer"}."""
    for text in given or ["-"]:
        if text != "-":
            yield text, None
            continue
        if sys.stdin.isatty():
            raise ConfigError('no prompt was given. Type `drpo sample MODEL "PROMPT"`, or send prompts, one a line.')
        lines = [line for line in sys.stdin.read().splitlines() if line.strip()]
        if not lines:
            raise DataError("standard input holds no prompt. Send one a line.")
        yield from (_from_line(line, number) for number, line in enumerate(lines, start=1))


def _training_prompt(source: str) -> str | None:
    """One that the run of ``source`` trained on, so that others can be typed in its form."""
    run = RunDirectory(source)
    run = run if run.exists() else run_of_checkpoint(Path(source))
    files = [file for _, file in numbered_files(run.rollouts, "step")] if run else []
    record = next(read_jsonl(files[0]), {}) if files else {}
    return record.get("prompt")


def _from_line(line: str, number: int) -> tuple[str, str | None]:
    if not line.lstrip().startswith('{"'):
        return line, None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return line, None  # a prompt may begin with a brace
    if not isinstance(record.get("prompt"), str):
        raise DataError(f'standard input, line {number}: {{"prompt": "…", "answer": "…"}} is needed, "prompt" a text')
    return record["prompt"], None if record.get("answer") is None else str(record["answer"])


def _grades(
    config: TrainConfig, examples: Sequence[Example], found: Sequence[Sequence[Answer]]
) -> list[list[Grade | None]]:
    """The reward of each answer to a prompt whose right answer is known."""
    rows = [(e, one.text) for e, group in zip(examples, found, strict=True) for one in group if e.answer]
    if not rows:
        return [[None] * len(group) for group in found]
    task = make_task(config.task.name, **config.task.parameters)
    with Grader(task, config.grading_time_limit, config.grading_workers) as grader:
        grades = iter(grader.grade([example for example, _ in rows], [text for _, text in rows]))
    return [[next(grades) if e.answer else None for _ in group] for e, group in zip(examples, found, strict=True)]


def _plain(example: Example, group: Sequence[Answer], grades: Sequence[Grade | None]) -> dict[str, Any]:
    return {
        "prompt": example.prompt,
        "answer": example.answer or None,
        "responses": [
            {
                "text": one.text,
                "reward": grade and grade.reward,
                "failure": grade and grade.failure,
                "stop_reason": one.stop_reason,
                "tokens": [asdict(token) for token in one.tokens],
            }
            for one, grade in zip(group, grades, strict=True)
        ],
    }


def _show(console: PlainConsole, place: int, one: Answer, grade: Grade | None) -> None:
    """An answer, its unlikely tokens marked and the least likely ones named."""
    text = Text.assemble((f"{place:>4}  ", "bold"))
    for token in one.tokens:
        if not token.ends:
            text.append(token.text, _style(token))
    console.print(text, soft_wrap=True)
    facts = [f"{len(one.tokens)} tokens", "ended" if one.stop_reason == "stop" else "cut off at max_new_tokens"]
    if grade is not None:
        facts.append(f"reward {grade.reward:g}" if grade.reward is not None else f"reward failed: {grade.failure}")
    low = sorted((token.probability, at) for at, token in enumerate(one.tokens) if token.probability < LOW)[:NAMED]
    named = ", ".join(f"{one.tokens[at].text!r} {probability:.3f}" for probability, at in low)
    facts.append(f"lowest probabilities: {named}" if low else f"no token below {LOW:g}")
    console.say(f"      {'; '.join(facts)}", style="dim")


def _style(token: Token) -> str:
    if token.probability < VERY_LOW:
        return "bold underline red"
    return "underline yellow" if token.probability < LOW else ""
